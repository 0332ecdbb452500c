"""读和练的分钟数：每一样各按规定的秒数，折叠着的解答不算。"""

from __future__ import annotations

import pytest

from tools.minutes import chapter_minutes, counted_code

HAN = "字" * 300
EXERCISE = ":::{exercise-start} 代码\n:label: ex-a\n:class: m7\n:::\n"
BETS = '[one]\nquestion = "？"\n[quizzes]\nthree = ["one", "one", "one"]\n'


@pytest.fixture
def minutes(book, text):
    """``minutes(单元…)``：只有一节的一章，这一节读几秒、练几分。"""

    def measured(*cells):
        book.write("src/companion/book/bets/ch01.toml", BETS)
        path = book.chapter("01_x", text("title", "# 章\n\n" + HAN), text("sec", "## ★ 一"), *cells)
        ((_, spent),) = chapter_minutes(path, book.root)
        return round(60 * spent.read), spent.practise

    return measured


def test_the_title_alone_takes_no_time(minutes):
    assert minutes() == (0, 0)


@pytest.mark.parametrize(
    ("source", "seconds"),
    [
        (HAN, 60),
        (f"`{HAN}` 与 $x$", 0),
        (f"```python\n# {HAN}\n$$x$$\n```", 0),
        ("$$x$$\n\n$$\na \\\\\nb\n$$", 60),
        (f":::{{hint}}\n:class: dropdown\n{HAN}\n:::", 60),
        (f":::{{solution-start}} ex-a\n:::\n{HAN}\n\n:::{{solution-end}}\n:::\n{HAN}", 60),
        (f":::{{solution}} ex-a\n{HAN}\n:::\n{HAN}", 60),
    ],
)
def test_prose_is_read_at_300_characters_a_minute_and_a_formula_takes_30_seconds(
    minutes, text, source, seconds
):
    assert minutes(text("prose", source)) == (seconds, 0)


def test_a_solution_over_several_cells_is_folded_away(minutes, text, cell):
    start = text("solution", ":::{solution-start} ex-a\n:::")
    folded = [start, text("why", HAN), cell("sol-a", "x = 1\n" * 9)]
    assert minutes(*folded, text("end", ":::{solution-end}\n:::\n"), text("more", HAN)) == (60, 0)


@pytest.mark.parametrize(
    ("name", "source", "tags", "seconds"),
    [
        ("code", "a = 1\n\nb = 2", (), 18),
        ("code", "a = 1\n\nb = 2", ("hide-input",), 10),
        ("bet-one", 'bet("ch01.one")', ("remove-input",), 30),
        ("quiz", 'quiz("ch01.three", "after")', ("remove-input",), 90),
        ("ex-a-try", "a = ...\nb = ...", (), 0),
        ("sol-a", "a = 1\nb = 2", (), 0),
    ],
)
def test_code_takes_4_seconds_a_line_and_10_a_cell_and_a_bet_30(
    minutes, cell, name, source, tags, seconds
):
    assert minutes(cell(name, source, *tags)) == (seconds, 0)


def test_an_exercise_takes_the_minutes_it_declares_or_five(minutes, text):
    assert minutes(text("ex", EXERCISE))[1] == 7
    assert minutes(text("ex", EXERCISE.replace(":class: m7\n", "")))[1] == 5
    assert minutes(text("ex", EXERCISE + EXERCISE))[1] == 14
    assert minutes(text("ex", ":::{exercise} 开放\n:class: m15 open\n:::"))[1] == 15


def test_each_section_is_measured_apart_and_code_is_counted_without_questions(book, text, cell):
    cells = [text("a", "## ★ 甲\n\n" + HAN), cell("code", "x"), cell("sol-a", "x")]
    path = book.chapter("01_x", *cells, text("b", "## ☆ 乙"), text("c", "### 丙\n\n" + HAN))
    (first, spent), (second, later) = chapter_minutes(path, book.root)
    assert (first.mark, second.mark) == ("★", "☆")
    assert later == pytest.approx((1 + 2 / 300, 0)) and spent.read > 1
    assert [cell.id for cell in counted_code(first)] == ["code"]
