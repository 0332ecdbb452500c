"""伴学包的接口页：autodoc 认得出的成员里，去掉没有自己说明的那些；中文里的代码不必隔空格。"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

EMPTY = "Alias for field number"  # NamedTuple 的字段：Python 自带的说明，等于没说
LITERAL = re.compile(r"``[^`]+``")


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """要不要跳过这个成员；``None`` 是听 autodoc 的。"""
    return True if (getattr(obj, "__doc__", None) or "").startswith(EMPTY) else None


def loosen(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """代码两边各加一个看不见的空格：RST 要求有，紧跟着汉字或全角括号的才认得出来。"""
    lines[:] = [LITERAL.sub(r"\\ \g<0>\\ ", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", loosen, priority=600)  # 在 napoleon 之后
