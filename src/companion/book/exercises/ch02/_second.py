"""☆ 画、再求一次、教，这几节的检查器：沿斜率走许多步，或者对斜率再求斜率。"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import error_from, require_numbers, require_tensor
from companion.book.exercises._watch import Watch

Answer = Callable[..., Any]


def toward(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(6)  # 一路上没有斜率近乎 0 的格，舍入翻不动正负号
    x = torch.rand(5, 64, generator=generator) * 16
    x[0, :8], x[1, :8] = 0, 16
    m = torch.rand(10, 64, generator=generator) * 3 + 6  # 靠得近，概率不会全给一个
    for n, k, eps, steps in ((5, 8, 4.0, 10), (3, 3, 2.0, 1), (1, 0, 3.0, 4)):
        x = x[:n].clone()
        got = answer(x, m, k, eps, steps)
        require_tensor(got, tuple(x.shape), torch.float32)
        if got.requires_grad:
            return "交出来的图还连着账本：每一步都从断开的图出发，最后 .detach()。"
        if not torch.allclose(got, _walk(x, m, k, eps / steps, steps), atol=1e-4):
            return _wrong_walk(got, x, m, k, eps, steps)
    return None


def _walk(x: Tensor, m: Tensor, k: int, stride: float, steps: int, raw: bool = False) -> Tensor:
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        scores = -(leaf[:, None] - m).square().sum(-1) / 100
        (g,) = torch.autograd.grad(F.cross_entropy(scores, torch.full((len(x),), k)), leaf)
        x = (x - stride * (g if raw else g.sign())).clamp(0, 16)
    return x


def _wrong_walk(got: Tensor, x: Tensor, m: Tensor, k: int, eps: float, steps: int) -> str:
    stride = eps / steps
    known = {
        "方向反了：要让“是 k”的损失变小，减。": _walk(x, m, k, -stride, steps),
        "每一步都走了 eps：一共走 eps，一步是 eps / steps。": _walk(x, m, k, eps, steps),
        "只走了一步：每走一步都重新问一次斜率。": _walk(x, m, k, eps, 1),
        "一共少走了一截：走满 steps 步。": _walk(x, m, k, stride, steps - 1),
        "走的是斜率本身，几乎没动：只要它的正负号。": _walk(x, m, k, stride, steps, raw=True),
    }
    for text, value in known.items():
        if torch.allclose(got, value, atol=1e-4):
            return text
    if got.min() < 0 or got.max() > 16:
        return "有的格跑到 0 到 16 外面去了：每走一步都 clamp(0, 16)。"
    if (got - x).abs().max() > eps + 1e-4:
        return f"eps = {eps:g} 时，有的格动了 {(got - x).abs().max():.3g}。"
    return f"k = {k}、走 {steps} 步时不对：每一步的斜率都在新的图上、对答案 k 的损失求。"


def best_rate(answer: Any) -> str | None:
    what = "上限、最快的学习率、最快时每步乘的数"
    limit, best, factor = require_numbers(answer, "三", what)
    if not _near(limit, 2 / 9):
        known = {1 / 9: "这是 1/λ，一步走到谷底的那个；", 2.0: "这是不弯的那个方向的上限；"}
        found = [text for value, text in known.items() if _near(limit, value)]
        return f"上限不对：{''.join(found)}最弯的方向说了算，λ 是 9，上限是 2/λ。"
    if not _near(best, 0.2):
        known = {1 / 9: "弯的方向一步到底，不弯的还剩 8/9。", 1.0: "这超过了上限。"}
        found = [text for value, text in known.items() if _near(best, value)]
        return f"上限对了，最快的不对。{''.join(found)}让两个方向的 |1 − ηλ| 一样大。"
    if _near(factor, 0.8):
        return None
    if _near(factor, -0.8):
        return "前两个对了；每步乘的数问的是绝对值，取正的。"
    return "前两个对了，每步乘的数不对：把 η = 0.2 代进 |1 − ηλ|，两个 λ 都算一遍。"


def _near(value: float, truth: float) -> bool:
    return abs(value - truth) < 6e-4  # 三位小数


def lesson_slope(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for shape, n, rate in (((3,), 4, 0.1), ((2, 2), 5, 0.3)):
        w, goal = torch.randn(2, *shape, generator=generator)
        lesson = torch.randn(n, shape[0], generator=generator)
        learn, exam = _learn, _Exam(goal)
        error = error_from(answer, learn, exam, w, lesson, rate)
        if error is not None and "used in the graph" in str(error):
            return "考试的损失查不到教材：走的那一步没有记账，第一次求斜率要 create_graph=True。"
        got = answer(learn, exam, w, lesson, rate)
        if isinstance(got, tuple):
            return "返回的是一个元组：torch.autograd.grad 总返回元组，取出里面那个。"
        require_tensor(got, tuple(lesson.shape), torch.float32)
        if got.requires_grad:
            return "结果还连着账本：它应是普通的数，第二次不必 create_graph。"
        if not torch.allclose(got, _through_a_step(exam, w, lesson, rate), rtol=1e-3, atol=1e-5):
            return _wrong_lesson(got, exam, w, lesson, rate)
    return None


def _learn(w: Tensor, lesson: Tensor) -> Tensor:
    return (lesson @ w - 1).square().mean() + (lesson @ w).sin().sum()


class _Exam:
    """考试的损失，只看学完的参数。"""

    def __init__(self, goal: Tensor) -> None:
        self.goal = goal

    def __call__(self, w: Tensor) -> Tensor:
        return (w - self.goal).square().sum() + w.exp().sum()


def _through_a_step(exam: _Exam, w: Tensor, lesson: Tensor, rate: float) -> Tensor:
    w, lesson = (t.detach().clone().requires_grad_() for t in (w, lesson))
    (g,) = torch.autograd.grad(_learn(w, lesson), w, create_graph=True)
    (slope,) = torch.autograd.grad(exam(w - rate * g), lesson)
    return slope


def _wrong_lesson(got: Tensor, exam: _Exam, w: Tensor, lesson: Tensor, rate: float) -> str:
    leaf = lesson.clone().requires_grad_()
    (direct,) = torch.autograd.grad(_learn(w, leaf), leaf)
    known = {
        "这一步走反了：w 减去 rate 乘斜率。": _through_a_step(exam, w, lesson, -rate),
        "走的那一步忘了乘 rate。": _through_a_step(exam, w, lesson, 1.0),
        "这是学习的损失对教材的斜率；要的是学完之后，考试的损失对教材的。": direct,
        "全是 0：走的那一步没有记账，第一次求斜率要 create_graph=True。": torch.zeros_like(leaf),
        "符号反了：要的是斜率本身，不是往哪边走。": -_through_a_step(exam, w, lesson, rate),
    }
    for text, value in known.items():
        if torch.allclose(got, value, rtol=1e-3, atol=1e-5):
            return text
    return "不对：先走一步得到新的 w，这一步也记账；再问考试的损失对教材的斜率。"


def hvp(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    runs = []
    for shape in ((3, 2), (3, 2), (12, 12), (5,), (2, 1, 2)):
        f = _bent(torch.randn(shape, generator=generator))
        w, v = torch.randn(2, *shape, generator=generator)
        wrong, seen = _ask_product(answer, f, w, v)
        if wrong:
            return wrong
        runs.append((w.numel(), seen))
        if shape == (12, 12) and (heavy := _too_much_work(runs[0], runs[-1])):
            return heavy
    return None


def _ask_product(answer: Answer, f: Answer, w: Tensor, v: Tensor) -> tuple[str | None, Watch]:
    error = error_from(answer, f, w, v)
    if error is not None and "does not require grad" in str(error):
        return "第一次求斜率少了 create_graph=True，第二次就没有账可走。", Watch()
    with Watch() as seen:
        got = answer(f, w, v)
    if isinstance(got, tuple):
        return "返回的是一个元组：torch.autograd.grad 总返回元组，取出里面那个。", seen
    require_tensor(got, tuple(w.shape), torch.float32)
    if got.requires_grad:
        return "结果还连着账本：第二次不必 create_graph，或者最后 detach()。", seen
    truth = _times_all(torch.autograd.functional.hessian(f, w), v)
    if torch.allclose(got, truth, rtol=1e-3, atol=1e-4):
        return None, seen
    return _wrong_product(f, got, w, v, truth), seen


def _times_all(H: Tensor, v: Tensor) -> Tensor:
    return (H * v).flatten(v.ndim).sum(-1)


def _bent(coefficients: Tensor) -> Callable[[Tensor], Tensor]:
    def f(w: Tensor) -> Tensor:
        return (w**3).sum() + (w * coefficients).sum().square() + w.prod()

    return f


def _too_much_work(small: tuple[int, Watch], large: tuple[int, Watch]) -> str | None:
    """积是对的：看它是不是先造出整个 H，或者把 H 一行一行求遍了。"""
    (few, cheap), (n, dear) = small, large
    if max(math.prod(shape) for shape in dear.shapes) >= n * n:
        return (
            f"积对了，可是造出了整个 H：w 有 {n} 个数，中间出现过 {n}×{n} 个数的张量。"
            "w 有一百万个数时放不下：对 (g * v).sum() 求一次，出来就是 Hv。"
        )
    if len(dear.names) > 4 * len(cheap.names):
        return (
            f"积对了，可是 H 的每一行都求了一遍：w 从 {few} 个数变成 {n} 个，"
            f"torch 的运算从 {len(cheap.names)} 次变成 {len(dear.names)} 次。往回走两遍就够。"
        )
    return None


def _wrong_product(f: Answer, got: Tensor, w: Tensor, v: Tensor, truth: Tensor) -> str:
    leaf = w.clone().requires_grad_()
    (g,) = torch.autograd.grad(f(leaf), leaf)
    if torch.allclose(got, g, atol=1e-4):
        return "这是第一次的斜率 g，还没有乘 v 再求一次。"
    H = torch.autograd.functional.hessian(f, w)
    if torch.allclose(got, _times_all(H, torch.ones_like(v)), rtol=1e-3, atol=1e-4):
        return "没有乘 v：对 g.sum() 求的是 H 乘全 1。"
    if torch.allclose(got, g * v, atol=1e-4):
        return "这是 g 和 v 逐个相乘，要的是 (g * v).sum() 对 w 的斜率。"
    ratio = ((got * truth).sum() / truth.square().sum()).item()
    if torch.allclose(got, ratio * truth, rtol=1e-3, atol=1e-4):
        return f"方向对，大小是真值的 {ratio:.3g} 倍：多乘了一个数，或者求了不止一次。"
    return "不对：先求 g，再对 (g * v).sum() 求一次，v 别跟着求导。"
