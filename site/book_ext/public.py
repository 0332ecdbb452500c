"""给别的网站看的：分享时的标题、简介和图，规范地址，网站地图。公开地址没定的，一个地址也不写。"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from docutils import nodes
from sphinx.application import Sphinx

from companion.data import load_digits
from companion.plot import use_chinese_font

from .facts import is_placeholder
from .sections import split_sections
from .shipped import pages

SIZE = (1200, 630)  # 各家社交网站都认的大小，单位是像素
DPI = 100
CARD = "_images/share-card.png"
LONGEST = 160


def address(app: Sphinx) -> str:
    """网站的公开地址，以 ``/`` 结尾；还没定就是空串。"""
    base = app.config.html_baseurl or ""
    return "" if not base or is_placeholder(base) else base.rstrip("/") + "/"


def description(doctree: nodes.document) -> str:
    """一页的简介：开头的几句话，不超过 ``LONGEST`` 字，断在句末。"""
    text = next((found for s in split_sections(doctree) if (found := s.prose.strip())), "")
    if len(text) <= LONGEST:
        return text
    whole = text[:LONGEST].rpartition("。")[0]
    return whole + "。" if whole else text[: LONGEST - 1] + "…"


def draw_card(path: Path, title: str) -> None:
    """分享时的图：一张手写数字和书名。"""
    from matplotlib.figure import Figure  # 只有公开的网站才画

    use_chinese_font()
    figure = Figure([side / DPI for side in SIZE], dpi=DPI, facecolor="#fdfcfa", layout="none")
    axes = figure.add_axes((0.06, 0.14, 0.38, 0.72))
    axes.imshow(load_digits().images[9].numpy(), cmap="Oranges")
    axes.set_axis_off()
    figure.text(0.5, 0.56, title, size=44, color="#23272b", va="center")
    figure.text(0.5, 0.38, "每一格代码都跑过的中文教材", size=24, color="#5b6168", va="center")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


def on_page(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    base, title = address(app), app.config.html_title
    names = {"title": context.get("title", ""), "type": "website", "site_name": title}
    if doctree is not None:
        names["title"] = app.env.titles[pagename].astext()
        names["description"] = context["description"] = description(doctree)
    if base:
        names |= {"url": base + quote(app.builder.get_target_uri(pagename)), "image": base + CARD}
        names |= {"image:width": str(SIZE[0]), "image:height": str(SIZE[1]), "image:alt": title}
    context["pageurl"], context["og"] = names.get("url"), names


def on_finish(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    base, target = address(app), Path(app.outdir, "sitemap.xml")
    if not base:
        target.unlink(missing_ok=True)
        return
    draw_card(Path(app.outdir, CARD), app.config.html_title)
    listed = [name for name, context, _ in pages(app) if not context.get("noindex")]
    names = sorted([*app.env.found_docs, *listed])
    urls = [escape(base + quote(app.builder.get_target_uri(name))) for name in names]
    rows = "".join(f"<url><loc>{url}</loc></url>\n" for url in urls)
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    body = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{rows}</urlset>\n'
    target.write_text(head + body, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", on_page, priority=700)
    app.connect("build-finished", on_finish)
