"""把一页的文档树按标题切成小节，供站内搜索逐节收录。"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from docutils import nodes
from sphinx import addnodes

from . import katex

# 不收录的：页面家具，和整段的 HTML（先猜的选项、查报错的框，它们提到的词不在那里讲）
SKIPPED = (nodes.raw, nodes.image, nodes.comment, addnodes.index, addnodes.toctree)
CODE = (nodes.literal_block, nodes.doctest_block)
FORMULAS = (nodes.math, nodes.math_block)
NO_NUMBERS: Mapping[str, str] = {}
TERM = "glossary.html#term-"


@dataclass
class Section:
    """一个标题和它下面、下一个标题之前的文字。

    ``anchor`` 是页内锚点；``terms`` 是这一节引入的术语（链到术语表的文字）。
    """

    anchor: str
    title: str = ""
    prose: str = ""
    code: str = ""
    terms: list[str] = field(default_factory=list)

    def add(self, kind: str, text: str) -> None:
        """往 ``kind``（title、prose、code）里接一段，连续的空白并成一个空格。"""
        joined = getattr(self, kind) + text
        tail = " " if joined[-1:].isspace() else ""
        setattr(self, kind, " ".join(joined.split()) + tail)

    def text(self) -> str:
        """标题、正文与代码连起来的全文。"""
        return f"{self.title} {self.prose} {self.code}"


def split_sections(
    doctree: nodes.document, numbers: Mapping[str, str] = NO_NUMBERS
) -> list[Section]:
    """一页的小节，按先后；没有标题的页面为空表。``numbers`` 是图和练习的编号：id → ``图 1.2``。"""
    found: list[Section] = []
    _read(doctree, "prose", found, numbers)
    return found


def _read(node: nodes.Node, kind: str, found: list[Section], numbers: Mapping[str, str]) -> None:
    """把 ``node`` 里的字按 ``kind`` 接到最后一节上；遇到标题就另起一节。"""
    values = node.attributes if isinstance(node, nodes.Element) else {}
    if isinstance(node, SKIPPED):
        return
    if isinstance(node, nodes.title) and isinstance(node.parent, nodes.section):
        found.append(Section(node.parent["ids"][0]))
        kind = "title"
    elif isinstance(node, CODE):
        kind = "code"
    if found:
        found[-1].add(kind, _own_text(node))
        for name in values.get("ids", ()):
            found[-1].add(kind, f"{numbers[name]} " if name in numbers else "")
        if TERM in values.get("refuri", ""):
            found[-1].terms.append(node.astext())
    for child in () if isinstance(node, FORMULAS) else node.children:
        _read(child, kind, found, numbers)


def _own_text(node: nodes.Node) -> str:
    """``node`` 自己的字：公式读得出的那几个字；一段一块的，和前面隔一个空格。"""
    if isinstance(node, FORMULAS):
        return katex.plain(node.astext())
    if isinstance(node, nodes.Text):
        return node.astext()
    if isinstance(node, addnodes.desc_returns):
        return " → "
    return "" if isinstance(node, nodes.Inline | nodes.title) else " "
