"""一章的样式：好章一处不报；每种坏法都要被指出来。"""

from __future__ import annotations

import pytest
from nbformat.v4 import new_output

from tools import lint_form
from tools.lint_chapter import Chapter
from tools.lint_form import RULES, hints, unused_references
from tools.nb_lint import main

DERIVATION = """(sec-a)=
## ★ 甲

:::{admonition} 定义与推导
:class: math-def
一句话。

$$s=\\sum_i t_i$$

代码里是 `t.sum( 0 )`。
:::
"""
EXERCISE = ":::{{exercise-start}} {kind} · 5 分钟\n:label: ex-{name}\n:class: m5\n:::\n做。\n"
ENDING = "## 小结\n\n" + "- 一条\n" * 5 + "\n## 延伸阅读\n\n见 {cite}`someone2020`。"


def question(name, right, naive, texts=("甲", "乙", "丙")):
    """一道选择题的 TOML；``right``、``naive`` 是第几项。"""
    lines = [f'[{name}]\nquestion = "？"']
    for i, text in enumerate(texts):
        lines += [f'[[{name}.options]]\ntext = "{text}"\nreason = "因为。"']
        lines += ["correct = true"] if i == right else []
        lines += ["naive = true"] if i == naive else []
    return "\n".join(lines) + "\n"


GOOD = [(0, 0), (1, 1), (2, 0), (0, 1), (1, 2), (2, 2)]  # 六题：各处两次，三次朴素对
BETS = "".join(question(f"q{i}", *pair) for i, pair in enumerate(GOOD))


@pytest.fixture
def good(book, cell, text):
    """样式合规的一章：按 id 存放的单元，可以逐个弄坏。"""
    book.write("src/companion/book/bets/ch02.toml", BETS)
    kinds = zip(("a", "b", "c", "d", "e"), lint_form.KINDS, strict=True)
    exercises = "\n".join(EXERCISE.format(kind=kind, name=name) for name, kind in kinds)
    cells = [
        text("title", "# 章"),
        cell("imports", "import torch\nfrom companion.plot import use_chinese_font\n"),
        text("sec-a", DERIVATION),
        cell("bet-a", 'bet("ch02.q0")', "remove-input"),
        cell("shown", "t = torch.ones(3)\nprint(t.sum(0))"),
        cell("define", "def f(x):\n    return x\n\nx = f(1)\nuse_chinese_font()"),
        text("after", "和是 3。1797 张里没有它，2019 年也没有。"),
        text("ending", ENDING),
        text("sec-b", "## ☆ 乙\n\n参看{myth}`C001`、{myth}`C002`。"),
        text("exercises", exercises),
    ]
    made = {one.id: one for one in cells}
    made["shown"].outputs = [new_output("stream", name="stdout", text="tensor(3.) 1797\n")]
    return made


def findings(book, cells):
    path = book.chapter("02_new", *cells.values())
    chapter = Chapter(path, book.root)
    return [(found.cell_id, found.message) for rule in RULES for found in rule(chapter)]


def test_a_good_chapter_has_no_findings_and_no_hints(book, good):
    assert findings(book, good) == []
    assert list(hints(Chapter(book.root / "chapters" / "02_new.ipynb", book.root))) == []


@pytest.mark.parametrize(
    ("cell_id", "source", "where", "message"),
    [
        # 1 ★ 在前
        ("ending", ENDING + "\n\n## ☆ 先\n\n## ★ 后", "ending", None),
        ("sec-b", "## ☆ 乙\n\n## ★ 丙", "sec-b", "★ 小节要挨着排在 ☆ 前面"),
        # 4 ★ 的长短
        ("after", "字" * 300 * 45, "（全章）", "★ 应不超过 45 分钟，现要 47 分钟"),
        # 5 一节一道先猜，两个误解
        ("shown", 'bet("ch02.q0")', "sec-a", "一节最多 1 处先猜，现有 2 处"),
        ("sec-b", "## ☆ 乙\n" + "{myth}`C001`" * 3, "sec-b", "一节最多 2 处误解，现有 3 处"),
        # 7 每格都有看头
        ("define", "t = torch.ones(3)\nassert t.sum() == 3", "define", "什么也没显示"),
        ("define", "for i in range(3):\n    t = i", "define", "什么也没显示"),
        ("define", "t.backward()", "define", "什么也没显示"),
        # 8 公式
        ("after", "于是 $$x=1$$", "after", "独占一行的公式要写在“定义与推导”块里"),
        ("sec-a", DERIVATION.replace(":class: math-def\n", ""), "sec-a", "要写在“定义与推导”"),
        ("sec-a", DERIVATION.replace("t.sum( 0 )", "t.mean(0)"), "sec-a", "一字不差"),
        ("sec-a", DERIVATION.replace("$$s", "$$a$$\n" * 4 + "$$s"), "sec-a", "现有 5"),
        ("sec-a", DERIVATION.replace("$$s=\\sum_i t_i$$", "$s$"), "sec-a", "现有 0"),
        # 10 结尾
        ("ending", ENDING.replace("- 一条\n", "", 1), "（全章）", "5 到 8 条，现有 4 条"),
        ("ending", ENDING.replace("- 一条\n", "- 一条\n" * 2), "（全章）", "5 到 8 条，现有 10 条"),
        ("ending", ENDING.replace("## 小结", "## 总结"), "（全章）", "5 到 8 条，现有 0 条"),
        ("ending", ENDING.replace("{cite}", ""), "（全章）", "延伸阅读里至少引一篇"),
    ],
)
def test_a_bad_cell_is_named(book, good, cell_id, source, where, message):
    good[cell_id].source = source
    found = findings(book, good)
    if message is None:
        assert any("★ 小节" in text for _, text in found)
    else:
        assert any(place == where and message in text for place, text in found), found


def test_too_many_cells_in_the_trunk_are_counted_without_questions(book, good, cell):
    for i in range(37):
        good = {"title": good.pop("title"), **good}
        good[f"more-{i}"] = cell(f"more-{i}", f"x{i} = 1")
    trunk_first = {k: v for k, v in good.items() if k not in ("ending", "sec-b", "exercises")}
    rest = {k: good[k] for k in ("ending", "sec-b", "exercises")}
    assert findings(book, trunk_first | rest) == []
    for i in range(37, 40):
        trunk_first[f"more-{i}"] = cell(f"more-{i}", f"x{i} = 1")
    (found,) = findings(book, trunk_first | rest)
    assert found == ("（全章）", "★ 的代码应不超过 40 格，现有 42 格")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("", "习题要写种类"),
        ("谜题", "习题要写种类"),
        ("形状", "还缺这几种习题：搭建"),
    ],
)
def test_an_exercise_says_its_kind_and_all_kinds_occur(book, good, kind, message):
    good["exercises"].source = good["exercises"].source.replace("搭建", kind)
    assert any(message in text for _, text in findings(book, good))


def test_an_exercise_without_minutes_is_named_and_the_kind_may_stand_in_the_text(book, good):
    good["exercises"].source = (
        good["exercises"]
        .source.replace(" 笔算 · 5 分钟", "")
        .replace(
            ":label: ex-b\n:class: m5\n:::\n", ":label: ex-b\n:class: m5\n:::\n*笔算 · 5 分钟*\n\n"
        )
    )
    assert findings(book, good) == []
    good["exercises"].source = good["exercises"].source.replace(":class: m5\n", "", 1)
    assert [place for place, _ in findings(book, good)] == ["exercises"]


@pytest.mark.parametrize(
    ("pairs", "texts", "message"),
    [
        (
            [(0, 0), (0, 1), (0, 0), (1, 0), (2, 0), (1, 1)],
            None,
            "A 对的次数应不超过 45%，现为 3/6",
        ),
        ([(0, 0), (1, 1), (0, 1), (1, 0), (0, 1), (1, 0)], None, "C 一次也没有"),
        ([(0, 1), (1, 2), (2, 0), (0, 1), (1, 0), (2, 2)], None, "是对的，现为 1/6"),
        ([(0, 0), (1, 1), (2, 2), (0, 0), (1, 0), (2, 0)], None, "是对的，现为 4/6"),
        (GOOD, "长", "最长的选项对的次数应不超过 60%，现为 6/6"),
        (GOOD, "短", "最短的选项对的次数应不超过 60%，现为 6/6"),
    ],
)
def test_a_set_of_questions_that_gives_itself_away_is_named(book, good, pairs, texts, message):
    width = {None: (2, 2), "长": (4, 2), "短": (1, 2)}[texts]
    tables = []
    for i, (right, naive) in enumerate(pairs):
        options = ["甲乙丙"[j] * width[j != right] for j in range(3)]
        tables.append(question(f"q{i}", right, naive, options))
    book.write("src/companion/book/bets/ch02.toml", "".join(tables))
    found = findings(book, good)
    assert any(message in text for _, text in found), found
    book.write("src/companion/book/bets/ch02.toml", "".join(tables[:5]))
    assert findings(book, good) == []  # 题少，不谈比例


@pytest.mark.parametrize("naive", [9, 0])
def test_every_question_names_exactly_one_naive_option(book, good, naive):
    text = question("extra", 1, naive)
    text += "naive = true\n" if naive == 0 else ""  # 接在最后一项后面：两个
    book.write("src/companion/book/bets/ch02.toml", text)
    count = 2 if naive == 0 else 0
    message = f"应恰好有一个选项写 naive = true，现有 {count} 个"
    assert findings(book, good) == [("bets/ch02.toml:extra", message)]


def test_numbers_in_prose_that_nothing_printed_are_hints_and_years_are_not(book, good):
    good["after"].source = "一共 1796 张，95% 对了，2019 年，3 个，1797 张。"
    good["sec-a"].source += "\n前面还没有代码，42 不管。\n\n$$x$$\n"
    path = book.chapter("02_new", *good.values())
    found = [(hint.cell_id, hint.message.split()[0]) for hint in hints(Chapter(path, book.root))]
    assert found == [("after", "1796"), ("after", "95%")]


def test_a_page_without_a_number_is_left_alone(book, good):
    good["define"].source = "assert 1"
    for name, left_alone in (("A1_clinic", True), ("01_tensors", False)):
        path = book.chapter(name, *good.values())
        found = [f for rule in RULES for f in rule(Chapter(path, book.root))]
        assert (found == []) == left_alone


def test_a_reference_nobody_cites_is_named_and_fails_the_check(book, good, capsys):
    book.write("references.bib", "@book{someone2020,\n}\n@article{other2021,\n}\n")
    book.chapter("02_new", *good.values())
    assert unused_references(book.root) == ["other2021"]
    book.write("glossary.md", "见 {cite:p}`other2021, someone2020`。")
    assert unused_references(book.root) == []
    book.write("glossary.md", "")
    book.write("_config.yml", "html: {baseurl: https://example.org/book/}\n")
    book.write("pyproject.toml", '[project]\nname = "paodetong"\nversion = "0.1.0"\n')
    assert main([], book.root) == 1
    assert "references.bib：没有一处引用 other2021" in capsys.readouterr().out
