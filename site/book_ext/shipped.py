"""随网站发出去的别人的东西：许可页、许可原文；发出去的每个文件都要有归属，没有就建不成。"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

__all__ = ["OURS", "WORKS", "Work", "prune", "setup", "uncovered"]

SITE = Path(__file__).resolve().parents[1]
TEXTS, VENDOR = SITE / "licenses", SITE / "vendor"
FONT = SITE.parent / "src" / "companion" / "book" / "_fonts"


class Work(NamedTuple):
    """一件别人的东西：``slug`` 是许可原文在网站里的名字，``files`` 是它的文件。"""

    slug: str
    name: str
    license: str
    use: str
    files: tuple[str, ...]
    text: Path


KATEX = (VENDOR / "katex" / "README.md").read_text(encoding="utf-8").split("，")[0]
WORKS = (
    Work(
        *("katex", KATEX, "MIT", "公式的排版"),
        ("_static/katex/katex.min.css",),
        VENDOR / "katex" / "LICENSE",
    ),
    Work(
        *("katex-fonts", f"{KATEX} 的字体", "OFL 1.1", "公式里的字"),
        ("_static/katex/fonts/*.woff2",),
        TEXTS / "katex-fonts.txt",
    ),
    Work(
        *("pagefind", f"pagefind {version('pagefind')}", "MIT", "站内搜索"),
        ("pagefind/*",),
        TEXTS / "pagefind.txt",
    ),
    Work(
        *("sphinx-design", f"sphinx-design {version('sphinx-design')}", "MIT", "标签页"),
        ("_static/sphinx-design.min.css",),
        TEXTS / "sphinx-design.txt",
    ),
    Work(
        *("companion-sans-sc", "Companion Sans SC（Noto Sans CJK SC 的子集）", "OFL 1.1"),
        "图里的汉字；字体在伴学包的轮子里",
        ("*.whl",),
        FONT / "OFL.txt",
    ),
)
OURS = (
    *(
        "*.html",
        "chapters/*.html",
        "_images/*",
        "notebooks/*.ipynb",
        "licenses/*.txt",
        "_sources/*",
    ),
    *("_static/book.*", "_static/cells.css", "_static/favicon.svg", "_static/companion/*"),
    *("_static/lookup.js", "_static/search.js", "_static/search_plain.js"),
    *("_static/search_sections.js", ".buildinfo", "objects.inv", "sitemap.xml"),
)
LEFT_OVER = ("searchindex.js", "py-modindex.html")  # 从前建的站里有，现在不要了


def shipped(outdir: Path) -> Iterator[str]:
    """网站里的每个文件，相对网站根的路径。"""
    for path in sorted(outdir.rglob("*")):
        if path.is_file():
            yield path.relative_to(outdir).as_posix()


def uncovered(outdir: Path) -> list[str]:
    """没有归属的文件：不是我们写的，许可页里也没有。"""
    known = [*OURS, *(pattern for work in WORKS for pattern in work.files)]
    return [name for name in shipped(outdir) if not any(fnmatch(name, p) for p in known)]


def prune(outdir: Path) -> None:
    """删掉 ``_static`` 里没有一页、也没有搜索用到的文件：Sphinx 和各扩展总是整套放进来。"""
    static = outdir / "_static"
    pages = "".join(path.read_text(encoding="utf-8") for path in outdir.rglob("*.html"))
    search = static.glob("search.js")  # 有的文件它要用才下载
    late = "".join(path.read_text(encoding="utf-8") for path in search)
    for path in static.glob("*"):
        used = f"_static/{path.name}" in pages or f'"{path.name}"' in late
        if path.is_file() and not used:
            path.unlink()
    for name in LEFT_OVER:
        (outdir / name).unlink(missing_ok=True)


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """许可页、备用搜索页、没有这一页的页：不是从源文件来的三页。"""
    yield "licenses", {"title": "许可", "works": WORKS}, "licenses.html"
    yield "search", {"title": "搜索", "noindex": True}, "search.html"
    root = urlsplit(app.config.html_baseurl).path or "/"
    yield "404", {"noindex": True, "site_root": root}, "404.html"


def prepare(app: Sphinx) -> None:
    if app.builder.format == "html":
        app.builder.search = False  # 搜索页是我们自己的，不要 Sphinx 的索引和脚本


def on_finish(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    outdir = Path(app.outdir)
    (outdir / "licenses").mkdir(exist_ok=True)
    for work in WORKS:
        shutil.copyfile(work.text, outdir / "licenses" / f"{work.slug}.txt")
    prune(outdir)
    if names := uncovered(outdir):
        raise ExtensionError(
            f"这些文件会随网站发出去，却不知道是谁的、什么许可：{'、'.join(names)}。"
            "请在 site/book_ext/shipped.py 里写上，或者不发。"
        )


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", prepare)
    app.connect("html-collect-pages", pages)
    app.connect("build-finished", on_finish, priority=950)  # 在搜索索引写好之后
