"""章号与时间：章号来自文件名，``{chapter}`4` `` 链到那一章；★/☆ 小节标题后面附上读和练的分钟数，
算法在 ``tools/minutes.py``。
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxRole

from .tooling import tool

CHAPTER = re.compile(r"chapters/(\d\d)_")
MARKS = {"★": "必读", "☆": "选读"}
Spent = tuple[float, float, int]  # 读几分钟、练几分钟、正文里几格代码


def chapter_number(docname: str) -> int | None:
    """文件名里的章号，如 ``chapters/01_tensors`` 是 1；不是章节时为 None。"""
    found = CHAPTER.match(docname)
    return int(found[1]) if found else None


class ChapterRole(SphinxRole):
    """``{chapter}`4` ``：“第 4 章”，链到它；目录里还没有的，写明还没写。"""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        self.env.note_dependency(str(Path(self.env.srcdir, "_toc.yml")))
        found = [name for name in self.env.found_docs if chapter_number(name) == int(self.text)]
        words = nodes.inline("", tool("reader_words").chapter_words(self.text, bool(found)))
        if not found:
            return [words], []
        goal = {"reftype": "doc", "reftarget": f"/{found[0]}", "refexplicit": True}
        link = pending_xref("", words, refdomain="std", refdoc=self.env.docname, **goal)
        return [link], []


def is_notebook(app: Sphinx, docname: str) -> bool:
    """这一页是不是从笔记本来的：章节和诊所是，能下载。"""
    return Path(app.env.doc2path(docname)).suffix == ".ipynb"


def number_by_chapter(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """图、表、公式与练习改按章编号（图 1.2 是第 1 章第 2 张）；返回空表，不要求重读。"""
    for docname, kinds in env.toc_fignumbers.items():
        chapter = chapter_number(docname)
        for kind, numbers in kinds.items():
            if chapter is not None:
                order = sorted(numbers, key=lambda name: numbers[name])
                kinds[kind] = {name: (chapter, i) for i, name in enumerate(order, 1)}
    return []


def spent_text(spent: Spent, template: str = "{}") -> str:
    """``读 29 · 练 14 分钟``；没有练习就不写练。``template`` 是数的写法。"""
    read, practise = max(1, math.ceil(spent[0])), math.ceil(spent[1])
    parts = [f"读 {template.format(read)}"]
    parts += [f"练 {template.format(practise)}"] if practise else []
    return f"{' · '.join(parts)} 分钟"


def section_times(app: Sphinx, docname: str) -> list[tuple[str, Spent]]:
    """源文件里各个 ★/☆ 小节的标题记号和要花的时间，按先后；不是章节的笔记本就是空表。"""
    if chapter_number(docname) is None or not is_notebook(app, docname):
        return []
    minutes = tool("minutes")
    timed = minutes.chapter_minutes(Path(app.env.doc2path(docname)), Path(app.srcdir))
    return [
        (section.mark, (*spent, len(minutes.counted_code(section))))
        for section, spent in timed
        if section.mark
    ]


def mark_sections(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """给 ★/☆ 小节写上分钟数，并把各类之和记到页面元数据 ``book_minutes``。"""
    times = section_times(app, docname)
    totals: dict[str, Spent] = {}
    for mark, (read, practise, cells) in times:
        before = totals.get(mark, (0, 0, 0))
        totals[mark] = (before[0] + read, before[1] + practise, before[2] + cells)
    waiting = iter(times)
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        mark = title.astext()[:1] if title is not None else ""
        if mark not in MARKS:
            continue
        section["classes"].append("required" if mark == "★" else "optional")
        found = next(waiting, None)
        if found is None:
            continue
        text = spent_text(found[1])
        badge = f' <span class="book-minutes" title="{tool("minutes").HOW}">{text}</span>'
        title.append(nodes.raw("", badge, format="html"))
    app.env.metadata[docname]["book_minutes"] = totals


def setup(app: Sphinx) -> None:
    app.add_role("chapter", ChapterRole())
    app.connect("env-get-updated", number_by_chapter, priority=900)
    app.connect("doctree-resolved", mark_sections)
