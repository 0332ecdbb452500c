"""☆ 账本、看中间、自己写规则、一次问很多，这几节的检查器。"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import (
    close,
    require_number,
    require_numbers,
    require_tensor,
)

Answer = Callable[..., Any]


class _Page:
    """账本上留下的一个张量；还有人牵着账本，它就活着。"""

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach()


class _Loss:
    """一批的平均损失；每次被叫，记下这批几张，数一数前面还有几批的账本活着。"""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.largest = 0
        self.books: list[weakref.WeakSet[_Page]] = []
        self.crowded = 0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.largest = max(self.largest, len(x))
        if self._alive() > 1:
            gc.collect()  # 环上的也算放掉了；收一次要零点几秒，先看要不要
        self.crowded = max(self.crowded, self._alive())
        pages: weakref.WeakSet[_Page] = weakref.WeakSet()
        self.books.append(pages)

        def keep(value: Tensor) -> _Page:
            page = _Page(value)
            pages.add(page)
            return page

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda page: page.value):
            return ((x @ self.weight).exp() - y).square().mean()

    def _alive(self) -> int:
        return sum(len(book) > 0 for book in self.books)


def mean_loss(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, generator=generator, requires_grad=True)
    for sizes in ((4, 4), (5, 2, 1), (3,)):
        batches = [
            (torch.randn(n, 3, generator=generator), torch.randn(n, generator=generator))
            for n in sizes
        ]
        loss = _Loss(weight)
        got = answer(batches, loss)
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
        if loss.crowded > 1:
            return "平均对了，可是前面几批的账本还活着：每批立刻 .item()，别攒张量。"
    return None


def kept_bytes(answer: Any) -> str | None:
    product, bend, square = require_numbers(answer, "三", "矩阵乘、relu、平方各留下多少字节")
    x, w, h = (4 * rows * columns for rows, columns in ((64, 100), (100, 50), (64, 50)))
    if product != x:
        known = {
            w: "留的不是 w：斜率只要传给 w，规则 xᵀg 用的是 x。",
            x + w: "w 不用留：x 不要斜率，g wᵀ 那一半不必算。",
            h: "留的不是乘出来的结果，是规则 xᵀg 用得着的那个因子。",
            x // 4: "这是个数，不是字节：float32 一个数 4 字节。",
        }
        return f"矩阵乘的不对：{known.get(int(product), '先写出传给 w 的规则，看它用到谁。')}"
    if bend != h:
        few = "这是个数，不是字节。" if bend == h // 4 else "它留一份自己的输出，(64, 50)。"
        return f"矩阵乘的对了，relu 的不对：{few if bend else '规则要知道哪些格是正的。'}"
    if square == h:
        return "前两个对了。平方要用的 h 就是 relu 留下的那一份，同一块内存不留第二次。"
    return None if square == 0 else "前两个对了，平方的不对：它用得着的那个张量，账本上已经有了。"


def safe_sqrt(answer: Answer) -> str | None:
    kinds = (torch.float32, torch.float64, torch.float32, torch.float32)
    cases = ([0.0, 4.0, -1.0, 0.25], [[9.0, -0.0], [1e-6, -7.0]], 2.0, [0.0, 1e-20])
    for values, dtype in zip(cases, kinds, strict=True):
        x = torch.tensor(values, dtype=dtype, requires_grad=True)
        got = answer(x)
        require_tensor(got, tuple(x.shape), dtype)
        positive = x.detach() > 0
        root = x.detach().clamp(min=0).sqrt()
        if not torch.allclose(got, root, atol=0):
            return f"{values} 的值应是 {root.tolist()}，你得到 {got.tolist()}。"
        if not got.requires_grad:
            return "值对了，可是断开了账本，没有斜率。"
        (slope,) = torch.autograd.grad(got.sum(), x)
        if slope.isnan().any():
            return "值对了，斜率里有 nan：where 挡住的是值，没有挡住账。先挡输入。"
        truth = torch.where(positive, 0.5 / root.where(positive, torch.ones_like(root)), 0.0)
        if not torch.allclose(slope, truth, rtol=1e-4):
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
    for shape, limit in (((4,), 0.5), ((2, 3), 100.0), ((), 0.25), ((3, 2), 1.0)):
        x = torch.randn(shape, generator=generator, requires_grad=True)
        g, elsewhere = torch.randn(2, *shape, generator=generator)
        got = answer(x, limit)
        require_tensor(got, shape, torch.float32)
        if not torch.allclose(got, x, atol=1e-6):
            return "值变了：正着走时原样交出 x，只在往回走时动手。"
        if not got.requires_grad:
            return "值对了，可是断开了账本，往回走到不了 x。"
        (slope,) = torch.autograd.grad(
            (got * g).sum() + (x * elsewhere).sum(), x, retain_graph=True
        )
        if not torch.allclose(slope, _clipped(g, limit) + elsewhere, atol=1e-5):
            return _wrong_clip(slope, g, elsewhere, limit)
        (slope,) = torch.autograd.grad(got.sum() * 0, x)
        if slope.isnan().any():
            return "传来的斜率全是 0 时，交出了 nan：0 除以 0。长度没有超过 limit，就原样。"
    return None


def _clipped(g: Tensor, limit: float) -> Tensor:
    shorter: float = min(1.0, limit / g.norm().item())
    return g * shorter


def _wrong_clip(slope: Tensor, g: Tensor, elsewhere: Tensor, limit: float) -> str:
    if torch.allclose(slope, _clipped(g + elsewhere, limit), atol=1e-5):
        return "x 在别处的斜率也被缩了：钩子挂在了 x 自己身上，该挂在它的一份副本上。"
    through, size = slope - elsewhere, g.norm()
    known = {
        "超过 limit 的没有缩。": g,
        "每一格各截各的，方向就变了：整个乘上同一个数。": g.clamp(-limit, limit),
        "没有超过 limit 的也动了：短的要原样。": g * limit / size,
        "长度该用 2-范数，你用的是 1-范数。": g * min(1.0, limit / g.abs().sum().item()),
        "长度该用 2-范数，你用的是最大的那一格。": g * min(1.0, limit / g.abs().max().item()),
        "长的变成了长度 1，该缩到 limit。": g * min(1.0, 1 / size.item()),
    }
    for text, value in known.items():
        if torch.allclose(through, value, atol=1e-5):
            return f"值对了，斜率不对：{text}"
    return f"值对了，斜率不对：长度 {size:.3g}、limit {limit:g} 时，乘上 min(1, limit / 长度)。"


def ste(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((), (5,), (3, 4)):
        x = torch.randn(shape, generator=generator) * 3
        if shape == (5,):
            x[:3] = torch.tensor([0.5, 2.5, -1.5])  # 恰好一半
        x.requires_grad_()
        got = answer(x)
        require_tensor(got, shape, torch.float32)
        if not torch.allclose(got, x.round(), atol=1e-6):
            return "值不对：应是 x.round()，恰好一半时舍到偶数。"
        if not got.requires_grad:
            return "值对了，可是断开了账本：只断开“真值减直线”那一截。"
        weights = torch.randn(shape, generator=generator)
        (slope,) = torch.autograd.grad((got * weights).sum(), x)
        if torch.equal(slope, torch.zeros_like(slope)):
            return "值对了，斜率是 0：round 的斜率处处是 0，要假装它是 x 自己。"
        if not torch.allclose(slope, weights):
            if torch.allclose(slope, (ratio := (slope / weights).mean()) * weights):
                return f"值对了，斜率成了 {ratio:.3g}：应处处是 1，传下来多少就交出多少。"
            return "值对了，斜率只在一部分格上是 1：应处处是 1。"
    return None


def per_sample_norms(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for n, k in ((6, 3), (1, 2)):
        w = torch.randn(4, k, generator=generator)
        x = torch.randn(n, 4, generator=generator)
        y = torch.randint(0, k, (n,), generator=generator)
        each = []
        for one, answer_of_one in zip(x, y, strict=True):
            leaf = w.clone().requires_grad_()
            each.append(torch.autograd.grad(_bent_loss(leaf, one, answer_of_one), leaf)[0])
        got = answer(_bent_loss, w, x, y)
        require_tensor(got, (n,), torch.float32)
        if got.requires_grad:
            return "结果还连着账本：它应是普通的数。"
        stacked = torch.stack(each)
        if not torch.allclose(got, stacked.flatten(1).norm(dim=1), rtol=1e-4):
            return _wrong_norms(got, stacked)
    return None


def _bent_loss(w: Tensor, one: Tensor, answer: Tensor) -> Tensor:
    """梯度的秩不是 1：秩是 1 的，矩阵的几种范数都一样大，分不出用的是哪一种。"""
    return F.cross_entropy((one @ w.sin())[None], answer[None])


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
    for kind, name in ((2, "谱范数"), ("nuc", "核范数")):
        if torch.allclose(got, torch.linalg.matrix_norm(each, kind), rtol=1e-4):
            return f"这是矩阵的{name}；要的是全部格子平方和开方，先 flatten() 再取。"
    return "不对：第 i 个是第 i 张图的梯度，全部格子平方和开方。"
