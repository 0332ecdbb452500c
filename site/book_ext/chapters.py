"""章号与阅读时间：章号来自文件名，★/☆ 小节标题后面附上估计的分钟数。"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx_exercise.nodes import is_exercise_node, solution_node

HAN = re.compile(r"[\u3400-\u9fff]")
CHAPTER = re.compile(r"chapters/(\d\d)_")
MARKS = {"★": "必读", "☆": "选读"}
HAN_PER_MINUTE, SECONDS_PER_CELL, SECONDS_PER_EXERCISE = 400, 20, 90
HOW = f"估计：每分钟读 {HAN_PER_MINUTE} 字，一个代码单元 {SECONDS_PER_CELL} 秒，"
HOW += f"一道练习 {SECONDS_PER_EXERCISE} 秒"


def chapter_number(docname: str) -> int | None:
    """文件名里的章号，如 ``chapters/01_tensors`` 是 1；不是章节时为 None。"""
    found = CHAPTER.match(docname)
    return int(found[1]) if found else None


def number_by_chapter(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """图、表、公式与练习改按章编号（图 1.2 是第 1 章第 2 张）；返回空表，不要求重读。"""
    for docname, kinds in env.toc_fignumbers.items():
        chapter = chapter_number(docname)
        for kind, numbers in kinds.items():
            if chapter is not None:
                order = sorted(numbers, key=lambda name: numbers[name])
                kinds[kind] = {name: (chapter, i) for i, name in enumerate(order, 1)}
    return []


def reading_nodes(node: nodes.Node) -> Iterator[nodes.Node]:
    """读者要读的节点，深度优先；折叠着的解答不算。"""
    yield node
    for child in node.children:
        if not isinstance(child, solution_node):
            yield from reading_nodes(child)


def minutes(section: nodes.Element) -> int:
    """读完一节（含子节）估计要几分钟，至少 1。"""
    seconds = 0.0
    for node in reading_nodes(section):
        if isinstance(node, nodes.Text) and not isinstance(node.parent, nodes.literal_block):
            seconds += 60 * len(HAN.findall(node.astext())) / HAN_PER_MINUTE
        elif isinstance(node, nodes.Element) and node.get("nb_element") == "cell_code":
            seconds += SECONDS_PER_CELL
        elif is_exercise_node(node):
            seconds += SECONDS_PER_EXERCISE
    return max(1, math.ceil(seconds / 60))


def mark_sections(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """给 ★/☆ 小节写上分钟数，并把各类之和记到页面元数据 ``book_minutes``。"""
    totals = dict.fromkeys(MARKS, 0)
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        mark = title.astext()[:1] if title is not None else ""
        if mark not in MARKS:
            continue
        spent = minutes(section)
        totals[mark] += spent
        section["classes"].append("required" if mark == "★" else "optional")
        badge = f' <span class="book-minutes" title="{HOW}">约 {spent} 分钟</span>'
        title.append(nodes.raw("", badge, format="html"))
    app.env.metadata[docname]["book_minutes"] = totals


def setup(app: Sphinx) -> None:
    app.connect("env-get-updated", number_by_chapter, priority=900)
    app.connect("doctree-resolved", mark_sections)
