"""全书唯一的 HTML 翻译器：页面要的样子都从文档树写出来，写好的 HTML 不再改。"""

from __future__ import annotations

import posixpath
import struct
from html import escape
from pathlib import Path
from urllib.parse import quote

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from .folds import fold, fold_title
from .long_lines import mark_long_lines

PNG = b"\x89PNG\r\n\x1a\n"
SHARP = 2  # 图按两倍的像素画，屏幕上占一半：手机上才不糊


def png_size(path: Path) -> tuple[int, int]:
    """PNG 的宽和高，单位是像素。

    Raises:
        ValueError: 不是 PNG。
    """
    with path.open("rb") as file:
        head = file.read(24)
    if head[:8] != PNG:
        raise ValueError(f"书里的图应是 PNG，{path.name} 不是。")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


class BookTranslator(HTML5Translator):
    """Sphinx 的翻译器，加上本书与它不同的地方。"""

    def add_permalink_ref(self, node: nodes.Element, title: str) -> None:
        """标题链接有中文名；鼠标停上去不弹提示。"""
        if node["ids"] and self.config.html_permalinks and self.builder.add_permalinks:
            icon = self.config.html_permalinks_icon
            link = (
                f'<a class="headerlink" href="#{node["ids"][0]}" aria-label="此处的链接">{icon}</a>'
            )
            self.body.append(link)

    def visit_title(self, node: nodes.title) -> None:
        """左侧目录里一部分的名字不是标题：它下面没有正文。"""
        if not isinstance(node.parent, addnodes.compact_paragraph):
            super().visit_title(node)
            return
        self.body.append('<p class="caption"><span class="caption-text">')
        self.context.append("</span></p>\n")

    def visit_image(self, node: nodes.image) -> None:
        """写明宽高，页面一出现就给图留好位置，链接和目录才跳得准；滚到附近才下载。"""
        name = self.builder.images.get(node["uri"])
        if name is None:
            super().visit_image(node)
            return
        width, height = png_size(Path(self.builder.srcdir, node["uri"]))
        attributes = {
            "src": posixpath.join(self.builder.imgpath, quote(name)),
            "alt": node.get("alt", ""),
            "width": width // SHARP,
            "height": height // SHARP,
            "loading": "lazy",
            "decoding": "async",
        }
        self.body.append(self.emptytag(node, "img", "\n", **attributes))

    def visit_table(self, node: nodes.table) -> None:
        """宽表在自己的框里滚动。"""
        self.body.append('<div class="table-box">')
        super().visit_table(node)

    def depart_table(self, node: nodes.table) -> None:
        super().depart_table(node)
        self.body.append("</div>\n")

    def visit_entry(self, node: nodes.entry) -> None:
        """表头里的空格子不是标题，读屏软件也不该念它。"""
        if node.astext() or not isinstance(node.parent.parent, nodes.thead):
            super().visit_entry(node)
            return
        node.parent.column += 1
        self.body.append("<td></td>\n")
        raise nodes.SkipNode

    def visit_citation(self, node: nodes.citation) -> None:
        """外面是 ``role="list"``，里面就得是它的一项。"""
        if not isinstance(node.previous_sibling(), nodes.citation):
            self.body.append('<div role="list" class="citation-list">\n')
        self.body.append(self.starttag(node, "div", classes=["citation"], role="listitem"))

    def visit_literal_block(self, node: nodes.literal_block) -> None:
        """手机上放不下的代码行做上记号。"""
        start = len(self.body)
        try:
            super().visit_literal_block(node)
        finally:  # 写完一块，Sphinx 总抛 SkipNode
            self.body[start:] = [mark_long_lines("".join(self.body[start:]))]

    def visit_fold(self, node: fold) -> None:
        self.body.append(self.starttag(node, "details"))

    def depart_fold(self, node: fold) -> None:
        self.body.append("</details>\n")

    def visit_fold_title(self, node: fold_title) -> None:
        self.body.append(self.starttag(node, "summary", ""))

    def depart_fold_title(self, node: fold_title) -> None:
        self.body.append("</summary>\n")

    def visit_hidden(self, node: HideCodeCellNode) -> None:
        """藏起来的一格：展开前后各有一句话，样式表只显示一句。"""
        self.body.append(self.starttag(node, "details", CLASS="hide"))
        shown, hidden = escape(node["prompt_show"]), escape(node["prompt_hide"])
        words = f'<span class="collapsed">{shown}</span><span class="expanded">{hidden}</span>'
        self.body.append(f"<summary>{words}</summary>\n")


def setup(app: Sphinx) -> None:
    app.set_translator("html", BookTranslator)
    hidden = (BookTranslator.visit_hidden, BookTranslator.depart_fold)
    app.add_node(HideCodeCellNode, override=True, html=hidden)
