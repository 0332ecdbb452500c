"""章节笔记本：执行缓存在哪里，以及给读者下载的那一份。"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from .chapters import is_notebook
from .facts import is_placeholder
from .tooling import tool


def cache_path(root: Path) -> Path:
    """执行缓存的文件夹；由 ``tools/execute.py`` 决定，没有它时用 ``_build/.jupyter_cache``。"""
    if not (root / "tools" / "execute.py").is_file():
        return root / "_build" / ".jupyter_cache"
    return Path(tool("execute").cache_path(root))


def write_downloads(app: Sphinx, error: Exception | None) -> None:
    """把章节和诊所换成读者版，放到网站的 ``notebooks/``；源文件里是别的前端不认的 MyST。"""
    if error or app.builder.format != "html":
        return
    base, root = app.config.html_baseurl or "", Path(app.srcdir)
    sources = {name: Path(app.env.doc2path(name)) for name in app.env.found_docs}
    chapters = [name for name in sorted(sources) if is_notebook(app, name)]
    target = Path(app.outdir, "notebooks")
    target.mkdir(parents=True, exist_ok=True)
    if not chapters:
        return
    try:
        address = "" if is_placeholder(base) else base
        book = tool("reader_words").read_book(root, sources, address)
        for name in chapters:
            notebook = tool("notebooks").read_notebook(sources[name])
            text = tool("readers").reader_text(notebook, name, book)
            tool("notebooks").write_text(target / f"{Path(name).name}.ipynb", text)
    except tool("notebooks").ToolError as problem:
        raise ExtensionError(f"写不成读者版笔记本：{problem}") from problem


def setup(app: Sphinx) -> None:
    app.connect("build-finished", write_downloads)
