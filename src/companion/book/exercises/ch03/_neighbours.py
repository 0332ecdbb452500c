"""☆ 只改邻居，不碰它：三道题的检查器。"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import Wrong, may_be_nan, numbered, require_tensor
from companion.book.exercises.ch03._exact import CUT, by_hand, called, require_exact

Answer = Callable[..., Any]
DIMS = {
    "BatchNorm2d": {0, 2, 3},
    "LayerNorm": {1, 2, 3},
    "InstanceNorm2d": {2, 3},
    "GroupNorm": {2, 3, 4},
}


def norm_dims(answer: Any) -> str | None:
    given = _dims(answer)
    for (name, truth), dims in zip(DIMS.items(), given, strict=True):
        if set(dims) == truth and len(dims) == len(truth):
            continue
        ndim = 5 if name == "GroupNorm" else 4
        if not dims or not set(dims) <= set(range(ndim)) or len(set(dims)) < len(dims):
            return f"{name} 那一份写成了 {dims}：维是 0 到 {ndim - 1}，不重复，至少一维。"
        return f"{name} 的不对：{_why_not_dims(name, set(dims), ndim)}"
    return None


def _dims(answer: Any) -> list[tuple[int, ...]]:
    try:
        given = [tuple(int(d) for d in dims) for dims in answer]
        whole = all(int(d) == d for dims in answer for d in dims)
    except (TypeError, ValueError):
        raise Wrong(f"要四个元组，每个是几个整数；你给的是 {type(answer).__name__}。") from None
    if len(given) != len(DIMS) or not whole:
        raise Wrong(f"要四个元组，每个是几个整数；你给了 {len(given)} 个。")
    ndims = (4, 4, 4, 5)
    return [
        tuple(d + n if -n <= d < 0 else d for d in dims)
        for dims, n in zip(given, ndims, strict=True)
    ]


def _why_not_dims(name: str, dims: set[int], ndim: int) -> str:
    if dims == set(range(ndim)) - DIMS[name]:
        return "你写的是留下的维，要的是平均掉的维。"
    if name == "BatchNorm2d":
        return "每个通道一份平均，这一批的图全算在内，通道那一维留着。"
    if 0 in dims:
        return "它不跨图取平均，第 0 维要留着。"
    if name == "LayerNorm":
        return "一张图一份平均，通道也平均掉。"
    if name == "InstanceNorm2d":
        return "一张图的一个通道一份平均，只平均掉高和宽。"
    return "摆成 (8, 3, 2, 5, 5)，留着图和组，组里的 2 个通道、高和宽都平均掉。"


# —— 丢弃 ——


@may_be_nan
def dropout(answer: Answer) -> str | None:
    if wrong := _kept_as_is(answer):
        return wrong
    torch.manual_seed(0)
    for p in (0.3, 0.75):
        x = numbered(300, 100) * 0.013 - 200.123
        if wrong := _not_dropped(answer, x, p) or _not_independent(answer, x, p):
            return wrong
    return _ends(answer) or _cut(answer)


def _inputs() -> tuple[Tensor, ...]:
    """各种样子的输入：方的、一行的、一维的、有重复的、不连续的、双精度的。"""
    plain = numbered(4, 6) * 0.7 - 5.1
    return (
        plain,
        plain[:1],
        plain[:, :4].contiguous(),
        plain.mT,
        torch.tensor([2.5, -1.0, 2.5, -1.0]),
        (plain.double() / 3).view(2, 3, 4),  # float32 装不下原样
    )


def _kept_as_is(answer: Answer) -> str | None:
    for p in (0.4, 0.0, 1.0):
        for x in (*_inputs(), torch.zeros(3, 2)):
            got = _called(answer, x, p, False)
            if p == 1 and torch.equal(got, torch.zeros_like(x)) and (x != 0).any():
                return "p 是 1，可 training 是假，一个也不丢：先看 training，再看 p。"
            if x.dtype == torch.float64 and torch.equal(got, x.float().double()):
                return "输入是 float64 时只准到第七位：半路转成过 float32，dtype 跟着输入走。"
            if not torch.equal(got, x):
                return "training 是假的时候，结果应和 x 一模一样：既不丢，也不放大缩小。"
    return None


def _called(answer: Answer, x: Tensor, p: float, training: bool) -> Tensor:
    with by_hand("用了现成的 dropout：自己抛硬币，自己放大。", "dropout"):
        got = called(answer, x, p, training)
    require_tensor(got, tuple(x.shape), x.dtype)
    tensor: Tensor = got
    if tensor.isnan().any():
        raise Wrong(
            "p 是 1 的时候出了 nan：1 − p 是 0，除不得，单独处理。"
            if p == 1
            else f"p = {p} 的时候出了 nan：丢掉的应是 0。"
        )
    return tensor


def _not_dropped(answer: Answer, x: Tensor, p: float) -> str | None:
    """每个数要么是 0，要么放大到 1/(1 − p) 倍，比例也对。"""
    got = _called(answer, x, p, True)
    share = (got != 0).double().mean().item()
    if share in (0.0, 1.0):
        return f"p = {p}，training 是真的时候，{'全丢了' if share == 0 else '一个也没丢'}。"
    ratio = (got / x)[got != 0]
    if not torch.allclose(ratio, ratio[:1], rtol=1e-4):
        return "留下的数各放大了不同的倍数，或者挪了地方：每一格只和自己有关。"
    factor, truth = ratio[0].item(), 1 / (1 - p)
    if abs(share - (1 - p)) > 5 * (p * (1 - p) / x.numel()) ** 0.5:
        swapped = "丢和留反了。" if abs(share - p) < 0.02 else ""
        return f"p = {p}，留下的占 {share:.1%}，应是 {1 - p:.0%}。{swapped}"
    if abs(factor - truth) > 1e-3 * truth:
        hint = "没有放大，期望就小了" if abs(factor - 1) < 1e-3 else f"你的是 {factor:.4g} 倍"
        return f"p = {p}，留下的数应放大 {truth:.4g} 倍：{hint}。"
    return None


def _not_independent(answer: Answer, x: Tensor, p: float) -> str | None:
    """每个数单独抛：行与行、列与列、前后、两遍之间都没有关系。"""
    first, again = ((_called(answer, x, p, True) != 0).double() for _ in range(2))
    if torch.equal(first, again):
        return "两遍丢的是同样的位置：每次调用都要重新抛。"
    spread = (p * (1 - p)) ** 0.5
    z = (first - (1 - p)) / spread
    n = z.numel()
    for lines, what in ((z.sum(0) / len(z) ** 0.5, "列"), (z.sum(1) / z.shape[1] ** 0.5, "行")):
        if abs(lines.square().mean() - 1) > 5 * (2 / len(lines)) ** 0.5 or lines.abs().max() > 6:
            return f"同一{what}的数丢得不像各抛各的：每个数单独抛一次，不是一{what}抛一次。"
    flat = z.flatten()
    for lag in (1, z.shape[1], n // 2):
        if abs((flat[lag:] * flat[:-lag]).sum()) > 5 * (n - lag) ** 0.5:
            return "丢不丢看得出规律：每个数单独抛，互不相干。"
    if abs((z * (again - (1 - p)) / spread).sum()) > 5 * n**0.5:
        return "后一遍看得出前一遍：每次调用都要重新抛。"
    totals = torch.stack([(_called(answer, x[:1], p, True) != 0).sum() for _ in range(200)])
    if totals.double().var() < 0.5 * x.shape[1] * p * (1 - p):
        return "每次丢的个数几乎一样多：每个数各抛一次，丢几个是碰运气，不是定好的。"
    return None


def _ends(answer: Answer) -> str | None:
    """p 取两头，以及各种样子的输入。"""
    for x in (*_inputs(), torch.zeros(3, 2)):
        if not torch.equal(_called(answer, x, 0.0, True), x):
            return "p 是 0 的时候，一个也不丢，结果应和 x 一样。"
        gone = _called(answer, x, 1.0, True)
        if (gone != 0).any():
            return "p 是 1 的时候应全丢，结果全是 0。"
        got = _called(answer, x, 0.5, True)
        if not torch.equal(got, torch.where(got != 0, 2 * x, got)):
            return f"形状 {tuple(x.shape)} 的输入上不对：留下的数应是原来的 2 倍（p = 0.5）。"
    return None


def _cut(answer: Answer) -> str | None:
    """斜率：留下的是放大的倍数，丢掉的是 0。"""
    for training, factor in ((False, 1.0), (True, 1 / (1 - 0.25))):
        x = numbered(8, 6).double().requires_grad_()
        got = _called(answer, x, 0.25, training)
        when = f"training 是{'真' if training else '假'}的时候"
        if not got.requires_grad:
            return f"{when}，数对了，可是和 x 断开了，斜率传不回去：{CUT}。"
        (g,) = torch.autograd.grad(got.sum(), x)
        if not torch.allclose(g, (got != 0).double() * factor, rtol=1e-6):
            return f"{when}，数对了，斜率不对：留下的是放大的倍数，丢掉的是 0。"
    return None


# —— RMSNorm ——


NORMS = ("rms_norm", "layer_norm", "group_norm", "batch_norm", "instance_norm", "normalize")


def rms_norm(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 2 + 1

    cases = (
        (1e-3 * draw(3, 4), draw(4), 1e-4),  # 平方只有 eps 那么大，写死的露馅
        (draw(3, 4), draw(4), 1e-6),
        (draw(4, 4), draw(4), 0.5),
        (draw(1, 5), draw(5), 1e-3),
        (draw(2, 3, 4), draw(4), 1e-6),
        (torch.tensor([3.0, -4.0, 3.0]), torch.tensor([2.0, 1.0, 1.0]), 2.0),
        (draw(4, 3).mT, draw(4), 0.1),
        (torch.zeros(2, 3), draw(3), 1e-3),
        (draw(2, 6).double(), draw(6).double(), 0.25),
    )
    for x, weight, eps in cases:
        with by_hand("用了现成的归一化：自己平方、取平均、开方。", *NORMS):
            got = answer(x, weight, eps)
        require_tensor(got, tuple(x.shape), x.dtype)
        truth = F.rms_norm(x, weight.shape, weight, eps)
        if not torch.allclose(got, truth, rtol=1e-4, atol=1e-6):
            return _why_not_rms(got, x, weight, eps)

    def truth_of(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, eps)

    for shape in ((3, 5), (2, 3, 4)):
        leaves = {"x": draw(*shape), "weight": draw(shape[-1])}
        require_exact(answer, truth_of, leaves, 0.25)
    return None


def _why_not_rms(got: Tensor, x: Tensor, weight: Tensor, eps: float) -> str:
    square = x.square()
    size = x.shape[-1]
    mean, total = square.mean(-1, keepdim=True), square.sum(-1, keepdim=True)
    guesses = {
        "没有乘上 weight。": x / (mean + eps).sqrt(),
        "减了均值，那是 LayerNorm；RMSNorm 不减。": F.layer_norm(x, (size,), weight, None, eps),
        "减了均值：公式里的是 x 的平方的平均，不是方差。": (
            x / (x.var(-1, correction=0, keepdim=True) + eps).sqrt() * weight
        ),
        "根号里是平方的和，应是平方的平均。": x / (total + eps).sqrt() * weight,
        "没有用 eps：它在根号里面。": x / mean.sqrt() * weight,
        "eps 不用平方，原样加。": x / (mean + eps * eps).sqrt() * weight,
        "eps 是加上去的，不是下限。": x / mean.clamp(min=eps).sqrt() * weight,
        "eps 放到了根号外面，应在根号里面。": x / (mean.sqrt() + eps) * weight,
        "weight 多加了 1：乘的是 weight，不是 1 + weight。": x / (mean + eps).sqrt() * (1 + weight),
        "没有开方。": x / (mean + eps) * weight,
        "平均取了全部的数，应只取最后一维。": x / (square.mean() + eps).sqrt() * weight,
        "平均取错了维，应取最后一维。": x / (square.mean(0, keepdim=True) + eps).sqrt() * weight,
    }
    for text, guess in guesses.items():
        if torch.allclose(got, guess, rtol=1e-4, atol=1e-6, equal_nan=True):
            return text
    for fixed in (1e-5, 1e-6, 1e-8, 1e-3):
        if torch.allclose(got, x / (mean + fixed).sqrt() * weight, rtol=1e-4, atol=1e-6):
            return f"eps 写死了，像是 {fixed:g}：用参数 eps，这一次它是 {eps:g}。"
    if got.isnan().any():
        return "出了 nan：一行全是 0 的时候，靠 eps 保住分母。"
    return f"形状 {tuple(x.shape)}、eps = {eps} 时结果不对：对着公式看每一步取的是哪一维。"
