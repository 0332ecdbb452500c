"""笔记本的小节：标题、标签、★/☆ 记号，和每节里的单元。"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tools.lint_chapter import FENCED
from tools.notebooks import Notebook

__all__ = ["Section", "outline"]

HEADING = re.compile(r"^((?:\([\w-]+\)=\n+)*)(#{1,6})[ \t]+(.+?)[ \t]*$", re.MULTILINE)
LABEL = re.compile(r"\(([\w-]+)\)=")


@dataclass
class Section:
    """一个标题和它管到的单元，标题所在的单元排第一。``labels`` 是写在标题上面的标签。"""

    level: int
    title: str
    labels: tuple[str, ...]
    cells: list[Notebook] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """``★``、``☆`` 或空串。"""
        return self.title[0] if self.title[0] in "★☆" else ""

    @property
    def label(self) -> str:
        """第一个标签；没有标签时为空串。"""
        return self.labels[0] if self.labels else ""

    @property
    def code(self) -> list[Notebook]:
        """有内容的代码单元。"""
        return [cell for cell in self.cells if cell.cell_type == "code" and cell.source.strip()]

    @property
    def prose(self) -> list[Notebook]:
        """正文单元。"""
        return [cell for cell in self.cells if cell.cell_type == "markdown"]


def outline(cells: Iterable[Notebook], depth: int = 2) -> list[Section]:
    """按不深于 ``depth`` 级的标题切开；第一个标题之前的单元不算。"""
    found: list[Section] = []
    for cell in cells:
        if cell.cell_type == "markdown":
            found += _headings(cell.source, depth)
        if found:
            found[-1].cells.append(cell)
    return found


def _headings(source: str, depth: int) -> Iterator[Section]:
    for labels, marks, title in HEADING.findall(FENCED.sub("", source)):
        if len(marks) <= depth:
            yield Section(len(marks), title, tuple(LABEL.findall(labels)))
