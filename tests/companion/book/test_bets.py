"""题库的读取与核对：每种写错都有一句指明位置的话。"""

import itertools
import json
import random
from pathlib import Path

import pytest
import torch
from py_mini_racer import MiniRacer

from companion.book import bet, check, quiz
from companion.book._exercise import grade
from companion.book.widgets import _questions as questions
from companion.book.widgets._html import ASSETS
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
answers = ["(3, 4)", "[3, 4]"]
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
        ("[3, 4]", True),
        ("(4, 3)", False),
    ]
    assert (found.typed, found.default) == (True, "还不对。")


def test_quiz_lists_its_bets_in_order(chapter):
    assert list(questions.find_quiz("ch99.one")) == ["bytes"]


MISTAKES = [
    # 选择题
    ("correct = true, ", "", r"\[bytes\].*恰好 1 个正确，实际是 2 个、0 个"),
    (', { text = "12", reason = "二" }', "", r"\[bytes\].*至少 2 个选项.*实际是 1 个"),
    ('reason = "二"', 'reason = "二", correct = true', r"\[bytes\].*实际是 2 个、2 个"),
    ("correct = true", 'correct = "yes"', r"第 1 个 options 的 correct 应是true 或 false"),
    ("correct = true", "correct = 1", r"第 1 个 options 的 correct 应是true 或 false"),
    ("correct = true", "correct = true, naive = 1", r"第 1 个 options 的 naive 应是true 或 false"),
    ('text = "12"', 'text = "0"', r"\[bytes\]：各个回答应互不相同"),
    ('text = "12"', 'text = " `0` "', r"\[bytes\]：各个回答应互不相同"),
    ('text = "12"', 'text = "` `"', r"\[bytes\]：每个回答都应有字"),
    ('text = "12"', "text = 12", r"\[bytes\]：第 2 个 options 的 text 应是一段文字.*实际是 12；"),
    ('text = "12"', 'text = "\\u200b"', r"第 2 个 options 的 text 应是一段文字"),
    ('text = "12"', 'text = "\\u001b[2J"', r"第 2 个 options 的 text 应是一段文字"),
    ('text = "12", ', "", r"第 2 个 options 的 text 没有写"),
    (', reason = "二"', "", r"\[bytes\]：第 2 个 options 的 reason 没有写"),
    ('reason = "二"', 'reason = ""', r"\[bytes\]：第 2 个 options 的 reason 应是一段文字"),
    ('reason = "二"', 'reason = "　\\n"', r"\[bytes\]：第 2 个 options 的 reason 应是一段文字"),
    ("correct =", "corect =", r"第 1 个 options 的 'corect' 不是认识的字段"),
    ('question = "搬', 'qestion = "搬', r"\[bytes\]：question 没有写"),
    ("options = [", "options = [5, ", r"\[bytes\]：options 应是一列表"),
    ("options = [", "options = 5\n[x]\ny = [", r"\[bytes\]：options 应是一列表.*实际是 5；"),
    ("options = [", 'options = {text = "0", reason = "一"}\ny = [', r"options 应是一列表"),
    ("options = [", 'options = "ab"\ny = [', r"\[bytes\]：options 应是一列表.*实际是 'ab'"),
    ("options = [", "options = []\ny = [", r"\[bytes\]：'y' 不是认识的字段"),
    ('question = "搬动', 'kind = "choise"\nquestion = "搬动', r"kind 应为 'choice' 或 'typed'"),
    ('question = "搬动', 'kind = ["typed"]\nquestion = "搬动', r"kind 应为 'choice' 或 'typed'"),
    # 填空题
    ('kind = "typed"', "", r"\[shape\]：options 没有写"),
    ('default = "还不对。"', "", r"\[shape\]：default 没有写"),
    (
        'default = "还不对。"',
        'default = "还**不**对。"',
        r"\[shape\]：default 应是一段文字.*和 \*\*",
    ),
    ('default = "还不对。"', "default = nan", r"\[shape\]：default 应是一段文字.*实际是 nan"),
    ('default = "还', 'placeholder = " "\ndefault = "还', r"\[shape\]：placeholder 应是一段文字"),
    (
        'answers = ["(3, 4)", "[3, 4]"]',
        "answers = []",
        r"\[shape\]：answers 应是一列文字，至少一个",
    ),
    ('answers = ["(3, 4)", "[3, 4]"]', 'answers = "ab"', r"answers 应是一列文字.*实际是 'ab'"),
    ('"[3, 4]"]', "34]", r"\[shape\]：answers 应是一列文字"),
    ('"[3, 4]"]', '["[3, 4]"]]', r"\[shape\]：answers 应是一列文字"),
    ('"[3, 4]"]', '" "]', r"\[shape\]：answers 应是一列文字"),
    ('"[3, 4]"]', '"，"]', r"\[shape\]：每个回答都应有字"),
    ('"[3, 4]"]', '"（3，4，）"]', r"\[shape\]：各个回答应互不相同，.*（3，4，）"),
    ('"(4, 3)"', '"(3, 4)"', r"\[shape\]：各个回答应互不相同"),
    ('"(4, 3)"', '"torch.Size([3,4])"', r"\[shape\]：各个回答应互不相同"),
    ("wrong = [{", "wrong = [[{", r"TOML"),
    ('wrong = [{ text = "(4, 3)", reason = "反了。" }]', 'wrong = "反"', r"wrong 应是一列表"),
    (', reason = "反了。"', ', correct = true, reason = "反"', r"第 1 个 wrong 的 'correct' 不是"),
    # 小测和层次
    ('one = ["bytes"]', 'one = ["bites"]', r"\[quizzes.one\].*\['bites'\] 没有找到"),
    ('one = ["bytes"]', 'one = ["quizzes"]', r"\['quizzes'\] 没有找到"),
    ('one = ["bytes"]', 'one = ["bytes", "bytes"]', r"小测里的题应互不相同，\['bytes'\]"),
    ('one = ["bytes"]', "one = []", r"\[quizzes.one\]：小测应是一列文字，至少一个"),
    ('one = ["bytes"]', 'one = "bytes"', r"小测应是一列文字.*实际是 'bytes'"),
    ('one = ["bytes"]', "one = [[1]]", r"小测应是一列文字"),
    (
        'one = ["bytes"]',
        'question = "一道叫 quizzes 的题"',
        r"\[quizzes.question\]：小测应是一列文字",
    ),
    ('one = ["bytes"]', '"" = ["bytes"]', r"\[quizzes.\]：名字应只有英文字母"),
    ("[quizzes]", "[[quizzes]]", r"\[quizzes\]：应写成 小测名 = "),
    ("[quizzes]", "title = 1\n[quizzes]", r"\[title\]：应是一道题（一张表），实际是 1；"),
    ("[quizzes]", "d = 2026-01-01\n[quizzes]", r"\[d\]：应是一道题"),
    ("[bytes]", "[[bytes]]", r"\[bytes\]：应是一道题（一张表）"),
    ("[bytes]", "[a.b]", r"\[a\]：'b' 不是认识的字段|\[a\]：question 没有写"),
    ("[bytes]", '["b c"]', r"\[b c\]：名字应只有英文字母|\['bytes'\] 没有找到"),
    ("[shape]", "[bytes]", r"TOML"),
    (GOOD, "", r"应至少有一道题"),
    (GOOD, "x = " + "[" * 5000, r"TOML"),
    (GOOD, "x = " + "9" * 5000, r"TOML"),
    (GOOD, "=", r"TOML"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_mistake_in_the_file_is_named_with_its_place(chapter, old, new, message):
    assert old in GOOD
    chapter.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    questions.load_chapter.cache_clear()
    with pytest.raises(DataError, match=message) as caught:
        questions.load_chapter(chapter)
    assert "ch99.toml" in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", "题".encode("gbk"), b"\x00"])
def test_file_that_is_not_utf8_toml_is_named(chapter, content):
    chapter.write_bytes(content)
    questions.load_chapter.cache_clear()
    with pytest.raises(DataError, match=r"ch99\.toml 应是 UTF-8 的 TOML 文件"):
        bet("ch99.bytes")


def test_folder_in_the_place_of_the_file_is_named(chapter):
    chapter.unlink()
    chapter.mkdir()
    questions.load_chapter.cache_clear()
    with pytest.raises(DataError, match=r"ch99\.toml 应是 UTF-8 的 TOML 文件"):
        bet("ch99.bytes")


def test_every_mistake_of_a_file_is_listed_not_only_the_first(chapter):
    tables = {"a": {"question": 1, "options": []}, "b": 2, "quizzes": {"q": ["c"]}}
    assert [problem.name for problem in questions.problems(tables)] == ["a", "b", "quizzes.q"]


STRANGE = [5, 1.5, True, None, [], {}, "", "a", {"text": "x"}, ["ab", 1], [["a"]], "typed", [{}]]


def test_any_wrong_value_anywhere_is_a_data_error_and_never_a_raw_one(chapter):
    """每个字段、每一层，都换成一遍不对的值；哪一个没有报错，都得是真的写对了。"""
    base = questions.read_tables(chapter)
    for path in itertools.chain([()], _paths(base)):
        for value in STRANGE:
            tables = json.loads(json.dumps(base))
            if path:
                place = tables
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = value
            found = list(questions.problems(tables))
            if not found:
                made = {name: questions._bet(t) for name, t in tables.items() if name != "quizzes"}
                texts = [o.text for b in made.values() for o in b.options]
                assert all(isinstance(text, str) and text.strip() for text in texts), (path, value)


def _paths(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from _paths(item, (*path, key))


def test_answers_are_compared_the_same_way_as_in_the_browser():
    engine = MiniRacer()
    engine.eval("var window = {};" + (ASSETS / "bet.js").read_text(encoding="utf-8"))
    engine.eval("var normal = window.companionWidgets[0].normal;")
    pieces = [
        "(",
        ")",
        "[",
        "]",
        "（",
        "）",
        ",",
        "，",
        "、",
        "3",
        "-4",
        "１２",
        " ",
        "\u3000",
        "`",
    ]
    pieces += ["torch.Size([", "])", "True", "报错", "x.T", "\n", "İ", "ﬁ", "٣", "½"]
    pick = random.Random(0)
    for _ in range(2000):
        text = "".join(pick.choices(pieces, k=pick.randint(1, 8)))
        assert questions.normal(text) == engine.eval(f"normal({json.dumps(text)})"), text


@pytest.mark.parametrize("make", [bet, quiz, lambda name: check(name, 1), lambda n: grade(n, None)])
@pytest.mark.parametrize(
    "name",
    [5, None, 1.5, b"ch01.x", ["ch01.x"], {}, torch.zeros(9), object, "", "ch01", ".", "a b"],
)
def test_name_of_a_wrong_kind_or_form_is_refused_with_an_example(make, name):
    with pytest.raises(ArgumentError, match=r'"章\.名字".*实际是 .*请核对名字'):
        make(name)


@pytest.mark.parametrize(
    "name",
    ["ch99.bytes\n", "ch99..bytes", "../ch99.bytes", "x\x1b[2J.y", "a" * 9999, "a." + "b" * 9999],
)
def test_name_with_strange_characters_is_shown_short_and_escaped(chapter, name):
    with pytest.raises(ArgumentError) as caught:
        bet(name)
    assert len(str(caught.value)) < 200 and "\x1b" not in str(caught.value)


def test_helpers_of_the_exercises_are_not_a_chapter():
    with pytest.raises(ArgumentError, match="没有 '_common' 这一章的习题"):
        check("_common.same_storage", 1)


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
