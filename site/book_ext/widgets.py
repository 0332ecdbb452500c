"""交互组件：页面里去掉每格自带的脚本与样式，改为每页各引用一次站内的那份。"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

INLINE = re.compile(r"""<(script|style) data-companion=["']([\w-]+)["']>.*?</\1>""", re.S)
SOURCE = Path("src", "companion", "book", "_js")
SUFFIX = {"script": ".js", "style": ".css"}


def strip_inline(body: str) -> tuple[str, list[str]]:
    """去掉内联脚本与样式后的 HTML，以及应改为引用的文件名（按出现先后，不重复）。"""
    found = [match[2] + SUFFIX[match[1]] for match in INLINE.finditer(body)]
    return INLINE.sub("", body), list(dict.fromkeys(found))


def copy_assets(app: Sphinx) -> None:
    source = Path(app.srcdir) / SOURCE
    if app.builder.format == "html" and source.is_dir():
        target = Path(app.outdir, "_static", "companion")
        shutil.copytree(source, target, dirs_exist_ok=True)


def on_page(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    if doctree is None:
        return
    context["body"], names = strip_inline(context.get("body") or "")
    for name in names:
        if name.endswith(".js"):
            app.add_js_file(f"companion/{name}", defer="defer")
        else:
            app.add_css_file(f"companion/{name}")


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", copy_assets)
    app.connect("html-page-context", on_page, priority=800)
