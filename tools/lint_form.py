"""检查一章的样式：★ 在前且不长，先猜不泄底，每格都有看头，公式挨着代码，习题分种类。"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tools.lint_cells import stored_texts
from tools.lint_chapter import Chapter, Finding, parse_cell, prose_lines
from tools.minutes import BET, EXERCISE, chapter_minutes, counted_code, is_question
from tools.notebooks import ROOT, Notebook, chapter_paths, read_notebook, tags
from tools.outline import Section, outline

__all__ = ["RULES", "hints", "unused_references"]

TRUNK_CELLS, TRUNK_MINUTES = 40, 45
SECTION_BETS, SECTION_MYTHS, SECTION_FORMULAS = 1, 2, 4
FEW = 6  # 题目少于这么多，就不谈比例
LETTER_SHARE, NAIVE_SHARE, EDGE_SHARE = 0.45, (0.25, 0.5), 0.6
SUMMARY_LINES = range(5, 9)
KINDS = ("形状", "笔算", "代码", "搭建", "开放")
KIND = re.compile("|".join(KINDS))
QUIET = {"use_chinese_font", "seed_everything", "manual_seed"}
MYTH = re.compile(r"\{myth\}`")
CITE = re.compile(r"\{cite(?:[:\w]*)\}`([^`]+)`")
DERIVATION = re.compile(
    r"^(:{3,})\{admonition\} 定义与推导\n:class:[^\n]*\bmath-def\b.*?^\1[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
FORMULA = re.compile(r"\$\$.+?\$\$", re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*\d(?:\.\d+)?%?")
YEAR = re.compile(r"(?:19|20)\d\d")


def applies(chapter: Chapter) -> bool:
    """只管编了号的章。"""
    return chapter.path.stem[:2].isdigit()


def trunk(chapter: Chapter) -> Iterator[Finding]:
    """★ 挨着排在前面，☆ 在后；★ 的格数和分钟数有限。"""
    timed = [(s, m) for s, m in chapter_minutes(chapter.path, chapter.root) if s.mark]
    for (before, _), (after, _) in pairwise(timed):
        if before.mark == "☆" and after.mark == "★":
            yield Finding(after.cells[0].id, "★ 小节要挨着排在 ☆ 前面")
    trunk = [(section, spent) for section, spent in timed if section.mark == "★"]
    cells = sum(len(counted_code(section)) for section, _ in trunk)
    minutes = sum(spent.read + spent.practise for _, spent in trunk)
    if cells > TRUNK_CELLS:
        yield Finding("（全章）", f"★ 的代码应不超过 {TRUNK_CELLS} 格，现有 {cells} 格")
    if minutes > TRUNK_MINUTES:
        yield Finding("（全章）", f"★ 应不超过 {TRUNK_MINUTES} 分钟，现要 {minutes:.0f} 分钟")


def rhythm(chapter: Chapter) -> Iterator[Finding]:
    """一节最多一道先猜、两个误解。"""
    for section in outline(chapter.cells):
        text = "\n".join(cell.source for cell in section.prose)
        code = "\n".join(cell.source for cell in section.code)
        bets = sum(kind == "bet" for kind, _ in BET.findall(code))
        found = [("先猜", bets, SECTION_BETS), ("误解", len(MYTH.findall(text)), SECTION_MYTHS)]
        for what, count, most in found:
            if count > most:
                yield Finding(section.cells[0].id, f"一节最多 {most} 处{what}，现有 {count} 处")


def bets(chapter: Chapter) -> Iterator[Finding]:
    """选择题：答案的位置分散，朴素的答案有时对，长短看不出来。"""
    file = f"bets/{chapter.key}.toml"
    asked = {
        name: table["options"]
        for name, table in chapter.bets.items()
        if isinstance(table, dict) and isinstance(table.get("options"), list)
    }
    for name, options in asked.items():
        if (count := sum(option.get("naive", False) for option in options)) != 1:
            yield Finding(f"{file}:{name}", f"应恰好有一个选项写 naive = true，现有 {count} 个")
    if len(asked) >= FEW:
        yield from (Finding(file, text) for text in _shares(list(asked.values())))


def _shares(questions: list[list[dict[str, Any]]]) -> Iterator[str]:
    places, naive, longest, shortest = Counter[int](), 0, 0, 0
    for options in questions:
        right = next(i for i, option in enumerate(options) if option.get("correct"))
        widths = [len(option["text"].replace("`", "")) for option in options]
        others = widths[:right] + widths[right + 1 :]
        places[right] += 1
        naive += options[right].get("naive", False)
        longest += widths[right] > max(others)
        shortest += widths[right] < min(others)
    total = len(questions)
    for place, count in places.items():
        if count > LETTER_SHARE * total:
            yield f"{'ABCDEF'[place]} 对的次数应不超过 {LETTER_SHARE:.0%}，现为 {count}/{total}"
    if unused := set(range(min(map(len, questions)))) - places.keys():
        yield f"每个位置都要对过，{'、'.join('ABCDEF'[i] for i in sorted(unused))} 一次也没有"
    low, high = NAIVE_SHARE
    if not low * total <= naive <= high * total:
        yield f"朴素的答案应在 {low:.0%} 到 {high:.0%} 的题里是对的，现为 {naive}/{total}"
    for word, count in (("长", longest), ("短", shortest)):
        if count > EDGE_SHARE * total:
            yield f"最{word}的选项对的次数应不超过 {EDGE_SHARE:.0%}，现为 {count}/{total}"


def silent(chapter: Chapter) -> Iterator[Finding]:
    """每格都显示点什么；只导入、定义、摆数据的除外，有 assert 的不除外。"""
    for cell in chapter.code:
        shows = cell.id.startswith("fig-") or is_question(cell) or cell.outputs
        if shows or "nbval-ignore-output" in tags(cell) or cell.id == "setup":
            continue
        tree = parse_cell(cell.source)
        if tree is None or not all(map(_prepares, tree.body)):
            yield Finding(cell.id, "这一格什么也没显示：把它证明的事印出来")


def _prepares(node: ast.stmt) -> bool:
    """一句是不是只在准备：导入、定义、赋值、设字体或种子。"""
    if isinstance(node, ast.Expr):
        if not isinstance(node.value, ast.Call):
            return isinstance(node.value, ast.Constant)
        called = node.value.func
        return getattr(called, "attr", getattr(called, "id", "")) in QUIET
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return isinstance(node, (*kinds, ast.Pass))


def formulas(chapter: Chapter) -> Iterator[Finding]:
    """独占一行的公式都在“定义与推导”里，旁边有一段本节代码里的原文。"""
    for section in outline(chapter.cells):
        code = _squeezed("\n".join(cell.source for cell in section.code))
        for cell in section.prose:
            blocks = [match[0] for match in DERIVATION.finditer(cell.source)]
            if FORMULA.search(DERIVATION.sub("", cell.source)):
                yield Finding(cell.id, "独占一行的公式要写在“定义与推导”块里（:class: math-def）")
            for block in blocks:
                count = len(FORMULA.findall(block))
                if not 1 <= count <= SECTION_FORMULAS:
                    yield Finding(cell.id, f"一块应有 1 到 {SECTION_FORMULAS} 个公式，现有 {count}")
            if blocks and not any(_squeezed(s) in code for s in SPAN.findall(cell.source)):
                yield Finding(cell.id, "公式旁边要有一段代码，在本节的代码单元里一字不差")


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def ending(chapter: Chapter) -> Iterator[Finding]:
    """小结 5 到 8 条；延伸阅读至少引一篇。"""
    found = [section for section in outline(chapter.cells) if section.title == "小结"]
    lines = re.findall(r"^[-*] ", _text(found[0]), re.MULTILINE) if found else []
    if len(lines) not in SUMMARY_LINES:
        yield Finding("（全章）", f"要有一节小结，5 到 8 条，现有 {len(lines)} 条")
    if not any(CITE.search(cell.source) for cell in chapter.prose):
        yield Finding("（全章）", "延伸阅读里至少引一篇：{cite}`键`")


def _text(section: Section) -> str:
    return "\n".join(cell.source for cell in section.prose)


def kinds(chapter: Chapter) -> Iterator[Finding]:
    """习题写明种类和分钟数；五种都有。"""
    seen = set()
    for cell in chapter.prose:
        for part in re.split(r"(?=\{exercise(?:-start)?\})", cell.source)[1:]:
            kind = KIND.search(part[:200])
            if kind:
                seen.add(kind[0])
            if not kind or not EXERCISE.match(part):
                yield Finding(cell.id, f"习题要写种类（{'、'.join(KINDS)}）和分钟数（:class: m5）")
    if missing := [kind for kind in KINDS if kind not in seen]:
        yield Finding("（全章）", f"还缺这几种习题：{'、'.join(missing)}")


def hints(chapter: Chapter) -> Iterator[Finding]:
    """只作提示：一节里的公式不止一块；正文里的数，在这一节前面的代码和输出里没有。"""
    if not applies(chapter):
        return
    for section in outline(chapter.cells):
        if (count := len(DERIVATION.findall(_text(section)))) > 1:
            yield Finding(section.cells[0].id, f"一节一块“定义与推导”就够，现有 {count} 块")
        said = ""
        for cell in section.cells:
            if cell.cell_type == "code":
                said += "\n".join([cell.source, *stored_texts(cell)])
                continue
            text = " ".join(prose_lines(cell.source)) if said else ""
            for number in dict.fromkeys(NUMBER.findall(text)):
                if not YEAR.fullmatch(number) and number.rstrip("%") not in said:
                    yield Finding(cell.id, f"{number} 不在这一节前面的代码和输出里")


def unused_references(root: Path = ROOT) -> list[str]:
    """返回 ``references.bib`` 里没有一处引用的键。"""
    path = root / "references.bib"
    entries = path.read_text(encoding="utf-8") if path.exists() else ""
    keys = re.findall(r"^@\w+\{([^,\s]+)", entries, re.MULTILINE)
    cells: list[Notebook] = [c for p in chapter_paths(root) for c in read_notebook(p).cells]
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    texts += [page.read_text(encoding="utf-8") for page in root.glob("*.md")]
    used = {
        key.strip() for text in texts for found in CITE.findall(text) for key in found.split(",")
    }
    return [key for key in keys if key not in used]


def _when_it_applies(rule: Any) -> Any:
    def checked(chapter: Chapter) -> Iterator[Finding]:
        if applies(chapter):
            yield from rule(chapter)

    return checked


RULES = tuple(map(_when_it_applies, (trunk, rhythm, bets, silent, formulas, ending, kinds)))
