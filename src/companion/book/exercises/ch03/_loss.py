"""☆ 损失一节的检查器。"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import close, require_numbers, require_tensor
from companion.book.exercises.ch03._exact import Asked, by_hand, called, require_exact

Answer = Callable[..., Any]


def three_centres(answer: Any) -> str | None:
    mean, median, between = require_numbers(answer, "三", "平方、绝对值、Huber 各一个")
    if close(mean, 1) and close(median, 20):
        return "平方和绝对值的次序反了。"
    if not close(mean, 20):
        return "平方的不对：推力 2(c − a) 加起来是 0，c 是五个数的平均。"
    if not close(median, 1):
        return "绝对值的不对：每个数只推 1，左右推的人一样多，c 是中间那个数。"
    if close(between, 1):
        return "Huber 的不对：c = 1 时，0 往左推 1，3 和 95 各往右推 1，还没有停。"
    if not close(between, 1.5):
        return "Huber 的不对：五个 clamp(c − a, −1, 1) 加起来应是 0。"
    return None


# —— Huber ——


def huber(answer: Answer) -> str | None:
    for prediction, target, delta in _pairs():
        with by_hand("用的是现成的损失；这题自己写，torch.where 选哪一段。", "loss"):
            got = answer(prediction, target, delta)
        require_tensor(got, (), torch.float32)
        truth = F.huber_loss(prediction, target, delta=delta)
        if not torch.allclose(got, truth, rtol=1e-5, atol=1e-7):
            return _why_not_huber(got, prediction - target, delta)
    prediction, target, _ = _pairs()[0]
    if not close(answer(prediction, target).item(), F.huber_loss(prediction, target).item()):
        return "不写 delta 时应是 1：参数写成 delta=1.0。"
    if wrong := _huber_slopes(answer):
        return wrong

    def truth_of(a: Tensor, b: Tensor, delta: float) -> Tensor:
        return F.huber_loss(a, b, delta=delta)

    for prediction, target, _ in _pairs()[:4]:
        require_exact(answer, truth_of, {"prediction": prediction}, target, 0.5)
    return None


def _pairs() -> list[tuple[Tensor, Tensor, float]]:
    generator = torch.Generator().manual_seed(0)
    found: list[tuple[Tensor, Tensor, float]] = []
    for shape, delta in (((9,), 1.0), ((3, 4), 0.5), ((2, 2), 3.0), ((2, 3), 2.0)):
        target = torch.randn(shape, generator=generator)
        found.append((target + 3 * torch.randn(shape, generator=generator), target, delta))
    same = torch.zeros(4)
    edge = torch.tensor([-2.0, -1.0, 1.0, 2.0])  # 正好在 δ 上
    return [*found, (same, same.clone(), 1.0), (edge, same, 1.0)]


def _why_not_huber(got: Tensor, r: Tensor, delta: float) -> str:
    far = r.abs()
    near, line = r * r / 2, delta * (far - delta / 2)
    right = torch.where(far <= delta, near, line)
    known = {
        "两段放反了：小的用平方，大的用直线。": torch.where(far <= delta, line, near).mean(),
        "大的那一段漏了 −δ/2，在 δ 处接不上。": torch.where(far <= delta, near, delta * far).mean(),
        "没有用参数 delta，总是当成 1。": F.huber_loss(r, torch.zeros_like(r)),
        "没有取平均，给出的是总和。": right.sum(),
        "这是 smooth L1，少乘了一个 δ。": right.mean() / delta,
        "小的那一段漏了二分之一。": torch.where(far <= delta, r * r, line).mean(),
        "条件里看的是 r，负的都算成小的了：看它的绝对值。": torch.where(
            r <= delta, near, line
        ).mean(),
    }
    for text, value in known.items():
        if torch.allclose(got, value, rtol=1e-5, atol=1e-7):
            return text
    return f"delta = {delta} 时不对：应是 {right.mean():.4f}，你的是 {got:.4f}。"


def _huber_slopes(answer: Answer) -> str | None:
    for prediction, target, delta in _pairs():
        leaf = prediction.clone().requires_grad_()
        got = called(answer, leaf, target, delta)
        if not got.requires_grad:
            return "值对，可是和 prediction 断开了，求不了斜率：不要 .item()、.detach()。"
        (g,) = torch.autograd.grad(got, leaf)
        truth = (prediction - target).clamp(-delta, delta) / prediction.numel()
        if not torch.allclose(g, truth, atol=1e-6):
            return "值对，斜率不对：应是 clamp(r, −δ, δ) 除以个数。"
    return None


# —— 二元交叉熵 ——

READY = "用的是现成的损失；这题自己写，先把式子化简成一个对数。"


def bce_with_logits(answer: Answer) -> str | None:
    for z, y in _logits():
        with by_hand(READY, "loss", "with_logits", "cross_entropy_loss") as seen:
            got = answer(z, y)
        require_tensor(got, (), torch.float32)
        truth = F.binary_cross_entropy_with_logits(z, y)
        if not torch.allclose(got, truth, rtol=1e-5, atol=1e-6):
            return _held(got, z, y, seen) or _why_not_bce(got, z, y, truth)
    if wrong := _bce_slopes(answer):
        return wrong
    truth_of = F.binary_cross_entropy_with_logits
    for z, y in _logits()[:4]:
        require_exact(answer, truth_of, {"z": z}, y)
    return None


def _held(got: Tensor, z: Tensor, y: Tensor, seen: Asked) -> str | None:
    """得分或概率被 clamp 截住了，损失涨到一定就不再涨。"""
    if not seen.used("clamp", "clip", "minimum", "maximum", "hardtanh"):
        return None
    tops = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 20, 25, 30, 40, 50, 60, 80, 88, 100, 200, 500)
    for top in tops if z.abs().max() < 50 else ():
        held = F.binary_cross_entropy_with_logits(z.clamp(-top, top), y)
        if torch.allclose(got, held, rtol=1e-5, atol=1e-6):
            return f"z 截在了 ±{top} 之内：外面的损失不再涨，斜率也成了 0。别截。"
    far = F.binary_cross_entropy_with_logits(z, y)
    if z.abs().max() > 50 and 0 < got < far < torch.inf:
        return f"得分是 {z.tolist()} 时，损失应是 {far:g}，你的到 {got:g} 就被截住了：别用 clamp。"
    return None


def _logits() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in ((7,), (3, 5), (2, 2)):
        z = 3 * torch.randn(shape, generator=generator)
        found.append((z, (z + torch.randn(shape, generator=generator) > 0).float()))
    soft = torch.tensor([0.3, 0.9, 0.5, 0.0])
    far = torch.tensor([-1000.0, -100.0, 40.0, 1000.0])
    return [
        *found,
        (torch.tensor([1.5, -0.5, 0.25, 2.0]), soft),
        (torch.zeros(4), soft),
        (far, (far < 0).float()),
        (far, (far > 0).float()),
    ]


def _why_not_bce(got: Tensor, z: Tensor, y: Tensor, truth: Tensor) -> str:
    if z.abs().max() > 50:
        return (
            f"得分是 {z.tolist()} 时，应是 {truth:g}，你的是 {got:g}。"
            "中间有个数大得或小得装不下了：别经过概率，也别直接算 exp(1000)。"
        )
    each = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    known = {
        "没有取平均，给出的是总和。": each.sum(),
        "符号反了，损失应当是正的。": -truth,
        "答案的 0 和 1 弄反了。": F.binary_cross_entropy_with_logits(z, 1 - y),
        "只算了答案是 1 的那一半。": (y * F.softplus(-z)).mean(),
        "漏了 y·z 那一项。": F.softplus(z).mean(),
    }
    for text, value in known.items():
        if torch.allclose(got, value, rtol=1e-5, atol=1e-6):
            return text
    if bool(((y > 0) & (y < 1)).any()):
        return "y 是 0.3 这样的数时不对：它可以是 0 到 1 之间的任何数，不只 0 和 1。"
    return f"值不对：应是 {truth:.4f}，你的是 {got:.4f}。"


def _bce_slopes(answer: Answer) -> str | None:
    for z, y in _logits():
        leaf = z.clone().requires_grad_()
        got = called(answer, leaf, y)
        if not got.requires_grad:
            return "值对，可是和 z 断开了，求不了斜率：不要 .item()、.detach()。"
        (g,) = torch.autograd.grad(got, leaf)
        truth = (z.sigmoid() - y) / z.numel()
        if torch.allclose(g, truth, atol=1e-6):
            continue
        if bool((z == 0).all()):
            return (
                f"值都对，得分是 0 的地方斜率不对：y = 0.3 时应是 0.2/4，你的是 {g[0] * 4:.2g}/4。"
                "clamp、relu、abs 在 0 处是尖角，换成没有尖角的写法。"
            )
        return f"值对，斜率不对：得分 {z.flatten()[0]:g} 处应是 {truth.flatten()[0]:.3g}。"
    return None
