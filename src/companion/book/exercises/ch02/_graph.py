"""☆ 账本、看中间、自己写规则、一次问很多，这几节的检查器。"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import (
    Wrong,
    close,
    require_number,
    require_numbers,
    require_tensor,
)
from companion.book.exercises._watch import Counted, in_time

Answer = Callable[..., Any]


def _slope(result: Tensor, x: Tensor, g: Tensor, **options: bool) -> Tensor:
    """从 `result` 收到斜率 g，往回走到 x；走不通，或者读者的规则、钩子出错，就判错。"""
    if not result.requires_grad:
        raise Wrong("值对了，可是断开了账本，往回走到不了 x。")
    given = g.clone()
    try:
        (slope,) = torch.autograd.grad(result, x, given, allow_unused=True, **options)
    except Exception as error:  # 读者的规则和钩子，什么都可能抛
        message = next(iter(str(error).splitlines()), "")
        raise Wrong(f"值对了，往回走时出错了：{type(error).__name__}: {message}") from error
    if slope is None:
        raise Wrong("值对了，可是断开了账本，往回走到不了 x。")
    if not torch.equal(given, g):
        raise Wrong("就地改了传来的斜率：它别处还要用，乘出新的再交。")
    if x._backward_hooks:
        raise Wrong("钩子留在了 x 自己身上，别处的斜率也归它管：挂在 x 的一份副本上。")
    return slope


class _Page:
    """账本上留下的一个张量；还有人牵着账本，它就活着。"""

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach()


class _Loss:
    """一批的平均损失；每次被叫，记下这批几张，看前面几批的账本放掉了没有。"""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.largest = 0
        self.books: list[weakref.WeakSet[_Page]] = []
        self.crowded = False

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.largest = max(self.largest, len(x))
        if self._hoarding():
            gc.collect()  # 环上的也算放掉了；收一次要零点几秒，先看要不要
        self.crowded = self.crowded or self._hoarding()
        pages: weakref.WeakSet[_Page] = weakref.WeakSet()
        self.books.append(pages)

        def keep(value: Tensor) -> _Page:
            page = _Page(value)
            pages.add(page)
            return page

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda page: page.value):
            return ((x @ self.weight).exp() - y).square().mean()

    def _hoarding(self) -> bool:
        """比上一批更早的，还有账本活着。"""
        return any(len(book) > 0 for book in self.books[:-1])


def mean_loss(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    weight = (0.3 * torch.randn(3, generator=generator)).requires_grad_()
    for sizes in ((4, 4), (5, 2, 1), (3,)):
        batches = [
            (torch.randn(n, 3, generator=generator), torch.randn(n, generator=generator))
            for n in sizes
        ]
        loss = _Loss(weight)
        got = in_time(answer, batches, Counted(loss, 20 * sum(sizes)))
        require_number(got, float)
        left, weight.grad = weight.grad, None
        means = [_Loss(weight)(x, y).item() for x, y in batches]
        total = sum(m * n for m, n in zip(means, sizes, strict=True))
        if not close(got, total / sum(sizes)):
            if close(got, sum(means) / len(means)):
                return "各批一样重了：短的那批多占了分量，乘上张数再除以总张数。"
            return f"{sizes} 张的几批，应是 {total / sum(sizes):.5g}，你得到 {got:.5g}。"
        if left is not None:
            return "平均对了，可是 f 里的参数身上留下了 .grad：要的只是损失的数，不必 backward。"
        if loss.largest > max(sizes):
            return "平均对了，可是把几批拼成了一批，账本有全部那么厚：一批一批地叫 f。"
        if loss.crowded:
            return "平均对了，可是前面几批的账本还活着：每批立刻 .item()，别攒张量。"
    return None


def kept_bytes(answer: Any) -> str | None:
    product, bend, square = require_numbers(answer, "三", "矩阵乘、relu、平方各留下多少字节")
    x, w, h = (4 * rows * columns for rows, columns in ((64, 100), (100, 50), (64, 50)))
    if product != x:
        known: dict[float, str] = {
            w: "留的不是 w：斜率只要传给 w，规则 xᵀg 用的是 x。",
            x + w: "w 不用留：x 不要斜率，g wᵀ 那一半不必算。",
            h: "留的不是乘出来的结果，是规则 xᵀg 用得着的那个因子。",
            x // 4: "这是个数，不是字节：float32 一个数 4 字节。",
        }
        return f"矩阵乘的不对：{known.get(product, '先写出传给 w 的规则，看它用到谁。')}"
    if bend != h:
        few = "这是个数，不是字节。" if bend == h // 4 else "它留一份自己的输出，(64, 50)。"
        return f"矩阵乘的对了，relu 的不对：{few if bend else '规则要知道哪些格是正的。'}"
    if square == h:
        return "前两个对了。平方要用的 h 就是 relu 留下的那一份，同一块内存不留第二次。"
    return None if square == 0 else "前两个对了，平方的不对：它用得着的那个张量，账本上已经有了。"


def safe_sqrt(answer: Answer) -> str | None:
    kinds = (torch.float32, torch.float64, torch.float32, torch.float32)
    cases = ([0.0, 4.0, -1.0, 0.25], [[9.0, -0.0], [1e-200, -7.0]], 2.0, [0.0, 1e-20])
    for values, dtype in zip(cases, kinds, strict=True):
        x = torch.tensor(values, dtype=dtype, requires_grad=True)
        got = answer(x)
        require_tensor(got, tuple(x.shape), dtype)
        positive = x.detach() > 0
        root = x.detach().clamp(min=0).sqrt()
        if not torch.allclose(got, root, atol=0):
            return f"{values} 的值应是 {root.tolist()}，你得到 {got.tolist()}。"
        g = torch.linspace(-2, 3, x.numel(), dtype=dtype).view_as(x)
        slope = _slope(got, x, g)
        if slope.isnan().any():
            return "值对了，斜率里有 nan：where 挡住的是值，没有挡住账。先挡输入。"
        each = torch.where(positive, 0.5 / root.where(positive, torch.ones_like(root)), 0.0)
        if not torch.allclose(slope, g * each, rtol=1e-4):
            if torch.allclose(slope, each, rtol=1e-4):
                return "值对了，斜率漏了传来的那一份：规则要乘上 g。"
            return _wrong_root(slope, positive)
    return None


def _wrong_root(slope: Tensor, positive: Tensor) -> str:
    if slope.isinf().any():
        return "值对了，0 处的斜率是无穷大：不大于 0 的地方，斜率要是 0。"
    if (slope[~positive] != 0).any():
        return "值对了，不大于 0 的地方斜率应是 0。"
    return "大于 0 的地方斜率不对：应是平方根的斜率，别加小数凑。"


def clip_slope(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    kinds = (torch.float32, torch.float32, torch.float32, torch.float64)
    cases = (((4,), 0.5), ((2, 3), 100.0), ((3, 2), 1.0), ((), 0.25))
    for (shape, limit), dtype in zip(cases, kinds, strict=True):
        x = torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
        g, elsewhere = torch.randn(2, *shape, generator=generator, dtype=dtype)
        got = answer(x, limit)
        require_tensor(got, shape, dtype)
        if not torch.equal(got, x):
            return "值变了：正着走时原样交出 x，只在往回走时动手。"
        slope = _slope(got, x, g, retain_graph=True)
        if not torch.allclose(slope, _clipped(g, limit), atol=1e-5):
            return _wrong_clip(slope, g, limit)
        if wrong := _not_alone(got, x, g, elsewhere, limit):
            return wrong
    return _two_limits(answer)


def _not_alone(got: Tensor, x: Tensor, g: Tensor, elsewhere: Tensor, limit: float) -> str | None:
    """同一个结果再往回走两次：一次 x 别处也收到斜率，一次传来的全是 0。"""
    both = (got * g).sum() + (x * elsewhere).sum()
    slope = _slope(both, x, torch.ones_like(both), retain_graph=True)
    if not torch.allclose(slope, _clipped(g, limit) + elsewhere, atol=1e-5):
        if torch.allclose(slope, _clipped(g + elsewhere, limit), atol=1e-5):
            return "x 在别处的斜率也被缩了：钩子挂在了 x 自己身上，该挂在它的一份副本上。"
        return "第一次往回走是对的，同一本账第二次走就不对：每次传来的都要缩，钩子别摘掉。"
    if _slope(got, x, torch.zeros_like(g)).isnan().any():
        return "传来的斜率全是 0 时，交出了 nan：0 除以 0。长度没有超过 limit，就原样。"
    return None


def _two_limits(answer: Answer) -> str | None:
    x = torch.tensor([3.0, -4.0], requires_grad=True)
    first, second = answer(x, 1.0), answer(x, 2.0)
    g = torch.tensor([3.0, 4.0])
    for limit, result in ((1.0, first), (2.0, second)):
        if not torch.allclose(_slope(result, x, g), _clipped(g, limit), atol=1e-5):
            return "用了两个不同的 limit，就串了：每一次用自己收到的 limit，别放在全局。"
    return None


def _clipped(g: Tensor, limit: float) -> Tensor:
    shorter: float = min(1.0, limit / g.norm().item())
    return g * shorter


def _wrong_clip(through: Tensor, g: Tensor, limit: float) -> str:
    size = g.norm()
    known = {
        "超过 limit 的没有缩。": g,
        "每一格各截各的，方向就变了：整个乘上同一个数。": g.clamp(-limit, limit),
        "没有超过 limit 的也动了：短的要原样。": g * limit / size,
        "长度该用 2-范数，你用的是 1-范数。": g * min(1.0, limit / g.abs().sum().item()),
        "长度该用 2-范数，你用的是最大的那一格。": g * min(1.0, limit / g.abs().max().item()),
        "长的变成了长度 1，该缩到 limit。": g * min(1.0, 1 / size.item()),
    }
    if g.ndim == 2:
        rows = g.norm(dim=1, keepdim=True)
        known["一行一行各缩各的，方向就变了：整个乘上同一个数。"] = g * (limit / rows).clamp(max=1)
        spectral = torch.linalg.matrix_norm(g, 2).item()
        known["这是矩阵的谱范数；要全部格子平方和开方。"] = g * min(1.0, limit / spectral)
    for text, value in known.items():
        if torch.allclose(through, value, atol=1e-5):
            return f"值对了，斜率不对：{text}"
    return f"值对了，斜率不对：长度 {size:.3g}、limit {limit:g} 时，乘上 min(1, limit / 长度)。"


def ste(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    kinds = (torch.float32, torch.float64, torch.float32)
    for shape, dtype in zip(((), (5,), (3, 4)), kinds, strict=True):
        x = torch.randn(shape, generator=generator, dtype=dtype) * 3
        if shape == (5,):
            x[:] = torch.tensor([0.5, 2.5, -1.5, 1000.3, 2.0**30 + 1.3], dtype=dtype)
        x.requires_grad_()
        got = answer(x)
        require_tensor(got, shape, dtype)
        if not torch.allclose(got, x.round(), rtol=0, atol=2e-6):
            return "值不对：应是 x.round()，恰好一半时舍到偶数。"
        weights = torch.randn(shape, generator=generator, dtype=dtype)
        slope = _slope(got, x, weights, retain_graph=True)
        if torch.equal(slope, torch.zeros_like(slope)):
            return "值对了，斜率是 0：round 的斜率处处是 0，要假装它是 x 自己。"
        if not torch.allclose(slope, weights):
            if torch.allclose(slope, (ratio := (slope / weights).mean()) * weights):
                return f"值对了，斜率成了 {ratio:.3g}：应处处是 1，传下来多少就交出多少。"
            return "值对了，斜率只在一部分格上是 1：应处处是 1。"
        if _own_rules(got):
            return "值和斜率都对，可是写了一个 Function：这题只用 detach()，一行。"
    return None


def _own_rules(result: Tensor) -> bool:
    """账本上有读者自己写的规则。"""
    steps, seen = [result.grad_fn], set()
    while steps:
        step = steps.pop()
        if isinstance(step, torch.autograd.function.BackwardCFunction):
            return True
        if step is not None and step not in seen:
            seen.add(step)
            steps += [before for before, _ in step.next_functions]
    return False


def per_sample_norms(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.tensor([0, 2, 1, 1, 0, 1])  # 倒过来不一样
    cases = (
        (_bent_loss, (4, 3), classes),
        (_bent_loss, (4, 2), torch.tensor([1])),
        (_far_loss, (4,), torch.tensor([1.0, -2.0, 0.5])),
        (_far_loss, (2, 3, 4), torch.tensor([3.0, 0.0])),
    )
    for f, shape, y in cases:
        w = torch.randn(shape, generator=generator)
        x = torch.randn(len(y), 4, generator=generator)
        each = []
        for one, answer_of_one in zip(x, y, strict=True):
            leaf = w.clone().requires_grad_()
            each.append(torch.autograd.grad(f(leaf, one, answer_of_one), leaf)[0])
        got = answer(f, w, x, y)
        require_tensor(got, (len(y),), torch.float32)
        if got.requires_grad:
            return "结果还连着账本：它应是普通的数。"
        stacked = torch.stack(each)
        if not torch.allclose(got, stacked.flatten(1).norm(dim=1), rtol=1e-4):
            return _wrong_norms(got, stacked)
    return None


def _bent_loss(w: Tensor, one: Tensor, answer: Tensor) -> Tensor:
    """梯度的秩不是 1：秩是 1 的，矩阵的几种范数都一样大，分不出用的是哪一种。"""
    return F.cross_entropy((one @ w.sin())[None], answer[None])


def _far_loss(w: Tensor, one: Tensor, answer: Tensor) -> Tensor:
    """w 是几维的都行，最后一维和图一样长。"""
    return ((w.sin() * one).sum() - answer).square()


def _wrong_norms(got: Tensor, each: Tensor) -> str:
    size = each.flatten(1).norm(dim=1)
    if torch.allclose(got, size / len(size), rtol=1e-4):
        return "每个都小了 n 倍：像是先对整批求了平均。逐张各算各的损失。"
    if torch.allclose(got, each.mean(0).norm().expand_as(size), rtol=1e-4):
        return "各张都一样：这是平均梯度的长度。先逐张，再取范数。"
    if torch.allclose(got, size**2, rtol=1e-4):
        return "这是平方和，还要开方。"
    if torch.allclose(got, each.cumsum(0).flatten(1).norm(dim=1), rtol=1e-4):
        return "第一个对，后面的累加了前面的：每张算完都要清掉斜率。"
    if torch.allclose(got, each.flatten(1).abs().sum(1), rtol=1e-4):
        return "这是 1-范数；要 2-范数。"
    for kind, name in ((2, "谱范数"), ("nuc", "核范数")) if each.ndim == 3 else ():
        if torch.allclose(got, torch.linalg.matrix_norm(each, kind), rtol=1e-4):
            return f"这是矩阵的{name}；要的是全部格子平方和开方，先 flatten() 再取。"
    return "不对：第 i 个是第 i 张图的梯度，全部格子平方和开方。"
