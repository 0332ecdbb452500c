"""小节怎么切：标题、标签、记号；一个单元里有两个标题也切得开。"""

from __future__ import annotations

from tools.outline import outline

FENCE = "```python\n# 不是标题\n## 也不是\n```"


def test_sections_carry_mark_labels_and_cells(text, cell):
    cells = [
        text("title", "(ch-a)=\n# 章"),
        text("a", f"前言。\n\n(sec-a)=\n(old-a)=\n## ★ 甲\n\n### 小\n\n{FENCE}"),
        cell("code", "x = 1"),
        text("b", "## ☆ 乙\n\n## 小结\n\n- 一条"),
        cell("blank", "  "),
    ]
    first, a, b, end = outline(cells)
    assert (first.level, first.label, first.mark) == (1, "ch-a", "")
    assert [one.source.strip() for one in first.prose] == ["(ch-a)=\n# 章", "前言。"]
    assert (a.title, a.mark, a.labels) == ("★ 甲", "★", ("sec-a", "old-a"))
    assert "不是标题" in a.prose[0].source and [one.id for one in a.code] == ["code"]
    assert (b.mark, b.label, [one.id for one in b.cells]) == ("☆", "", ["b"])
    assert (end.title, end.mark, end.code) == ("小结", "", [])


def test_depth_says_which_headings_cut(text):
    cells = [text("a", "## 甲\n\n(x)=\n### 「`a` 给 b」\n\n文"), text("b", "#### 小")]
    assert [section.title for section in outline(cells)] == ["甲"]
    deep = outline(cells, 3)
    assert [section.title for section in deep] == ["甲", "「`a` 给 b」"]
    assert deep[1].label == "x" and [one.id for one in deep[1].cells] == ["a", "b"]


def test_cells_before_the_first_heading_belong_nowhere(text, cell):
    assert outline([text("a", "没有标题"), cell("b", "x")]) == []
