"""检查教学结构：习题齐全、误解有证明、编号存在、赌注合规。"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from companion.book.widgets._questions import problems
from tools.lint_chapter import Chapter, Finding, parse_cell
from tools.notebooks import Notebook
from tools.proven import LAST

__all__ = ["RULES"]

NUMBER = re.compile(r"(?<![A-Za-z0-9])([CT])(\d{3})(?![A-Za-z0-9])")
MYTH = re.compile(r"^:+\{admonition\}\s*(.*)\n(?:^:\w.*\n)*?^:class:.*\bmyth\b", re.MULTILINE)
MYTH_TITLE = re.compile(r"误解 C\d{3}")
SHORT_PROSE = 200
GATE = re.compile(
    r"^(?:`{3,}|:{3,})\{(exercise|exercise-start|exercise-end|solution-start|solution-end|hint)\}"
    r"[ \t]*(\S*)[^\n]*(?:\n:label:\s*(\S+))?",
    re.MULTILINE,
)
CHECK = re.compile(r"\bcheck\(\s*[\"'](ch\d\d)\.(\w+)[\"']")
PARTS = ("hint", "try", "solution-start", "sol", "solution-end")
OPEN_PARTS = ([], ["solution-start", "sol", "solution-end"])  # 开放题没有标准答案，解答可有可无
BET = re.compile(r"\b(bet|quiz)\(\s*[\"'](ch\d\d)\.([\w-]+)[\"']")


def exercises(chapter: Chapter) -> Iterator[Finding]:
    """每道习题有题、提示、作答单元、解答，作答与解答用同一个检查。"""
    events = _events(chapter)
    starts = [i for i, (kind, _, _) in enumerate(events) if kind in ("exercise", "exercise-start")]
    known = set()
    for start, end in pairwise([*starts, len(events)]):
        kind, label, cell = events[start]
        name = label.removeprefix("ex-")
        known.add(name)
        if not label.startswith("ex-"):
            yield Finding(cell.id, f"习题要有 :label: ex-名字，现为 {label!r}")
            continue
        kinds = [kind for kind, owner, _ in events[start:end] if owner in ("", name, label)]
        parts = [part for part in kinds if part in PARTS]
        if kind == "exercise":
            if parts not in OPEN_PARTS:
                wanted = "、".join(OPEN_PARTS[1])
                yield Finding(
                    cell.id, f"开放题 {label} 只能有解答（{wanted}）；现有 {'、'.join(parts)}"
                )
        elif parts != list(PARTS) or "exercise-end" not in kinds:
            wanted = "、".join(("exercise-start", *PARTS, "exercise-end"))
            yield Finding(cell.id, f"习题 {label} 要依次有 {wanted}；现有 {'、'.join(kinds)}")
        else:
            yield from _checks(chapter, name)
    for kind, name, cell in events:
        if kind in ("try", "sol") and name not in known:
            yield Finding(cell.id, f"没有 :label: ex-{name} 的习题与它对应")


def _events(chapter: Chapter) -> list[tuple[str, str, Notebook]]:
    """返回按顺序的 ``(种类, 习题名, 单元)``：门标记和作答、解答单元。"""
    events = []
    for cell in chapter.cells:
        if cell.cell_type == "markdown":
            for kind, argument, label in GATE.findall(cell.source):
                events.append((kind, label or argument, cell))
        elif cell.id.startswith("ex-") and cell.id.endswith("-try"):
            events.append(("try", cell.id[3:-4], cell))
        elif cell.id.startswith("sol-"):
            events.append(("sol", cell.id[4:], cell))
    return events


def _checks(chapter: Chapter, name: str) -> Iterator[Finding]:
    attempt, solution = f"ex-{name}-try", f"sol-{name}"
    sources = {cell.id: cell.source for cell in chapter.code}
    calls = [CHECK.findall(sources[cell_id]) for cell_id in (attempt, solution)]
    if [len(found) for found in calls] != [1, 1] or calls[0] != calls[1]:
        yield Finding(attempt, f'它与 {solution} 应各调用一次同名的 check("{chapter.key}.…", …)')
    elif calls[0][0][0] != chapter.key or calls[0][0][1] not in chapter.checkers:
        where = f"{chapter.key}.py 或 {chapter.key}/"
        yield Finding(attempt, f"没有 {'.'.join(calls[0][0])}：检查函数要写在 {where} 里")
    if "..." not in sources[attempt]:
        yield Finding(attempt, "作答单元要留一个 ... 给读者填")


def myths(chapter: Chapter) -> Iterator[Finding]:
    """误解块写明编号，后面紧跟带 assert 的证明单元。"""
    for index, cell in enumerate(chapter.cells):
        title = MYTH.search(cell.source) if cell.cell_type == "markdown" else None
        if title is None:
            continue
        if not MYTH_TITLE.search(title[1]):
            yield Finding(cell.id, f"误解块的标题应是“误解 C编号 · 一句话”，现为 {title[1]!r}")
        if not _proved(chapter.cells[index + 1 :]):
            yield Finding(cell.id, "误解块后面要紧跟带 assert 的代码单元（中间可隔一个赌注）")


def _proved(following: list[Notebook]) -> bool:
    for cell in following:
        if cell.cell_type == "code" and not cell.id.startswith("bet-"):
            tree = parse_cell(cell.source)
            return tree is not None and any(isinstance(node, ast.Assert) for node in ast.walk(tree))
        if cell.cell_type == "markdown" and (
            len(cell.source) > SHORT_PROSE or MYTH.search(cell.source)
        ):
            return False
    return False


def numbers(chapter: Chapter) -> Iterator[Finding]:
    """写到的 C###、T### 都在清单里。"""
    for cell in chapter.cells:
        named = NUMBER.findall(cell.source) + NUMBER.findall(cell.id.upper())
        for kind, digits in dict.fromkeys(named):
            if not 1 <= int(digits) <= LAST[kind]:
                yield Finding(cell.id, f"没有 {kind}{digits}：编号到 {kind}{LAST[kind]} 为止")


def bets(chapter: Chapter) -> Iterator[Finding]:
    """章里的赌注都有题面，题面都合规，而且都用上了。"""
    file = f"bets/{chapter.key}.toml"
    if chapter.bets_path.exists():
        wrong = [Finding(f"{file}:{name}", text) for name, text in problems(chapter.bets)]
        yield from wrong
        if wrong:  # 题面先写对，再谈用没用到
            return
    quizzes = chapter.bets.get("quizzes", {})
    questions = chapter.bets.keys() - {"quizzes"}
    used = set()
    for cell in chapter.code:
        for kind, key, name in BET.findall(cell.source):
            members = quizzes.get(name) if kind == "quiz" else [name]
            if key != chapter.key or members is None or not questions.issuperset(members):
                yield Finding(cell.id, f"{file} 里没有 {key}.{name}")
            used.update(members or ())
    for name in chapter.bets:
        if name in questions - used:
            yield Finding(f"{file}:{name}", "章里没有用到它；用上或删掉")


RULES = (exercises, myths, numbers, bets)
