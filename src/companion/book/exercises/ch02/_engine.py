"""☆ 动手、最少动多少两节的检查器，不问账本的几题；问账本的在 `_ledgers`。"""

from collections.abc import Callable
from operator import index
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import in_sequence, require_tensor
from companion.book.exercises._watch import Watch

Answer = Callable[..., Any]
Shapes = tuple[tuple[int, ...], ...]


def grad_shapes(answer: Any) -> str | None:
    shapes = _shapes(answer)
    if shapes is None:
        return "要三个元组，依次是 c、a.grad、b.grad 的形状，如 ((2, 3), (2, 3), (3,))。"
    c, a, b = shapes
    if c != (5, 3, 4):
        return "c 的形状不对：(5, 1, 4) 和 (3, 1) 右对齐，逐维取大的。"
    if a == c or b == c:
        return "斜率和它自己的主人同形状，不和 c 同形状：拉长的维要加回去。"
    if a != (5, 1, 4):
        return "a.grad 的形状不对：它和 a 一样。"
    return None if b == (3, 1) else "b.grad 的形状不对：它和 b 一样，原来没有的维也要加掉。"


def _shapes(answer: Any) -> Shapes | None:
    try:
        shapes = tuple(tuple(map(_whole, in_sequence(shape))) for shape in in_sequence(answer))
    except (TypeError, ValueError):
        return None
    return shapes if len(shapes) == 3 else None


def _whole(n: Any) -> int:
    if isinstance(n, bool):
        raise TypeError
    return index(n)


def network_grads(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for n, hidden, classes in ((6, 5, 3), (4, 7, 4), (1, 3, 2)):
        x = torch.randn(n, 8, generator=generator)
        y = torch.randint(0, classes, (n,), generator=generator)
        sizes = ((8, hidden), (hidden,), (hidden, classes), (classes,))
        params = [torch.randn(size, generator=generator) for size in sizes]
        params[0][:, 0] = params[1][0] = 0  # 第 0 个正好踩在 relu 的尖角上
        truth = _network_truth(x, y, params)
        args = (x, F.one_hot(y, classes).float(), *params)
        with Watch() as seen:
            got = answer(*args)
        if seen.differentiated or _keeps_books(answer, *args):
            return "用到了 torch 的自动求导；这题要用你自己的机器，或者公式。"
        if not isinstance(got, list | tuple) or len(got) != 4:
            return "要返回四个张量：w1、b1、w2、b2 的梯度。"
        if wrong := _wrong_gradients(got, truth, n):
            return wrong
    return None


def _keeps_books(answer: Answer, *args: Any) -> bool:
    """torch 为往回走留过张量。换一种看法：绕过 `Watch` 直接叫引擎的，也看得见。"""
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        answer(*args)
    return bool(kept)


def _wrong_gradients(got: Any, truth: tuple[Tensor, ...], n: int) -> str | None:
    triples = list(zip(("w1", "b1", "w2", "b2"), got, truth, strict=True))
    for name, grad, right in triples:
        if isinstance(grad, Tensor) and grad.shape != right.shape:
            return f"{name} 的梯度应和它同形状 {tuple(right.shape)}，你的是 {tuple(grad.shape)}。"
        require_tensor(grad, tuple(right.shape), torch.float32)
        if grad.requires_grad:
            return f"{name} 的梯度还连着账本：要普通张量。"
    for name, grad, right in reversed(triples):  # 先看离损失近的：它错了，前面的多半跟着错
        if not torch.allclose(grad, right, atol=1e-5):
            return _wrong_network(name, grad, right, n)
    return None


def _network_truth(x: Tensor, y: Tensor, params: list[Tensor]) -> tuple[Tensor, ...]:
    w1, b1, w2, b2 = leaves = [p.clone().requires_grad_() for p in params]
    return torch.autograd.grad(F.cross_entropy((x @ w1 + b1).relu() @ w2 + b2, y), leaves)


def _wrong_network(name: str, grad: Tensor, right: Tensor, n: int) -> str:
    if torch.allclose(grad, right * n, atol=1e-4):
        return f"{name} 的梯度正好大了 n 倍：损失是平均，忘了除以张数。"
    ratio = ((grad * right).sum() / right.square().sum()).item()
    if 0 < ratio != 1 and torch.allclose(grad, right * ratio, atol=1e-5):
        return f"{name} 的梯度是真值的 {ratio:.3g} 倍：除的是这一批的张数 {n} 吗？"
    if torch.allclose(grad, -right, atol=1e-5):
        return f"{name} 的梯度符号反了：交叉熵前面有个负号。"
    where = "第一层隔着 relu：正的格给 1，负的、恰好是 0 的给 0。"
    if name in ("w2", "b2"):
        where = "先查第二层：它离损失近。"
    return f"{name} 的梯度不对。{where}"


def smallest_budget(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    cases = [
        (torch.rand(n, 64, generator=generator) * 16, torch.rand(k, 64, generator=generator) * 16)
        for n, k in ((5, 10), (3, 2), (1, 4))
    ]
    for x, m in [*cases, _second_is_not_easiest(), _on_the_border()]:
        distance = (x[:, None] - m).square().sum(-1)
        nearest = distance.argmin(1)
        apart = (m[nearest][:, None] - m).abs().sum(-1)
        each = (distance - distance.amin(1, keepdim=True)) / (2 * apart)
        truth = each.masked_fill(F.one_hot(nearest, len(m)).bool(), float("inf")).amin(1)
        got = answer(x, m)
        require_tensor(got, (len(x),), torch.float32)
        if not torch.allclose(got, truth, rtol=1e-4):
            return _wrong_budget(got, truth, distance, apart)
    return None


def _second_is_not_easiest() -> tuple[Tensor, Tensor]:
    """离第 0 个模板最近；第 1 个第二近，差在一格上；第 2 个远一点，差在每一格，反而容易变成它。"""
    m = torch.full((3, 64), 5.0)
    m[1, 7] += 10
    m[2] += 1.5
    return m[:1] + 0.1, m


def _on_the_border() -> tuple[Tensor, Tensor]:
    """第 0 张离两个模板一样近，一点不动就在界线上；第 1 张不是。"""
    m = torch.stack([torch.full((64,), value) for value in (4.0, 8.0, 15.0)])
    return torch.stack([torch.full((64,), 6.0), m[1] + 1]), m


def _wrong_budget(got: Tensor, truth: Tensor, distance: Tensor, apart: Tensor) -> str:
    if torch.equal(got, torch.zeros_like(got)):
        return "全是 0：自己和自己的那一格混进来了，先填成 inf，再取最小。"
    if torch.allclose(got, 2 * truth, rtol=1e-4):
        return "正好大了一倍：分母里还有个 2。"
    if (truth == 0).any() and not (got[truth == 0] == 0).all():
        return "有一张图离两个模板一样近，答案该是 0：只盖住自己那一格，不是盖住所有的 0。"
    second = distance.topk(2, largest=False)
    near = apart.gather(1, second.indices[:, 1:])[:, 0]
    if torch.allclose(got, (second.values[:, 1] - second.values[:, 0]) / (2 * near), rtol=1e-4):
        return "只看了第二近的模板。最容易变成的不一定是第二近的：每个模板都算，再取最小。"
    return "不对：每个别的模板算一个 ε，分子是平方距离之差，分母是两倍的 1-范数。"
