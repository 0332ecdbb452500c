"""组件的 HTML，以及第 1 章的三张图里的计算：在 JavaScript 引擎里跑，和 torch 逐一对照。"""

import itertools
import re
from pathlib import Path

import pytest
import torch

from companion.book import (
    bet,
    bowl,
    broadcasting,
    deception,
    indexing,
    ledger,
    quiz,
    secants,
    strides,
)
from companion.book.widgets import _questions as questions
from companion.book.widgets._html import ASSETS
from companion.errors import ArgumentError
from tests.companion.book.engine import call, load


def own_deception():
    return deception(torch.zeros(2, 64), torch.tensor([3, 5]), torch.ones(10, 64))


def own_bowl():
    return bowl(torch.linspace(0, 1, 5), torch.tensor([1.0, 2.0, 2.0, 3.5, 4.0]))


FIGURES = [broadcasting, strides, indexing, secants, ledger, own_deception, own_bowl]
QUESTIONS = """
[quizzes]
two = ["bytes", "shape"]

[bytes]
question = "转置 `x` 要搬动多少字节？"
options = [
  { text = "`0`", correct = true, reason = "只换 <说明书>。" },
  { text = "48 MB", reason = "那是复制。" },
]

[shape]
question = "结果的形状是？"
kind = "typed"
placeholder = "如 (2, 3)"
answers = ["(3, 4)"]
reason = "右对齐。"
default = "还不对。"
wrong = [{ text = "(4, 3)", reason = "方向反了。" }]
"""


@pytest.fixture(autouse=True)
def chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ch99.toml").write_text(QUESTIONS, encoding="utf-8")
    monkeypatch.setattr(questions, "BETS", tmp_path)


def error_of(fn) -> str:
    try:
        fn()
    except (RuntimeError, IndexError, ValueError) as error:
        return str(error)
    return ""


def test_bet_shows_question_and_options_and_keeps_the_answer_folded():
    html = bet("ch99.bytes")._repr_html_()
    visible, _, folded = html.partition("<details")
    assert "转置 <code>x</code> 要搬动多少字节？" in visible
    assert '<li data-text="48 MB">48 MB</li>' in visible
    assert "那是复制" not in visible and "data-correct" not in visible
    assert "那是复制" in folded and "只换 &lt;说明书&gt;。" in folded


@pytest.mark.parametrize("make", [lambda: bet("ch99.bytes"), lambda: quiz("ch99.two"), *FIGURES])
def test_html_names_each_style_and_script_so_that_the_site_can_share_them(make):
    widget = make()
    tags = re.findall(r'<(style|script) data-companion="([\w-]+)">', widget._repr_html_())
    assert tags == [(tag, name) for tag in ("style", "script") for name in ("widget", widget.asset)]


@pytest.mark.parametrize("figure", FIGURES)
def test_same_figure_twice_gives_the_same_html_without_ids(figure):
    assert figure()._repr_html_() == figure()._repr_html_()
    assert not re.search(r"\sid=", figure().body)


def test_plain_text_has_question_and_options_but_no_answer():
    assert repr(bet("ch99.bytes")) == "先猜：转置 `x` 要搬动多少字节？\n   A. `0`\n   B. 48 MB"
    assert "(3, 4)" not in repr(bet("ch99.shape"))
    assert repr(quiz("ch99.two")).startswith("小测：2 题\n1. 转置")


def test_quiz_before_the_chapter_does_not_contain_the_answers():
    body = quiz("ch99.two", when="before").body
    assert "data-correct" not in body and "那是复制" not in body and "(3, 4)" not in body
    assert "data-correct" in quiz("ch99.two", when="after").body


def test_quiz_rejects_an_unknown_moment():
    with pytest.raises(ArgumentError, match="when 应为 'before'、'after'、None 之一"):
        quiz("ch99.two", when="later")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted(ASSETS.iterdir()), ids=lambda path: path.name)
def test_asset_is_small_and_asks_nothing_of_the_network(path):
    assert path.stat().st_size <= 20_000
    assert not re.search(r"https?:|//\w|@import|url\(", path.read_text(encoding="utf-8"))


RULE = re.compile(r"([^{}]+)\{")
CLASS = re.compile(r"(?<![\w-])cw-[\w-]+")


def test_a_class_of_two_scripts_is_styled_where_both_find_it():
    """一页上只有这一张图时，别的图的样式不在。"""
    used = {path.stem: set(CLASS.findall(path.read_text("utf-8"))) for path in ASSETS.glob("*.js")}
    for path in ASSETS.glob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text("utf-8"))
        for selector in RULE.findall(text):
            classes = CLASS.findall(selector)
            if path.stem == "widget" or "[data-widget" in selector or not classes:
                continue
            others = {name for name, named in used.items() if classes[0] in named}
            assert others <= {path.stem}, (path.name, selector.strip())


@pytest.mark.parametrize(
    ("typed", "same"),
    [
        ("(3,4)", "(3, 4)"),
        ("（3，4）", "(3, 4)"),
        ("torch.Size([3, 4])", "(3, 4)"),
        ("3, 4", "(3, 4)"),
        ("(3,)", "(3)"),
        ("true", "True"),
        ("１２", "12"),
    ],
)
def test_typed_answers_are_compared_without_spelling_differences(typed, same):
    engine = load("bet")
    assert call(engine, "W.normal", typed) == call(engine, "W.normal", same)


@pytest.mark.parametrize("other", ["(4, 3)", "[3, 4]", "34", "(3, 4, 1)", "-34"])
def test_different_answers_stay_different(other):
    engine = load("bet")
    assert call(engine, "W.normal", other) != call(engine, "W.normal", "(3, 4)")


def test_broadcasting_agrees_with_torch_on_every_pair_of_small_shapes():
    engine = load("broadcasting")
    shapes = [s for n in range(4) for s in itertools.product((1, 2, 3), repeat=n)]
    for a, b in itertools.product(shapes, shapes):
        result = call(engine, "W.compute", a, b)
        x = 10 * torch.arange(torch.Size(a).numel()).reshape(a)
        y = torch.arange(torch.Size(b).numel()).reshape(b)
        message = error_of(lambda x=x, y=y: x + y)
        assert result.get("error", "") == message, (a, b)
        if not message:
            assert (result["shape"], result["values"]) == (
                list((x + y).shape),
                (x + y).flatten().tolist(),
            ), (a, b)


def test_strides_agree_with_torch_on_every_chain_of_up_to_four_operations():
    engine = load("strides")
    engine.eval(
        "var see = (v) => v.error ? v : ({...v, contiguous: W.isContiguous(v), "
        "viewable: W.mergeable(v), values: W.read(v)});"
        "var run = (chain) => see(chain.reduce("
        "(v, operation) => v.error ? v : W.apply(v, operation), W.start));"
    )
    names = [".T", "[1:]", "[:, ::2]", "[:, :1]", ".expand(-1, 4)", ".reshape(2, 6)"]
    for length in range(5):
        for chain in itertools.product([*names, ".contiguous()"], repeat=length):
            _check_chain(call(engine, "run", chain), chain)


def _check_chain(result, chain):
    t = torch.arange(12).reshape(3, 4)
    y, moved = t, False
    for operation in chain:
        before = y.untyped_storage().data_ptr()
        if operation == "[1:]" and y.shape[0] == 1:
            assert "只剩 1 行" in result["error"]
            return
        if message := error_of(lambda y=y, operation=operation: eval(f"y{operation}", {"y": y})):
            assert result["error"] == message, chain
            return
        y = eval(f"y{operation}", {"y": y})
        moved = y.untyped_storage().data_ptr() != before
    shown = [result[key] for key in ("shape", "stride", "offset", "contiguous", "moved", "values")]
    assert shown == [
        list(y.shape),
        list(y.stride()),
        y.storage_offset(),
        y.is_contiguous(),
        moved,
        y.flatten().tolist(),
    ], chain
    assert result["viewable"] == (not error_of(lambda: y.view(-1))), chain


ITEMS = ["1", "-1", "9", ":", "1:3", "::2", "-2:", "3:1", "None", "...", "[0, 2]", "[3]", "[1, 1]"]
ONE_OFF = ["t > 10", "t % 5 == 2", "t != 0", "::0", "::-1", "[9]", "[0, 1, 2], [1, 3]", "[0,],"]


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_indexing_agrees_with_torch_on_every_expression_of_up_to_three_items():
    engine = load("indexing")
    t = torch.arange(24).reshape(4, 6)
    combined = [", ".join(c) for n in (1, 2, 3) for c in itertools.product(ITEMS, repeat=n)]
    for text in [*ONE_OFF, *(text for text in combined if text.count("...") < 2)]:
        result = call(engine, "W.compute", text)
        message = error_of(lambda text=text: eval(f"t[{text}]", {"t": t}))
        assert result.get("error", "") == message, text
        if not message:
            y = eval(f"t[{text}]", {"t": t, "None": None})
            shared = y.untyped_storage().data_ptr() == t.untyped_storage().data_ptr()
            expected = (list(y.shape), y.flatten().tolist(), "view" if shared else "copy")
            assert (result["shape"], result["cells"], result["kind"]) == expected, text


@pytest.mark.parametrize(
    "text",
    ["", "y", "1 2", "[0][1]", "t.sum()", "x > 10", "[[0, 1]]", "1:2:3:4", "alert(1)", "..., ..."],
)
def test_indexing_explains_what_it_does_not_know(text):
    error = call(load("indexing"), "W.compute", text)["error"]
    assert re.search("只认识|还没有写|只能写一个", error)
