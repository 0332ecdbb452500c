"""读者版笔记本里的称呼：标签指到哪里、误解是哪一句、文献是谁写的，都写成不靠网站也读得懂的字。

网站上这些是链接；下载的笔记本里，同一本的写成笔记本内的链接，别的页在公开地址定下之前只写页名。
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nbformat.v4 import new_markdown_cell, new_notebook
from pybtex.database import Entry, parse_file
from pybtex.richtext import Text

from tools.clinic import Claim, claims
from tools.lint_chapter import FENCED
from tools.notebooks import ROOT, Notebook, ToolError, read_notebook, toc_documents

__all__ = ["Book", "Target", "anchor", "chapter_words", "page_targets", "read_book"]

NUMBERED = re.compile(r"chapters/(\d\d)_")
LINE = re.compile(
    r"^\((?P<label>[\w-]+)\)=[ \t]*$|^#{1,6}[ \t]+(?P<heading>.+?)[ \t]*$"
    r"|^:{3,}\{exercise(?:-start)?\}[ \t]*(?P<exercise>.*)\n(?:(?::(?!label)\w+:.*\n)*:label:[ \t]*"
    r"(?P<name>[\w-]+))?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Target:
    """标签指到的东西：``title`` 是称呼，``heading`` 是练习在读者版里的标题。"""

    document: str
    title: str
    heading: str = ""


@dataclass(frozen=True)
class Book:
    """全书的称呼。``base`` 是网站的公开地址，以 ``/`` 结尾；还没定就是空串。"""

    pages: dict[str, str] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    myths: dict[str, Claim] = field(default_factory=dict)
    citations: dict[str, str] = field(default_factory=dict)
    base: str = ""

    def page(self, document: str) -> str:
        """一页的称呼，如 ``第 4 章《训练》``。"""
        found = NUMBERED.match(document)
        return (f"第 {int(found[1])} 章" if found else "") + f"《{self.pages[document]}》"

    def link(self, here: str, label: str, text: str = "", lead: str = "") -> str:
        """从 ``here`` 指到 ``label`` 的 Markdown；``text`` 是作者写好的文字，``lead`` 加在称呼前。

        Raises:
            ToolError: 书里没有这个标签。
        """
        target = self.targets.get(label)
        if target is None:
            raise ToolError(f"标签 {label} 不在书里；改成有的标签，或在那个标题上写 ({label})=。")
        if target.document == here:
            return f"[{text or lead + target.title}](#{label})"
        page = self.page(target.document)
        is_page = target.title == self.pages[target.document]
        name = page if is_page else f"{page}的「{lead}{target.title.strip('「」')}」"
        if self.base:
            return f"[{text or name}]({self.base}{target.document}.html#{label})"
        if not text or text in page:
            return name
        return f"{text}（{name}）"

    def myth(self, here: str, number: str) -> str:
        """指到误解 ``number`` 的 Markdown：``[误解：…](#…)``，或页名加那句话。"""
        claim = self.myths.get(number)
        if claim is None or not claim.title:
            raise ToolError(f"误解 {number} 没有登记原话；写进 site/beliefs.toml 或诊所的标题。")
        if claim.document == here:
            return self.link(here, claim.label, f"误解：{claim.title}")
        name = f"{self.page(claim.document)}的「误解：{claim.title}」"
        address = f"{self.base}{claim.document}.html#{claim.label}"
        return f"[{name}]({address})" if self.base else name

    def chapter(self, number: str) -> str:
        """``第 4 章``；目录里还没有的，后面写明还没写。"""
        found = (NUMBERED.match(document) for document in self.pages)
        return chapter_words(number, int(number) in {int(match[1]) for match in found if match})

    def cite(self, keys: str) -> str:
        """``〔作者 年份〕``；几篇之间用分号。"""
        names = [key.strip() for key in keys.split(",")]
        if missing := [name for name in names if name not in self.citations]:
            raise ToolError(f"references.bib 里没有 {'、'.join(missing)}。")
        return f"〔{'；'.join(self.citations[name] for name in names)}〕"


def chapter_words(number: str, written: bool) -> str:
    """章的称呼；没写的照实说，写好那天就自己去掉。"""
    return f"第 {int(number)} 章{'' if written else '（还没写）'}"


def anchor(label: str) -> str:
    """标签在读者版里的锚点。JupyterLab 自己给标题的锚点，含汉字的点了没有反应；写明的才有。"""
    return f'<a id="{label}"></a>'


def page_targets(document: str, notebook: Notebook) -> Iterator[tuple[str, Target]]:
    """一页里的 ``(标签, Target)``；练习和图按先后编号，与网站一致。标题的标签为空时也给出。"""
    found = NUMBERED.match(document)
    prefix = f"{int(found[1])}." if found else ""
    exercises = figures = 0
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            figures += name is not None
            if name:
                yield name, Target(document, f"图 {prefix}{figures}")
            continue
        waiting: list[str] = []
        for match in LINE.finditer(FENCED.sub("", cell.source)):
            if match["label"]:
                waiting.append(match["label"])
            elif match["heading"]:
                target = Target(document, match["heading"].lstrip("★☆ "))
                yield from ((label, target) for label in [*waiting, ""])
                waiting = []
            else:
                exercises += 1
                title = f"练习 {prefix}{exercises}"
                full = f"{title}（{match['exercise']}）" if match["exercise"] else title
                yield match["name"] or "", Target(document, title, full)


def read_book(root: Path = ROOT, documents: Iterable[str] | None = None, base: str = "") -> Book:
    """读出全书的称呼；``documents`` 缺省为目录里的全部。"""
    pages: dict[str, str] = {}
    targets: dict[str, Target] = {}
    for document in toc_documents(root) if documents is None else sorted(documents):
        for label, target in page_targets(document, _page(root, document)):
            pages.setdefault(document, target.title)
            if label:
                targets[label] = target
    myths = claims(root) if (root / "tests" / "coverage.yml").is_file() else {}
    bibliography = root / "references.bib"
    entries = parse_file(str(bibliography)).entries.items() if bibliography.is_file() else ()
    citations = {key: _author_year(entry) for key, entry in entries}
    return Book(pages, targets, myths, citations, f"{base.rstrip('/')}/" if base else "")


def _page(root: Path, document: str) -> Notebook:
    path = root / f"{document}.ipynb"
    if path.is_file():
        return read_notebook(path)
    text = (root / f"{document}.md").read_text(encoding="utf-8")
    return new_notebook(cells=[new_markdown_cell(text)])


def _author_year(entry: Entry) -> str:
    """``Zhang 等 2017``：一位或两位写全，再多只写第一位。"""
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [str(Text.from_latex(" ".join(p.prelast_names + p.last_names))) for p in people]
    others = len(names) > 2 or "others" in names
    who = f"{names[0]} 等" if others else " 与 ".join(names)
    return f"{who} {entry.fields['year']}"
