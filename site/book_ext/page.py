"""每一页写出前的修整：只留要用的脚本与样式，定下安全策略，补上章首、本页目录与图片的宽高。"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from . import katex
from .chapters import chapter_number
from .facts import eyebrow, facts_bar, is_placeholder
from .images import sized
from .long_lines import mark_long_lines

THEME = Path(__file__).resolve().parents[1] / "templates" / "theme.js"
H1 = re.compile(r"<h1>.*?</h1>", re.S)
KEPT = re.compile(r"_static/(?:book|cells|search)\.(?:css|js)$")
DESIGN = re.compile(r"sphinx-design\.min\.css")
OUTER_LIST = re.compile(r"^\s*<ul>\s*<li>\s*<a[^>]*>.*?</a>(.*)</li>\s*</ul>\s*$", re.S)
HINT = r'<span class="\1">\2</span>'
TRACE_HEAD = r'<span class="gt">-{20,}</span>\n.*?Traceback \(most recent call last\)\n'
CODE = re.compile(r'<code class="docutils literal notranslate">(.*?)</code>')
SHORT = 24  # 正文里这么长的代码，不在中间折行
SIGNATURE = re.compile(r'<dl>\s*((?:<dd><em class="sig-param".*?</dd>\s*)+)</dl>', re.S)
REPLACED = (
    (re.compile(TRACE_HEAD), ""),  # 横线与重复的错误名，手机上占两行
    (re.compile(r'(class="headerlink" href="[^"]*") title="[^"]*"'), r'\1 aria-label="此处的链接"'),
    (re.compile(r"<table (?=[^>]*class=)"), '<div class="table-box"><table '),
    (re.compile(r"</table>"), "</table></div>"),
    (re.compile(r'<th( class="[^"]*")?><p></p></th>'), "<td></td>"),
    (re.compile(r'<summary aria-label="[^"]*">'), "<summary>"),
    (re.compile(r'<p class="(collapsed|expanded) admonition-title">(.*?)</p>'), HINT),
    (re.compile(r'<details class="admonition hide'), '<details class="hide'),
    (re.compile(r"(</strong>(?:</a>)?) -- "), r"\1："),  # 接口页的参数名之后
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),  # 外面是 role="list"
    (re.compile(r'<section id="(?:solution|exercise)-content">'), "<section>"),
)


def keep_assets(context: dict[str, Any]) -> None:
    """只留本书自己的脚本与样式；用到标签页、网格的页面再加 sphinx-design 那份。"""
    wanted = [KEPT] + ([DESIGN] if 'class="sd-' in context.get("body", "") else [])
    for kind in ("script_files", "css_files"):
        context[kind][:] = [
            item
            for item in context[kind]
            if any(pattern.search(str(item.filename or "")) for pattern in wanted)
        ]


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


def hide_address(context: dict[str, Any], base: str) -> None:
    """公开地址还没定时，页面里不写规范地址，也不写含着它的 og 标签。"""
    context["pageurl"] = None
    tag = re.compile(rf'<meta [^>]*content="{re.escape(base)}[^>]*>\n?')
    context["metatags"] = tag.sub("", context.get("metatags") or "")


def tidy_body(body: str) -> str:
    """正文 HTML：宽表装进可滚动的框，标题链接有中文名。"""
    for pattern, new in REPLACED:
        body = pattern.sub(new, body)
    body = CODE.sub(short_code, body)
    body = mark_long_lines(body)
    return SIGNATURE.sub(signature_lines, body)


def short_code(found: re.Match[str]) -> str:
    """短的代码加上 ``short``：``(n, 4, 3)`` 断成两行就不好读了。"""
    if len(re.sub(r"<[^>]*>", "", found[1])) > SHORT:
        return found[0]
    return found[0].replace('class="', 'class="short ', 1)


def signature_lines(found: re.Match[str]) -> str:
    """分行的签名：Sphinx 用没有 ``dt`` 的 ``dl``，读屏软件不认；换成一行一个 ``span``。"""
    lines = found[1].replace("<dd>", "<span>").replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def page_toc(toc: str) -> str:
    """本页目录的 HTML，不含页面标题那一层；只有标题时为空。"""
    inner = OUTER_LIST.match(toc)
    return inner[1].strip() if inner else ""


def on_page(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    keep_assets(context)
    context["theme_script"], context["policy"] = theme_script(), policy()
    base = app.config.html_baseurl
    if not base or is_placeholder(base):
        hide_address(context, base or "http")
    if doctree is None:
        return
    body = sized(app, tidy_body(context["body"]))
    if chapter_number(pagename) is not None:
        bar = facts_bar(app, pagename, context["content_root"])
        body = H1.sub(lambda m: f"{eyebrow(pagename)}{m[0]}{bar}", body, count=1)
    context["body"] = body
    context["page_toc"] = page_toc(context.get("toc") or "")
    if 'class="katex' in body:
        app.add_css_file(katex.CSS, priority=300)


def drop_sitemap(app: Sphinx, error: Exception | None) -> None:
    """公开地址还没定，就没有网站地图可写。"""
    if not error and is_placeholder(app.config.html_baseurl):
        Path(app.outdir, "sitemap.xml").unlink(missing_ok=True)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", drop_sitemap, priority=900)  # 在 sphinx_sitemap 之后
    app.connect("html-page-context", on_page, priority=700)
