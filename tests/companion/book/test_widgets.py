"""组件的 HTML，以及三张图里的计算：在 JavaScript 引擎里跑，和 torch 逐一对照。"""

import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from py_mini_racer import MiniRacer

from companion.book import (
    bet,
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
from companion.errors import ArgumentError, ShapeError


def own_deception():
    return deception(torch.zeros(2, 64), torch.tensor([3, 5]), torch.ones(10, 64))


FIGURES = [broadcasting, strides, indexing, secants, ledger, own_deception]
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


def load(name: str) -> MiniRacer:
    """装好一个组件脚本的 JavaScript 引擎；W 是脚本登记的第一个组件。"""
    engine = MiniRacer()
    engine.eval("var window = {};" + (ASSETS / f"{name}.js").read_text(encoding="utf-8"))
    engine.eval("var W = window.companionWidgets[0];")
    return engine


def call(engine: MiniRacer, function: str, *args: object):
    arguments = ", ".join(json.dumps(arg) for arg in args)
    return json.loads(engine.eval(f"JSON.stringify({function}({arguments}))"))


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


# —— 斜率 ——

FUNCTIONS = {
    "x²": lambda x: x * x,
    "x³ − x": lambda x: x * x * x - x,
    "sin x": torch.sin,
    "|x|": torch.abs,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("h", [1.0, 1e-3, 1e-6, 1e-9])
def test_secants_measure_what_torch_measures_in_both_precisions(name, h):
    f, engine = FUNCTIONS[name], load("secants")
    for x in (-1.7, 0.3, 1.3):
        for dtype, rounding in ((torch.float32, "Math.fround"), (torch.float64, "(v) => v")):
            at, step = torch.tensor(x, dtype=dtype), torch.tensor(h, dtype=dtype)
            expected = ((f(at + step) - f(at - step)) / (2 * step)).item()
            got = engine.eval(f"W.measure({json.dumps(name)}, {x}, {h}, {rounding})")
            # 两边的 sin 在最后一位上可以不同：差一格，除以 2h 就是这么多
            loose = 1e-7 / h if name == "sin x" and dtype == torch.float32 else 0
            tight = 1e-15 / h if name == "sin x" else 0
            assert got == pytest.approx(expected, rel=1e-12, abs=max(loose, tight, 1e-30))


def test_secants_lose_all_digits_in_float32_long_before_float64():
    rows = call(load("secants"), "W.table", "x³ − x", 1.3)
    assert min(row["single"] for row in rows) < 1e-3
    assert max(row["single"] for row in rows if row["h"] < 1e-8) >= 1
    assert min(row["double"] for row in rows) < 1e-9


# —— 账本 ——

BOOKS = {
    "ab + a": lambda a, b: a * b + a,
    "a · a": lambda a: a * a,
    "relu(ab + c)": lambda a, b, c: (a * b + c).relu(),
    "翻倍四次": lambda a: a * 16,
    "exp(a) · a": lambda a: a.exp() * a,
}


@pytest.mark.parametrize("title", BOOKS)
@pytest.mark.parametrize("ordered", [True, False])
def test_a_ledger_that_adds_ends_with_the_gradients_of_torch(title, ordered):
    engine = load("ledger")
    book = call(engine, "((t) => W.books[t])", title)
    names = [row[0] for row in book if not isinstance(row[1], str)]
    for values in ([2.0, 3.0, -1.5], [-0.5, 1.25, 4.0]):
        inputs = dict(zip(names, values, strict=False))
        leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in inputs.values()]
        result = BOOKS[title](*leaves)
        expected = torch.autograd.grad(result, leaves, allow_unused=True)
        run = call(engine, "W.backward", book, inputs, {"add": True, "ordered": ordered})
        assert run["values"][book[-1][0]] == pytest.approx(result.item())
        assert [run["grads"][n] for n in names] == pytest.approx([g.item() for g in expected])


def test_a_ledger_shows_what_overwriting_and_walking_each_path_cost():
    engine = load("ledger")
    square, doubled = (call(engine, "((t) => W.books[t])", t) for t in ("a · a", "翻倍四次"))
    overwritten = call(engine, "W.backward", square, {"a": 3}, {"add": False, "ordered": True})
    assert overwritten["grads"]["a"] == 3  # 真值是 6
    by_paths = call(engine, "W.backward", doubled, {}, {"add": True, "ordered": False})
    in_order = call(engine, "W.backward", doubled, {}, {"add": True, "ordered": True})
    assert (len(by_paths["steps"]), len(in_order["steps"])) == (2**5 - 1, 5)
    assert by_paths["grads"]["a"] == in_order["grads"]["a"] == 16


# —— 骗 ——


def test_deception_computes_chances_slopes_and_budgets_as_torch_does():
    engine, generator = load("deception"), torch.Generator().manual_seed(0)
    for _ in range(3):
        x = (torch.rand(64, generator=generator, dtype=torch.float64) * 16).requires_grad_()
        m = torch.rand(10, 64, generator=generator, dtype=torch.float64) * 16
        distance = (x - m).square().sum(1)
        z = -distance / 100
        loss = torch.nn.functional.cross_entropy(z[None], torch.tensor([4]))
        (g,) = torch.autograd.grad(loss, x)
        given = x.tolist(), m.tolist()
        assert call(engine, "W.chances", *given) == pytest.approx(z.softmax(0).tolist())
        assert call(engine, "W.slopes", *given, 4) == pytest.approx(g.tolist(), abs=1e-12)
        moved = call(engine, "W.moved", given[0], g.sign().tolist(), 2)
        assert moved == pytest.approx((x + 2 * g.sign()).clamp(0, 16).tolist())
        nearest = distance.argmin()
        apart = (m - m[nearest]).abs().sum(1)
        budgets = (distance - distance.min()) / (2 * apart)
        others = torch.arange(10) != nearest
        assert call(engine, "W.guess", *given) == nearest
        assert call(engine, "W.budget", *given) == pytest.approx(budgets[others].min().item())


def test_deception_tosses_the_same_fair_coins_each_time():
    engine = load("deception")
    tosses = [call(engine, "W.direction", [8] * 64, [[0] * 64] * 2, k, "硬币", 0) for k in range(9)]
    assert all(set(toss) == {-1, 1} for toss in tosses)
    assert tosses[0] == call(engine, "W.direction", [8] * 64, [[0] * 64] * 2, 0, "硬币", 0)
    assert abs(sum(map(sum, tosses))) < 4 * (9 * 64) ** 0.5


def test_deception_refuses_pictures_that_are_not_flat():
    with pytest.raises(ShapeError, match="flatten"):
        deception(torch.zeros(2, 8, 8), torch.tensor([3, 5]), torch.ones(10, 64))
