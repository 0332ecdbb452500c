"""读一节要几分钟：读的和练的分开算，网页上的分钟数和检查用的是同一个算法。"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.lint_chapter import FENCED, Chapter, prose_lines
from tools.notebooks import ROOT, Notebook, tags
from tools.outline import Section, outline

__all__ = ["BET", "EXERCISE", "HOW", "Minutes", "chapter_minutes", "counted_code", "is_question"]

HAN = re.compile(r"[\u3400-\u9fff]")
BET = re.compile(r"\b(bet|quiz)\(\s*[\"']ch\d\d\.([\w-]+)[\"']")
FORMULA = re.compile(r"\$\$.+?\$\$", re.DOTALL)
EXERCISE = re.compile(r"\{exercise(?:-start)?\}[^\n]*\n(?::\w+:[^\n]*\n)*?:class:[^\n]*\bm(\d+)\b")
ANY_EXERCISE = re.compile(r"\{exercise(?:-start)?\}")
ONE_SOLUTION = re.compile(r"^(:{3,}|`{3,})\{solution\}.*?^\1[ \t]*$", re.DOTALL | re.MULTILINE)
HIDDEN = {"hide-input", "remove-input", "hide-cell", "remove-cell"}
HAN_PER_MINUTE, LINE_S, CELL_S, BET_S, FORMULA_S, EXERCISE_MINUTES = 300, 4, 10, 30, 30, 5
HOW = f"估计：每分钟读 {HAN_PER_MINUTE} 字，一行代码 {LINE_S} 秒，看一格的输出 {CELL_S} 秒，"
HOW += f"一道先猜、一个公式各 {BET_S} 秒；练习的分钟数写在题上"


class Minutes(NamedTuple):
    """一节要读几分钟、练几分钟。"""

    read: float
    practise: float


def chapter_minutes(path: Path, root: Path = ROOT) -> list[tuple[Section, Minutes]]:
    """返回一章的二级小节和各要几分钟，按先后。"""
    chapter = Chapter(path, root)
    quizzes = chapter.bets.get("quizzes", {})
    sections = outline(chapter.cells)
    return [(section, _minutes(section, quizzes)) for section in sections if section.level == 2]


def is_question(cell: Notebook) -> bool:
    """单元是不是先猜、小测、作答或解答：不是正文里的代码。"""
    return cell.id.startswith(("ex-", "sol-")) or BET.search(cell.source) is not None


def counted_code(section: Section) -> list[Notebook]:
    """返回一节里正文的代码单元。"""
    return [cell for cell in section.code if not is_question(cell)]


def _minutes(section: Section, quizzes: dict[str, list[str]]) -> Minutes:
    seconds, practise = 0.0, 0.0
    for text in _read(section.cells):
        plain = "\n".join(prose_lines(text))
        seconds += 60 * len(HAN.findall(plain)) / HAN_PER_MINUTE
        seconds += FORMULA_S * len(FORMULA.findall(FENCED.sub("", text)))
        declared = [int(minutes) for minutes in EXERCISE.findall(text)]
        undeclared = len(ANY_EXERCISE.findall(text)) - len(declared)
        practise += sum(declared) + EXERCISE_MINUTES * undeclared
    for cell in section.code:
        for kind, name in BET.findall(cell.source):
            seconds += BET_S * (len(quizzes.get(name, ())) if kind == "quiz" else 1)
    for cell in counted_code(section):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        seconds += CELL_S + (0 if HIDDEN & tags(cell) else LINE_S * len(lines))
    return Minutes(seconds / 60, practise)


def _read(cells: list[Notebook]) -> Iterator[str]:
    """依次给出读者要读的正文；折叠着的解答不算。"""
    folded = False
    for cell in cells:
        if cell.cell_type != "markdown":
            continue
        kept = []
        for line in ONE_SOLUTION.sub("", cell.source).splitlines():
            folded = folded or "{solution-start}" in line
            if not folded:
                kept.append(line)
            folded = folded and "{solution-end}" not in line
        yield "\n".join(kept)
