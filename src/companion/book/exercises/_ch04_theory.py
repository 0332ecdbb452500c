"""第 4 章推导题的检查：不对的答案，认出它错在哪一步。由 ch04 转手。"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from companion.book.exercises._common import require_tensor

SCORES = (1.0, 2.0)  # 题目里的两个得分


def wrong_two_classes(answer: Any) -> str | None:
    """`two_classes` 的判决：p_1，答案是第 1 类时的损失，答案是第 0 类时的损失。"""
    try:
        values = torch.as_tensor(answer, dtype=torch.float64).detach().flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        return "要三个数，写成一个列表，如 [0.10, 0.20, 0.30]。"
    if len(values) != 3:
        return f"要三个数：p_1 和两个损失；你给了 {len(values)} 个。"
    if not all(map(math.isfinite, values)):
        return "三个都应是普通的数，你的里面有 nan 或 inf。"
    p = 1 / (1 + math.exp(SCORES[0] - SCORES[1]))
    truth = [p, -math.log(p), -math.log(1 - p)]
    if _near(values, truth):
        return None
    if not _near(values[:1], truth[:1]):
        return _wrong_share(values[0], p)
    return _wrong_losses(values[1:], truth[1:], p)


def _wrong_share(value: float, p: float) -> str:
    if _near([value], [1 - p]):
        return "第一个数像是 p_0。要的是第 1 类的概率，它的得分大，应过半。"
    if not 0 < value < 1:
        return f"第一个数是概率，应在 0 和 1 之间，你的是 {value:.2f}。"
    if _near([value], [SCORES[1] / sum(SCORES)]):
        return "第一个数像是得分直接占的比例。softmax 先取指数，再求比例。"
    return "第一个数不对。写出 p_1 的分数，分子分母同除以 e 的 z_1 次方，只剩两个得分的差。"


def _wrong_losses(losses: list[float], truth: list[float], p: float) -> str:
    slips = {
        "p_1 对，两个损失反了：答案是得分大的那一类时，损失小。": truth[::-1],
        "p_1 对，损失的符号反了：概率小于 1，ln 是负的，再变号才是损失。": [-v for v in truth],
        "p_1 对，损失像是以 10 为底的对数。公式里的 ln 以 e 为底。": [
            v / math.log(10) for v in truth
        ],
        "p_1 对，损失像是 1 减概率。损失是概率取自然对数再变号。": [1 - p, p],
    }
    for told, slip in slips.items():
        if _near(losses, slip):
            return told
    which = "第 0 类" if _near(losses[:1], truth[:1]) else "第 1 类"
    return f"p_1 对，答案是{which}时的损失不对：正确那一类的概率，取自然对数，再变号。"


def _near(values: list[float], truth: list[float]) -> bool:
    return all(abs(a - b) <= 0.006 for a, b in zip(values, truth, strict=True))


def wrong_l1_step(answer: Callable[..., Any]) -> str | None:
    """`l1_step` 的判决：罚绝对值之和，走一步梯度下降。"""
    for w, g, lr, lam in _steps():
        got = answer(w, g, lr, lam)
        require_tensor(got, tuple(w.shape), w.dtype)
        if _same(got, w - lr * (g + lam * w.sign())):
            continue
        for told, slip in _slips(w, g, lr, lam):
            if _same(got, slip):
                return told
        shape = tuple(w.shape)
        return f"w 形状 {shape}、lr={lr}、lam={lam} 时不对。减的是学习率乘以总的斜率。"
    return None


def _steps() -> Iterator[tuple[Tensor, Tensor, float, float]]:
    """参数有正、有负、有 0，形状几样；有的在内存里不连续。"""
    w = torch.tensor([[3.0, -2.0, 0.25], [-0.5, 1.5, -4.0]])
    g = torch.tensor([[0.5, 1.0, -2.0], [0.25, -1.5, 3.0]])
    yield w[:1], g[:1], 0.1, 2.0
    yield w, g, 0.2, 0.5
    yield w.T, g.T, 0.3, 0.7
    w = torch.tensor([2.0, 0.0, -0.1, 0.0, 0.3])
    yield w, torch.tensor([1.0, -1.0, 0.5, 0.0, 0.4]), 0.5, 0.4  # 末一格会走过 0


def _slips(w: Tensor, g: Tensor, lr: float, lam: float) -> Iterator[tuple[str, Tensor]]:
    """常见的走错，和该说的话。"""
    plain, sign = w - lr * g, w.sign()
    yield "这是总的斜率，还没有走：乘学习率，从 w 里减掉。", g + lam * sign
    yield "这是走的那一步有多大，还没有从 w 里减掉。", lr * (g + lam * sign)
    yield "方向反了：要往斜率的反方向走。", w + lr * (g + lam * sign)
    yield "题目里的 λ 前面没有二分之一。", plain - lr * lam / 2 * sign
    yield "罚项没有进来：减的只有原来的梯度。", plain
    yield "罚项的斜率也要乘学习率。", plain - lam * sign
    yield "这是平方的罚项：减的和 w 成比例。绝对值的斜率只看正负。", plain - lr * lam * w
    yield "加上去的是绝对值本身，不是它的斜率。", plain - lr * lam * w.abs()
    yield "正的负的减得一样，负的离 0 更远了：绝对值在负的一边，斜率是 -1。", plain - lr * lam
    yield "罚项推的方向反了，w 离 0 更远了。", plain + lr * lam * sign
    yield "罚项是总和，不是平均，不用除以个数。", plain - lr * lam * sign / w.numel()
    yield "罚项的斜率要在走之前的 w 上取，你取的是走了半步的。", plain - lr * lam * plain.sign()
    shrunk = plain.sign() * (plain.abs() - lr * lam).relu()
    yield "这是先走再收缩，也是好办法，可题目要的是梯度下降的一步。", shrunk
    yield "w 里有 0 的格不对：那里的斜率取 0。", plain - lr * lam * torch.where(w < 0, -1.0, 1.0)
    yield "w 里有 0 的格不对：那里的斜率取 0。", plain - lr * lam * torch.where(w > 0, 1.0, -1.0)


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6)
