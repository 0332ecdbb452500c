"""行文的几处修整：源文件里的换行不变成空格，指到小节的链接不带 ★/☆，短的代码不折行。"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx

CJK = r"\u3400-\u9fff"
POINT = r"，。；：、？！“”‘’（）《》「」…—·①-⑳"
BREAK = re.compile(rf"(?<=[{CJK}{POINT}])\n(?=[{CJK}{POINT}])|(?<=[{POINT}])\n|\n(?=[{POINT}])")

SHORT = 24  # 正文里这么长的代码，不在中间折行：``(n, 4, 3)`` 断成两行就不好读了


def is_needless(before: str, after: str) -> bool:
    """两段文字之间的换行该不该去掉：汉字与中文标点旁边的去掉，中西文之间的留作空格。"""
    return BREAK.search(f"{before[-1:]}\n{after[:1]}") is not None


def tidy(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for text in list(doctree.findall(nodes.Text)):
        parent = text.parent
        if "\n" not in text or isinstance(parent, nodes.FixedTextElement):
            continue
        if text.astext() != "\n":  # docstring 是 RST，一段是一个文字节点
            parent.replace(text, nodes.Text(BREAK.sub("", text.astext())))
            continue  # MyST 把源文件里的一个换行写成一个单独的文字节点
        place = parent.index(text)
        before, after = parent.children[:place], parent.children[place + 1 :]
        if before and after and is_needless(before[-1].astext(), after[0].astext()):
            parent.remove(text)
    for link in doctree.findall(nodes.reference):
        first = link.next_node(nodes.Text)
        if first is not None and first.astext().startswith(("★ ", "☆ ")):
            first.parent.replace(first, nodes.Text(first.astext()[2:]))


def mark(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """短的代码加上 ``short``；练习和解答里那一块不叫 sphinx-exercise 起的同一个名字。"""
    for code in doctree.findall(nodes.literal):
        if len(code.astext()) <= SHORT:
            code["classes"].append("short")
    for section in doctree.findall(nodes.section):
        if section["ids"] in (["exercise-content"], ["solution-content"]):
            section["ids"] = []


def setup(app: Sphinx) -> None:
    app.connect("doctree-resolved", tidy, priority=550)
    app.connect("doctree-resolved", mark)
