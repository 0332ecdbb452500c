"""每一页的外框要的东西：只留用到的脚本与样式，定下安全策略，写出本页目录。"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment.adapters.toctree import TocTree

from . import katex

THEME = Path(__file__).resolve().parents[1] / "templates" / "theme.js"
KEPT = re.compile(r"_static/(?:book|cells|search)\.(?:css|js)$")
DESIGN = re.compile(r"sphinx-design\.min\.css")


def need(doctree: nodes.document, *names: str) -> None:
    """记下这一页要引用的脚本或样式，``_static`` 里的名字。"""
    doctree["assets"] = list(dict.fromkeys([*doctree.get("assets", ()), *names]))


def has_class(doctree: nodes.document, prefix: str) -> bool:
    """页面里有没有一个元素，它的一个类以 ``prefix`` 开头。"""
    elements = doctree.findall(nodes.Element)
    return any(name.startswith(prefix) for node in elements for name in node.get("classes", ()))


def keep_assets(context: dict[str, Any], *wanted: re.Pattern[str]) -> None:
    """脚本与样式只留 ``wanted`` 里的：Sphinx 和各扩展总是每页都加上自己那份。"""
    for kind in ("script_files", "css_files"):
        context[kind][:] = [
            item
            for item in context[kind]
            if any(pattern.search(str(item.filename or "")) for pattern in wanted)
        ]


def add_assets(app: Sphinx, doctree: nodes.document) -> None:
    """引用 `need` 记下的那些，有公式的加上公式的样式。"""
    if doctree.next_node(lambda node: isinstance(node, nodes.math | nodes.math_block)):
        app.add_css_file(katex.CSS, priority=300)
    for name in doctree.get("assets", ()):
        if name.endswith(".js"):
            app.add_js_file(name, defer="defer")
        else:
            app.add_css_file(name)


@cache
def theme_script() -> str:
    """写在每一页里的那一小段脚本：没画出页面之前就定好深浅，免得闪一下。"""
    return THEME.read_text(encoding="utf-8").strip()


@cache
def policy() -> str:
    """内容安全策略：脚本、样式、字体、请求都只认本站；写在页面里的脚本只认 `theme_script`。

    KaTeX 靠 style 属性排版，所以样式放行写在标签上的；pagefind 是 WebAssembly。
    """
    digest = base64.b64encode(hashlib.sha256(theme_script().encode()).digest()).decode()
    rules = {
        "default-src": "'none'",
        "script-src": f"'self' 'sha256-{digest}' 'wasm-unsafe-eval'",
        "style-src": "'self' 'unsafe-inline'",
        "style-src-elem": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "connect-src": "'self'",
        "worker-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
    }
    return "; ".join(f"{name} {sources}" for name, sources in rules.items())


def page_toc(app: Sphinx, docname: str) -> str:
    """本页目录的 HTML，不含页面标题那一层；只有标题时为空。"""
    whole = TocTree(app.env).get_toc_for(docname, app.builder)
    lists = [part for title in whole for part in title if isinstance(part, nodes.bullet_list)]
    return str(app.builder.render_partial(lists[0])["fragment"]).strip() if lists else ""


def on_page(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    context["theme_script"], context["policy"] = theme_script(), policy()
    if doctree is None:
        keep_assets(context, KEPT)
        return
    keep_assets(context, KEPT, *([DESIGN] if has_class(doctree, "sd-") else []))
    add_assets(app, doctree)
    context["page_toc"] = page_toc(app, pagename)


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", on_page, priority=700)
