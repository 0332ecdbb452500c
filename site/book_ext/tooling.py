"""站点扩展要用的 ``tools``：同一件事只有一份算法，检查用它，网页也用它。"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "tool"]

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> Any:
    """``tools/名字.py`` 这个模块。"""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module(f"tools.{name}")
