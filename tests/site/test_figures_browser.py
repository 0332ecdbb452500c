"""第 2 章的四张图，在浏览器里用键盘操作：页面上读到的数与 torch 算的一样。"""

import json
import os
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from playwright.sync_api import Locator

from companion.book import bowl, deception, ledger, secants
from companion.data import load_digits

from .conftest import figure, press, shown

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="没有 chromium，开不了浏览器")


def slide(control: Locator, steps: int) -> None:
    """滑块：从最小的一头，往右走几格。"""
    press(control, "Home", *["ArrowRight"] * steps)


def choose(control: Locator, place: int) -> None:
    """下拉框：从第一项往下走几项。"""
    press(control, "Home", *["ArrowDown"] * place)


def verdict(node: Locator) -> str:
    """图下面的那句话；滑块旁边的数也是 status，不要它。"""
    return node.locator("p[role=status]").inner_text()


# —— 斜率 ——

FUNCTIONS = {
    "x²": lambda x: x * x,
    "x³ − x": lambda x: x * x * x - x,
    "sin x": torch.sin,
    "|x|": torch.abs,
}
SECANTS = [  # 函数，x 从 −2 起走几格 0.1，h 的指数从 −12 起走几格 0.5
    ("x³ − x", 33, 20),
    ("x²", 3, 24),
    ("x²", 27, 4),
    ("|x|", 31, 0),
    ("sin x", 25, 16),
    ("x³ − x", 8, 13),
]


@pytest.mark.parametrize(("name", "right", "up"), SECANTS)
def test_secants_show_the_slopes_that_torch_measures(show, name, right, up):
    node = figure(show(secants()), "secants")
    choose(node.get_by_label("函数"), list(FUNCTIONS).index(name))
    slide(node.get_by_label("x", exact=True), right)
    slide(node.get_by_label("h 的指数"), up)
    state, f = shown(node), FUNCTIONS[name]
    x, h = float(state["x"]), float(state["h"])
    assert (x, h) == pytest.approx((-2 + right / 10, 10 ** (-12 + up / 2)), rel=1e-9)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    truth = torch.autograd.grad(f(leaf), leaf)[0].item()
    assert float(state["truth"]) == pytest.approx(truth, rel=1e-14)
    for key, dtype, bits in (("single", torch.float32, 1e-7), ("double", torch.float64, 1e-15)):
        at, step = torch.tensor(x, dtype=dtype), torch.tensor(h, dtype=dtype)
        measured = ((f(at + step) - f(at - step)) / (2 * step)).item()
        loose = bits / h if name == "sin x" else 0  # 两边的 sin 最后一位可以不同
        assert float(state[key]) == pytest.approx(measured, rel=1e-12, abs=loose)
    answers = node.locator("dd").all_inner_texts()
    assert float(answers[0]) == pytest.approx(truth, rel=1e-3)
    off = abs(float(state["single"]) / truth - 1)
    assert ("不能信" in verdict(node)) == (off > 0.1)


# —— 账本 ——

BOOKS = {
    "ab + a": lambda a, b: a * b + a,
    "a · a": lambda a: a * a,
    "relu(ab + c)": lambda a, b, c: (a * b + c).relu(),
    "翻倍四次": lambda a: a * 16,
    "exp(a) · a": lambda a: a.exp() * a,
}
LEDGERS = [
    ("ab + a", (2, 3)),
    ("ab + a", (-1.5, 0.25)),
    ("a · a", (3,)),
    ("relu(ab + c)", (2, -1, 3)),
    ("relu(ab + c)", (2, -1, 1)),
    ("翻倍四次", (0.5,)),
    ("exp(a) · a", (-2,)),
]


def open_ledger(show, title, values) -> Locator:
    node = figure(show(ledger()), "ledger")
    choose(node.get_by_label("算式"), list(BOOKS).index(title))
    for name, value in zip("abc", values, strict=False):
        box = node.get_by_label(f"{name} 的值")
        press(box, "Control+A")
        node.page.keyboard.type(str(value))
        node.page.keyboard.press("Tab")
    return node


def slopes_of(title, values) -> tuple[float, list[float]]:
    leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in map(float, values)]
    result = BOOKS[title](*leaves)
    return result.item(), [g.item() for g in torch.autograd.grad(result, leaves)]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("title", "values"), LEDGERS)
def test_a_ledger_walked_to_its_end_shows_the_gradients_of_torch(show, title, values, ordered):
    node = open_ledger(show, title, values)
    if not ordered:
        press(node.get_by_label("等收齐再往回传"), "Space")
    steps = int(shown(node)["steps"])
    for _ in range(steps):
        press(node.get_by_role("button", name="往回走一步"), "Enter")
    state = shown(node)
    result, slopes = slopes_of(title, values)
    assert (state["at"], state["wrong"]) == (str(steps), "false")
    assert list(json.loads(state["values"]).values())[-1] == pytest.approx(result)
    told = [float(text) for text in node.locator("tbody td:last-child").all_inner_texts()]
    assert told[: len(slopes)] == pytest.approx(slopes, rel=1e-4)
    assert node.get_by_role("button", name="往回走一步").is_disabled()


def test_a_ledger_that_overwrites_says_what_the_slope_should_be(show):
    node = open_ledger(show, "ab + a", (2, 3))
    press(node.get_by_label("收到的加起来"), "Space")
    press(node.get_by_role("button", name="走到底"), "Enter")
    _, (to_a, _) = slopes_of("ab + a", (2, 3))
    assert shown(node)["wrong"] == "true"
    assert f"a 的斜率应是 {to_a:g}" in verdict(node)
    assert json.loads(shown(node)["grads"])["a"] != to_a


# —— 骗 ——

WAYS = ["梯度", "硬币", "朝一个数字"]
DECEPTIONS = [  # 第几张，方向，朝谁，大小是几格 0.1
    (0, "梯度", None, 0),
    (3, "梯度", None, 20),
    (7, "梯度", None, 40),
    (3, "朝一个数字", 8, 25),
    (9, "朝一个数字", 0, 12),
    (5, "硬币", None, 20),
]


SHADE = 16 / 255  # 颜色只有 256 档


def ten_digits():
    images, labels = load_digits()
    x = images.flatten(1).float()
    some = [(labels == k).nonzero()[0].item() for k in range(10)]
    faces = torch.stack([x[labels == k].mean(0) for k in range(10)])
    return x[some], labels[some], faces


def attacked(x, m, label, sign, eps):
    """照着“是 label”的损失的斜率动；`sign` 是 1 就离开它，−1 就朝它。"""
    leaf = x.clone().requires_grad_()
    loss = F.cross_entropy(-(leaf - m).square().sum(1)[None] / 100, label[None])
    (g,) = torch.autograd.grad(loss, leaf)
    return (x + sign * eps * g.sign()).clamp(0, 16)


def pixels(panel: Locator) -> torch.Tensor:
    """格子的深浅，化回 0 到 16。"""
    colors = panel.locator("span").evaluate_all("all => all.map((s) => s.style.background)")
    opacity = [1 if color.startswith("rgb(") else color[:-1].split(",")[3] for color in colors]
    return 16 * torch.tensor([float(part) for part in opacity])


@pytest.mark.parametrize(("which", "way", "target", "tenths"), DECEPTIONS)
def test_a_deception_moves_the_picture_as_torch_does(show, which, way, target, tenths):
    x, labels, faces = ten_digits()
    node = figure(show(deception(x, labels, faces)), "deception")
    choose(node.get_by_label("图", exact=True), which)
    choose(node.get_by_label("方向"), WAYS.index(way))
    assert node.get_by_label("朝", exact=True).is_visible() == (target is not None)
    if target is not None:
        choose(node.get_by_label("朝", exact=True), target)
    slide(node.get_by_label("每格最多动多少"), tenths)
    m, one, eps, state = (
        faces.double().round(decimals=2),
        x[which].double(),
        tenths / 10,
        shown(node),
    )
    seen = pixels(node.locator(".cw-ink").nth(2)).double()
    if way == "硬币":
        change = seen - one
        now = (one + eps * change.sign() * (change.abs() > SHADE)).clamp(0, 16)
    else:
        label, sign = (labels[which], 1) if target is None else (torch.tensor(target), -1)
        now = attacked(one, m, label, sign, eps)
    assert torch.allclose(seen, now, atol=SHADE)
    chances = (-(now - m).square().sum(1) / 100).softmax(0)
    assert int(state["guess"]) == chances.argmax()
    assert float(state["chance"]) == pytest.approx(chances.max().item())
    first = node.locator(".cw-bars li").first.inner_text().split()
    assert (first[0], float(first[-1][:-1]) / 100) == (
        state["guess"],
        pytest.approx(float(state["chance"]), abs=1e-3),
    )


@pytest.mark.parametrize("which", range(0, 10, 2))
def test_the_budget_of_a_deception_is_just_enough(show, which):
    x, labels, faces = ten_digits()
    node = figure(show(deception(x, labels, faces)), "deception")
    choose(node.get_by_label("图", exact=True), which)
    budget, m = float(shown(node)["budget"]), faces.double().round(decimals=2)
    one = x[which].double()
    said = (one - m).square().sum(1).argmin()
    for factor, changed in ((0.999, False), (1.001, True)):
        moved = one + factor * budget * (m - m[said]).sign()  # 朝每个别的数字各试一次
        guesses = (moved[:, None] - m).square().sum(-1).argmin(1)
        assert bool((guesses != said).any()) == changed
    assert f"每格动 {budget:.2f} 就会改口" in verdict(node)


# —— 碗 ——

BOWLS = [  # 学习率从 0.02 倍起走几格 0.01，起点，走几步，话里有什么
    (48, 0, 10, "一直在靠近|越跳越近"),
    (18, 0, 1, "一直在靠近"),
    (96, 1, 20, "越跳越近"),
    (98, 1, 20, "来回跳，不近也不远"),
    (103, 0, 40, "越跳越远"),
    (103, 2, 10, "迟早越跳越远"),
    (118, 1, 30, "越跳越远"),
]


def descent(x, y, start, rate, steps):
    at = torch.tensor(start, dtype=torch.float64)
    for _ in range(steps + 1):
        leaf = at.clone().requires_grad_()
        loss = (leaf[0] * x + leaf[1] - y).square().mean()
        before, at = at, at - rate * torch.autograd.grad(loss, leaf)[0]
    return before.tolist(), loss.item()


@pytest.mark.parametrize(("right", "start", "steps", "said"), BOWLS)
def test_a_bowl_takes_the_steps_of_gradient_descent(show, right, start, steps, said):
    x = torch.linspace(0, 1, 100)
    y = 3 * x + 1 + 0.1 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    node = figure(show(bowl(x, y)), "bowl")
    slide(node.get_by_label("学习率，是上限的几倍"), right)
    choose(node.get_by_label("起点"), start)
    press(node.get_by_role("button", name="回起点"), "Enter")
    state = shown(node)
    begin = [float(state["a"]), float(state["b"])]
    tens, ones = divmod(steps, 10)
    press(node.get_by_role("button", name="走十步"), *["Enter"] * tens)
    press(node.get_by_role("button", name="走一步"), *["Space"] * ones)
    state = shown(node)
    x, y = x.double(), y.double()
    design = torch.stack([x, torch.ones_like(x)], 1)
    limit = 2 / torch.linalg.eigvalsh(2 * design.T @ design / len(x))[-1].item()
    rate = (0.02 + right / 100) * limit
    assert float(state["limit"]) == pytest.approx(limit)
    assert float(state["rate"]) == pytest.approx(rate)
    at, loss = descent(x, y, begin, rate, steps)
    assert [float(state["a"]), float(state["b"])] == pytest.approx(at, rel=1e-5, abs=1e-6)
    assert float(state["loss"]) == pytest.approx(loss, rel=1e-5)
    assert re.search(said, verdict(node))
    assert f"{steps} 步" == node.locator("dd").first.inner_text()
    assert node.locator("circle").count() == steps + 1 + len(x)
