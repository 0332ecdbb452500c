"""章节笔记本：执行缓存在哪里，以及给读者下载的原件。"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

from .chapters import chapter_number


def cache_path(root: Path) -> Path:
    """执行缓存的文件夹；由 ``tools/execute.py`` 决定，没有它时用 ``_build/.jupyter_cache``。"""
    if not (root / "tools" / "execute.py").is_file():
        return root / "_build" / ".jupyter_cache"
    sys.path.append(str(root))
    return Path(importlib.import_module("tools.execute").cache_path(root))


def copy_downloads(app: Sphinx, error: Exception | None) -> None:
    """把入库的笔记本原样放到网站的 ``notebooks/``。"""
    if error or app.builder.format != "html":
        return
    target = Path(app.outdir, "notebooks")
    target.mkdir(parents=True, exist_ok=True)
    for docname in app.env.found_docs:
        if chapter_number(docname) is not None:
            shutil.copyfile(app.env.doc2path(docname), target / f"{Path(docname).name}.ipynb")


def setup(app: Sphinx) -> None:
    app.connect("build-finished", copy_downloads)
