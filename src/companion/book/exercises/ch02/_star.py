"""★ 各节的检查器。斜率的标准答案都由 torch 当场算出。"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import (
    close,
    error_from,
    mutates,
    require_number,
    require_numbers,
    require_tensor,
)
from companion.book.exercises._watch import Counted, Watch, in_time

Answer = Callable[..., Any]
Function = Callable[[Tensor], Tensor]
NOT_MEASURED = "这题要两头各走一步，自己量，不用 torch 的自动求导：f 不记账时，它查不出来。"


def _true_slopes(f: Function, x: Tensor) -> Tensor:
    leaf = x.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(f(leaf), leaf)
    return grad


def numeric_grad(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    cases: tuple[tuple[Function, Tensor], ...] = (
        (lambda x: (x * x).sum(), torch.tensor([1.0, -2.0], dtype=torch.float64)),
        (lambda x: (weights * x).sin().sum() + x.prod(), weights + 1),
        (lambda x: x.exp(), torch.tensor(0.5, dtype=torch.float64)),
        (lambda x: (x**3).sum(), torch.full((2, 1, 2), 2.0, dtype=torch.float64)),
    )
    for f, x in cases:
        truth = _true_slopes(f, x)
        with Watch() as seen:
            got = in_time(answer, Counted(f, 20 * x.numel() + 100), x)
        if seen.differentiated:
            return NOT_MEASURED
        require_tensor(got, tuple(x.shape), torch.float64)
        if not torch.allclose(got, truth, rtol=1e-6, atol=1e-7):
            return _why_not_slopes(f, x, got, truth)
    return _measures(answer) or _respects_step(answer)


def _why_not_slopes(f: Function, x: Tensor, got: Tensor, truth: Tensor) -> str:
    for h in (1e-4, -1e-4):
        if torch.allclose(got, _one_sided(f, x, h), rtol=1e-6, atol=1e-7):
            return "差一点点，约是 h 那么大：只走了一头？两头各走一步，误差小一级。"
    if torch.allclose(got, truth, rtol=1e-2, atol=1e-2):
        return "差一点点：每次都从原来的 x 出发，全程用 float64，不取整。"
    if torch.allclose(got, 2 * truth, rtol=1e-3):
        return "正好大了一倍：两头相距 2h，该除以 2h。"
    if torch.allclose(got, -truth, rtol=1e-3):
        return "符号反了：往前走的减去往后走的。"
    if x.numel() > 1 and torch.allclose(got, truth.sum().expand_as(got), rtol=1e-3):
        return "每一格都是全部斜率之和：一次只动一格。"
    return f"形状 {tuple(x.shape)} 的输入上斜率不对：每次只动一格，动完别的格不变。"


def _one_sided(f: Function, x: Tensor, h: float) -> Tensor:
    moves = torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape) * h
    return torch.stack([(f(x + move) - f(x)) / h for move in moves]).view_as(x)


def _measures(answer: Answer) -> str | None:
    """f 断开了账本：量得出斜率，自动求导查不出。"""
    x = torch.tensor([0.5, -1.0], dtype=torch.float64)
    args = (lambda x: (x.detach() ** 3).sum(), x)
    if error_from(answer, *args) is None:
        got = answer(*args)
        require_tensor(got, (2,), torch.float64)
        if torch.allclose(got, 3 * x * x):
            return None
    return NOT_MEASURED


def _respects_step(answer: Answer) -> str | None:
    """h 是真的用上了：三次函数的误差正好是 h²。"""
    for at in (1.0, -2.0):
        x = torch.tensor([at], dtype=torch.float64)
        got = answer(lambda x: (x**3).sum(), x, 0.5)
        require_tensor(got, (1,), torch.float64)
        truth = 3 * at * at + 0.25
        if not close(got.item(), truth):
            return (
                f"没有照参数 h 走：h = 0.5 时，x³ 在 {at:g} 处两头各走一个 h，"
                f"量出来应是 {truth:g}，你的是 {got.item():.4g}。"
            )
    return None


@mutates(0)
def step(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3, 2, generator=generator).requires_grad_()
    f = _valley(torch.randn(3, 2, generator=generator))
    for rate, stale in ((0.1, False), (0.05, False), (0.1, True)):
        if wrong := _wrong_step(answer, w, f, rate, stale):
            return wrong
    kinds = (((), torch.float32), ((4,), torch.float64), ((2, 1, 3), torch.float32))
    for shape, dtype in kinds:
        start, target = 50 * torch.randn(2, *shape, generator=generator, dtype=dtype)
        if wrong := _wrong_step(answer, start.clone().requires_grad_(), _valley(target), 0.1):
            return f"形状 {tuple(shape)}、{str(dtype).removeprefix('torch.')} 的 w：{wrong}"
    return None


def _valley(target: Tensor) -> Function:
    return lambda w: (w - target).square().sum() + w.sin().sum()


def _wrong_step(
    answer: Answer, w: Tensor, f: Function, rate: float, stale: bool = False
) -> str | None:
    before, pointer = w.detach().clone(), w.data_ptr()
    w.grad = torch.ones_like(w) if stale else None
    slopes, loss = _true_slopes(f, before), f(before).item()
    got = answer(w, f, rate)
    require_number(got, float)
    if wrong := _wrong_leaf(w, pointer):
        return wrong
    rounding = 1e-5 if w.dtype == torch.float32 else 1e-12
    if not torch.allclose(w, before - rate * slopes, rtol=rounding, atol=rounding / 10):
        return _wrong_move(w.detach(), before, rate * slopes, stale)
    if not close(got, loss):
        return f"改对了，返回的损失是 {got:.6g}，走之前的是 {loss:.6g}。"
    return "改对了，可是 w.grad 还留着，下一步会加在它上面。" if w.grad is not None else None


def _wrong_leaf(w: Tensor, pointer: int) -> str | None:
    if not (w.is_leaf and w.requires_grad):
        return "w 不再是要斜率的叶子：改的那一行放进 with torch.no_grad():。"
    if w.data_ptr() != pointer:
        return "w 换了一块内存：要就地改，用 -=，不是造一个新的装进去。"
    return "w 身上留下了钩子，以后每求一次斜率都会叫它。" if w._backward_hooks else None


def _wrong_move(after: Tensor, before: Tensor, move: Tensor, stale: bool) -> str:
    if torch.equal(after, before):
        return "w 一个数也没动：w = w - … 只是让名字指向新张量，就地改用 -=。"
    if torch.allclose(after, before + move, atol=1e-6):
        return "走反了：损失要变小，减去斜率。"
    if stale:
        return "w.grad 里本来有旧的斜率时就走错：求斜率之前先清掉。"
    return "走的这一步不对：应是 w 减去 rate 乘斜率，一次。"


def ledger(answer: Any) -> str | None:
    values = require_numbers(answer, "三", "对 d、对 b、对 a")
    to_d, to_b, to_a = values
    if not close(to_d, 2):
        return "对 d 的不对：e = d·a，d 的斜率是另一个因子 a。"
    if not close(to_b, 4):
        return "对 b 的不对：d 的斜率原样传给 c，c = ab 再乘上 a。"
    if close(to_a, 16):
        return None
    missing = {8: "e = d·a", 10: "e = d·a 和 d = c + a", 14: "e = d·a 和 c = ab", 6: "c = ab"}
    for value, found in {**missing, 2: "d = c + a"}.items():
        if close(to_a, value):
            return f"a 收到的不止这些：你只数了 {found} 分来的，一共有三份，加起来。"
    return "对 a 的不对：e、d、c 各分给它一份，三份加起来。"


def fgsm(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 64, generator=generator) * 16
    x[0, :8], x[1, :8] = 0, 16
    m = torch.rand(10, 64, generator=generator) * 16
    y = torch.tensor([0, 3, 3, 9, 5, 1])
    for n, eps, leaf in ((6, 2, False), (1, 0.5, False), (3, 3, True)):
        m = m.detach().requires_grad_(leaf)
        m.grad = torch.ones_like(m) if leaf else None  # 别处攒下的，不能动
        few, asked = x[:n].clone(), y[:n].clone()
        g = _true_slopes(partial(_digit_loss, m=m.detach(), y=asked), few)
        got = answer(few, m, asked, eps)
        require_tensor(got, tuple(few.shape), torch.float32)
        if got.requires_grad:
            return "交出来的图还连着账本：最后 .detach()。"
        if not torch.allclose(got, (few + eps * g.sign()).clamp(0, 16), atol=1e-5):
            return _wrong_attack(got, few, g, eps)
    return None


def _digit_loss(x: Tensor, m: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(-(x[:, None] - m).square().sum(-1) / 100, y)


def _wrong_attack(got: Tensor, x: Tensor, g: Tensor, eps: float) -> str:
    if torch.allclose(got, (x - eps * g.sign()).clamp(0, 16), atol=1e-5):
        return "方向反了：这次要损失变大，加。"
    if got.min() < 0 or got.max() > 16:
        return "有的格跑到 0 到 16 外面去了：最后 clamp(0, 16)。"
    if torch.allclose(got, (x + eps * g).clamp(0, 16), atol=1e-5):
        return "加的是斜率本身，几乎没动：只要它的正负号，sign()。"
    if (got - x).abs().max() > eps + 1e-4:
        return f"eps = {eps} 时，有的格动了 {(got - x).abs().max():.3g}。"
    return "动的方向不全对：每张图、每一格都看自己那个斜率的正负号。"
