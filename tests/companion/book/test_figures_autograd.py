"""第 2 章的四张图里的计算：斜率、账本、骗、碗，在 JavaScript 引擎里跑，和 torch 逐一对照。"""

import json

import pytest
import torch

from companion.book import bowl, deception
from companion.errors import ArgumentError, ShapeError
from tests.companion.book.engine import call, load, numbers_in

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


# —— 碗 ——

POINTS = {
    "一条直线": (torch.linspace(0, 1, 100), 3 * torch.linspace(0, 1, 100) + 1),
    "散的": (torch.tensor([-2.0, 0.5, 1.0, 4.0]), torch.tensor([3.0, -1.0, 0.0, 2.0])),
    "最急的是截距": (torch.tensor([0.1, -0.2, 0.3]), torch.tensor([5.0, 1.0, 2.0])),
    "两个方向不相干": (torch.tensor([-3.0, 3.0]), torch.tensor([0.0, 0.0])),
}


def line_loss(x, y):
    x, y = x.double(), y.double()
    return lambda ab: (ab[0] * x + ab[1] - y).square().mean()


@pytest.mark.parametrize("name", POINTS)
def test_a_bowl_bends_as_the_hessian_of_torch_says(name):
    f = line_loss(*POINTS[name])
    H = torch.autograd.functional.hessian(f, torch.zeros(2, dtype=torch.float64))
    values, vectors = torch.linalg.eigh(H)
    given = numbers_in(bowl(*POINTS[name]))
    found = call(load("bowl"), "W.bends", given["hessian"])
    assert (found["flat"], found["steep"]) == pytest.approx(tuple(values.tolist()))
    for direction, exact in zip(found["directions"], vectors.T.flip(0), strict=True):
        assert abs(torch.tensor(direction, dtype=torch.float64) @ exact) == pytest.approx(1)
    assert f"{2 / values[1]:.4g}" in repr(bowl(*POINTS[name]))


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("part", [0.3, 0.98, 1.0, 1.05])
def test_a_bowl_walks_the_steps_of_gradient_descent(name, part):
    engine, widget, f = load("bowl"), bowl(*POINTS[name]), line_loss(*POINTS[name])
    given = numbers_in(widget)
    rate = part * 2 / call(engine, "W.bends", given["hessian"])["steep"]
    for start in ([0.0, 0.0], [-1.5, 4.0]):
        at, expected = torch.tensor(start, dtype=torch.float64), []
        for _ in range(31):
            leaf = at.clone().requires_grad_()
            value = f(leaf)
            expected.append((at.tolist(), value.item()))
            at = at - rate * torch.autograd.grad(value, leaf)[0]
        for point, (exact, value) in zip(
            call(engine, "W.path", given, start, rate, 30), expected, strict=True
        ):
            assert point == pytest.approx(exact, rel=1e-6, abs=1e-9)
            assert call(engine, "W.loss", given, point) == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_a_start_along_one_direction_of_a_bowl_stays_on_it():
    engine, given = load("bowl"), numbers_in(bowl(*POINTS["散的"]))
    bends = call(engine, "W.bends", given["hessian"])
    for k, bend in ((1, bends["steep"]), (2, bends["flat"])):
        start = call(engine, "W.startOf", given, k)
        points = call(engine, "W.path", given, start, 0.5 / bends["steep"], 5)
        left = [[v - b for v, b in zip(p, given["bottom"], strict=True)] for p in points]
        factor = (1 - 0.5 * bend / bends["steep"]) ** 5
        assert left[-1] == pytest.approx([v * factor for v in left[0]], abs=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "error", "said"),
    [
        (torch.zeros(3, 1), torch.zeros(3, 1), ShapeError, "flatten"),
        (torch.zeros(3), torch.zeros(4), ShapeError, r"\(3,\)、\(4,\)"),
        (torch.zeros(1), torch.zeros(1), ShapeError, "2 到 200"),
        (torch.zeros(201), torch.zeros(201), ShapeError, "2 到 200"),
        (torch.tensor([1.0, float("nan")]), torch.zeros(2), ArgumentError, "nan 或 inf"),
        (torch.full((4,), 7.0), torch.arange(4.0), ArgumentError, "分不开"),
    ],
)
def test_a_bowl_refuses_points_that_make_none(x, y, error, said):
    with pytest.raises(error, match=said):
        bowl(x, y)


def test_a_bowl_of_integers_is_that_of_the_same_floats():
    whole = torch.tensor([0, 1, 3]), torch.tensor([2, 5, 4])
    assert bowl(*whole).body == bowl(*(t.float() for t in whole)).body
