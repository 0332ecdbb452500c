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
    """按不深于 ``depth`` 级的标题切开；第一个标题之前的不算。

    一个正文单元里有标题时，标题前后各成一个单元，id 相同。
    """
    found: list[Section] = []
    for cell in cells:
        if cell.cell_type == "markdown":
            for section, part in _parts(cell, depth):
                found += [section] if section else []
                if found:
                    found[-1].cells.append(part)
        elif found:
            found[-1].cells.append(cell)
    return found


def _parts(cell: Notebook, depth: int) -> Iterator[tuple[Section | None, Notebook]]:
    """一个正文单元按标题切成的几段；开头不是标题的那一段没有 Section。"""
    visible = FENCED.sub(lambda block: " " * len(block[0]), cell.source)  # 围栏里的 # 不是标题
    headings = [m for m in HEADING.finditer(visible) if len(m[2]) <= depth]
    if not headings or visible[: headings[0].start()].strip():
        yield None, _part(cell, 0, headings[0].start() if headings else len(cell.source))
    for i, match in enumerate(headings):
        end = headings[i + 1].start() if i + 1 < len(headings) else len(cell.source)
        section = Section(len(match[2]), match[3], tuple(LABEL.findall(match[1])))
        yield section, _part(cell, match.start(), end)


def _part(cell: Notebook, start: int, end: int) -> Notebook:
    part = cell.copy()
    part["source"] = cell.source[start:end]
    return part
