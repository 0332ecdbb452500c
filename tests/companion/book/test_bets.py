"""题库的读取与核对：每种写错都有一句指明位置的话。"""

from pathlib import Path

import pytest

from companion.book import bet, quiz
from companion.book.widgets import _questions as questions
from companion.errors import ArgumentError, DataError

GOOD = """
[quizzes]
one = ["bytes"]

[bytes]
question = "搬动多少字节？"
options = [{ text = "0", correct = true, reason = "一" }, { text = "12", reason = "二" }]

[shape]
question = "形状是？"
kind = "typed"
answers = ["(3, 4)", "(3,4,)"]
reason = "右对齐。"
default = "还不对。"
wrong = [{ text = "(4, 3)", reason = "反了。" }]
"""


@pytest.fixture
def chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(questions, "BETS", tmp_path)
    path = tmp_path / "ch99.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def test_choice_bet_keeps_each_option_with_its_own_reason(chapter):
    found = questions.find_bet("ch99.bytes")
    assert [(o.text, o.correct, o.reason) for o in found.options] == [
        ("0", True, "一"),
        ("12", False, "二"),
    ]
    assert not found.typed


def test_typed_bet_gives_every_answer_the_same_reason_and_has_a_reply_for_the_rest(chapter):
    found = questions.find_bet("ch99.shape")
    assert [(o.text, o.correct) for o in found.options] == [
        ("(3, 4)", True),
        ("(3,4,)", True),
        ("(4, 3)", False),
    ]
    assert (found.typed, found.default) == (True, "还不对。")


def test_quiz_lists_its_bets_in_order(chapter):
    assert list(questions.find_quiz("ch99.one")) == ["bytes"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("correct = true, ", "", r"\[bytes\].*恰好 1 个正确，实际是 2 个、0 个"),
        (', { text = "12", reason = "二" }', "", r"\[bytes\].*至少 2 个选项.*实际是 1 个"),
        ('text = "12"', 'text = "0"', r"\[bytes\] 的选项应互不相同"),
        (', reason = "二"', "", r"\[bytes\] 的选项 缺 reason"),
        ('reason = "二"', 'reason = ""', r"\[bytes\] 的选项 缺 reason"),
        ("correct =", "corect =", r"\[bytes\] 的选项 不认识 corect"),
        ('default = "还不对。"', "", r"\[shape\] 缺 default"),
        ('answers = ["(3, 4)", "(3,4,)"]', "answers = []", r"\[shape\] 的 answers 至少要有一个"),
        ('"(4, 3)"', '"(3, 4)"', r"\[shape\] 的选项应互不相同"),
        ('one = ["bytes"]', 'one = ["bites"]', r"小测 one .*\['bites'\] 没有找到"),
        ('one = ["bytes"]', 'one = ["bytes", "bytes"]', r"小测 one 应引用本文件里互不相同的题"),
    ],
)
def test_mistake_in_the_file_is_named_with_its_place(chapter, old, new, message):
    assert old in GOOD
    chapter.write_text(GOOD.replace(old, new), encoding="utf-8")
    questions.load_chapter.cache_clear()
    with pytest.raises(DataError, match=message):
        questions.load_chapter(chapter)


@pytest.mark.parametrize(
    ("make", "name", "near"),
    [(bet, "ch99.byte", "bytes"), (bet, "ch98.bytes", "ch99"), (quiz, "ch99.ones", "one")],
)
def test_unknown_name_lists_the_near_ones(chapter, make, name, near):
    with pytest.raises(ArgumentError, match=f"相近的有：{near}；"):
        make(name)


@pytest.mark.parametrize("path", sorted(questions.BETS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_questions_are_well_formed(path):
    assert questions.load_chapter(path).bets
