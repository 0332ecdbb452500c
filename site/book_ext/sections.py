"""把写好的页面按标题切成小节，供站内搜索逐节收录。"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "img", "hr", "input", "wbr", "link", "meta", "source", "col"}
# 不收录的：页面家具，以及先猜（cw）的选项，它们提到的词不在那里讲
SKIPPED_TAGS = {"script", "style", "annotation", "svg", "button"}
SKIPPED_CLASSES = {"headerlink", "eqno", "katex-html", "collapsed", "expanded", "cw"}
SKIPPED_CLASSES |= {"book-facts", "book-minutes", "book-eyebrow", "lookup"}
HEADINGS = {"h1", "h2", "h3", "h4"}
BLOCKS = HEADINGS | {"p", "li", "dt", "dd", "td", "th", "pre", "div", "summary", "figcaption"}


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


class SectionParser(HTMLParser):
    """读一页 HTML，``sections`` 里依次是各小节。"""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[Section] = []
        self._open: list[tuple[str, bool]] = []  # 标签，是否不收录
        self._anchors: list[str] = [""]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return
        values = {name: value or "" for name, value in attrs}
        classes = set(values.get("class", "").split())
        skipped = tag in SKIPPED_TAGS or not classes.isdisjoint(SKIPPED_CLASSES)
        self._open.append((tag, skipped))
        if tag == "section":
            self._anchors.append(values.get("id") or self._anchors[-1])
        if not self._inside("article"):
            return
        if tag in HEADINGS:
            self.sections.append(Section(self._anchors[-1]))
        elif self.sections and tag in BLOCKS:
            self.sections[-1].add("code" if tag == "pre" else "prose", " ")
        elif self.sections and "glossary.html#term-" in values.get("href", ""):
            self.sections[-1].terms.append("")
            self._open[-1] = ("a-term", False)

    def handle_endtag(self, tag: str) -> None:
        name = "a-term" if tag == "a" and self._open and self._open[-1][0] == "a-term" else tag
        if self._inside(name):
            while self._open.pop()[0] != name:
                pass
            if tag == "section":
                self._anchors.pop()

    def handle_data(self, data: str) -> None:
        if not self.sections or not self._inside("article"):
            return
        if any(skipped for _, skipped in self._open):
            return
        section = self.sections[-1]
        in_title = any(self._inside(tag) for tag in HEADINGS)
        section.add("title" if in_title else "code" if self._inside("pre") else "prose", data)
        if self._inside("a-term"):
            section.terms[-1] += data

    def _inside(self, tag: str) -> bool:
        return any(name == tag for name, _ in self._open)


def split_sections(html: str) -> list[Section]:
    """页面 ``html`` 的小节，按先后；没有标题的页面为空表。"""
    parser = SectionParser()
    parser.feed(html)
    return parser.sections
