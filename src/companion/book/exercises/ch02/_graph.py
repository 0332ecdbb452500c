"""☆ 账本、看中间、自己写规则、一次问很多、再求一次，这几节的检查器。"""

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import close, error_from, require_number, require_tensor
from companion.book.exercises._watch import Watch

Answer = Callable[..., Any]


class _Page:
    """账本上留下的一个张量；还有人牵着账本，它就活着。"""

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach()


class _Loss:
    """一批的平均损失；每次被叫，数一数前面还有几批的账本活着。"""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.books: list[weakref.WeakSet[_Page]] = []
        self.crowded = 0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        gc.collect()
        self.crowded = max(self.crowded, sum(len(book) > 0 for book in self.books))
        pages: weakref.WeakSet[_Page] = weakref.WeakSet()
        self.books.append(pages)

        def keep(value: Tensor) -> _Page:
            page = _Page(value)
            pages.add(page)
            return page

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda page: page.value):
            return ((x @ self.weight).exp() - y).square().mean()


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
        means = [_Loss(weight)(x, y).item() for x, y in batches]
        total = sum(m * n for m, n in zip(means, sizes, strict=True))
        if not close(got, total / sum(sizes)):
            if close(got, sum(means) / len(means)):
                return "各批一样重了：短的那批多占了分量，乘上张数再除以总张数。"
            return f"{sizes} 张的几批，应是 {total / sum(sizes):.5g}，你得到 {got:.5g}。"
        if loss.crowded > 1:
            return "平均对了，可是前面几批的账本还活着：每批立刻 .item()，别攒张量。"
    return None


def safe_sqrt(answer: Answer) -> str | None:
    for values in ([0.0, 4.0, -1.0, 0.25], [[9.0, -0.0], [1e-6, -7.0]], 2.0, 0.0):
        x = torch.tensor(values, requires_grad=True)
        got = answer(x)
        require_tensor(got, tuple(x.shape), torch.float32)
        positive = x.detach() > 0
        root = x.detach().clamp(min=0).sqrt()
        if not torch.allclose(got, root):
            return f"{values} 的值应是 {root.tolist()}，你得到 {got.tolist()}。"
        if not got.requires_grad:
            return "值对了，可是断开了账本，没有斜率。"
        (slope,) = torch.autograd.grad(got.sum(), x)
        if slope.isnan().any():
            return "值对了，斜率里有 nan：where 挡住的是值，没有挡住账。先挡输入。"
        truth = torch.where(positive, 0.5 / root.where(positive, torch.ones(())), 0.0)
        if not torch.allclose(slope, truth, rtol=1e-4):
            return _wrong_root(slope, positive)
    return None


def _wrong_root(slope: Tensor, positive: Tensor) -> str:
    if slope.isinf().any():
        return "值对了，0 处的斜率是无穷大：不大于 0 的地方，斜率要是 0。"
    if (slope[~positive] != 0).any():
        return "值对了，不大于 0 的地方斜率应是 0。"
    return "大于 0 的地方斜率不对：应是平方根的斜率，别加小数凑。"


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
            return "斜率应处处是 1，传下来多少就交出多少。"
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
            each.append(torch.autograd.grad(_linear_loss(leaf, one, answer_of_one), leaf)[0])
        got = answer(_linear_loss, w, x, y)
        require_tensor(got, (n,), torch.float32)
        if got.requires_grad:
            return "结果还连着账本：它应是普通的数。"
        stacked = torch.stack(each)
        if not torch.allclose(got, stacked.flatten(1).norm(dim=1), rtol=1e-4):
            return _wrong_norms(got, stacked)
    return None


def _linear_loss(w: Tensor, one: Tensor, answer: Tensor) -> Tensor:
    return F.cross_entropy((one @ w)[None], answer[None])


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
    return "不对：第 i 个是第 i 张图的梯度，全部格子平方和开方。"


def hvp(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    runs = []
    for shape in ((3, 2), (3, 2), (12, 12)):
        f = _bent(torch.randn(shape, generator=generator))
        w, v = torch.randn(2, *shape, generator=generator)
        H = torch.autograd.functional.hessian(f, w)
        truth = (H * v).sum((2, 3))
        error = error_from(answer, f, w, v)
        if error is not None and "does not require grad" in str(error):
            return "第一次求斜率少了 create_graph=True，第二次就没有账可走。"
        with Watch() as seen:
            got = answer(f, w, v)
        if isinstance(got, tuple):
            return "返回的是一个元组：torch.autograd.grad 总返回元组，取出里面那个。"
        require_tensor(got, shape, torch.float32)
        if got.requires_grad:
            return "结果还连着账本：第二次不必 create_graph，或者最后 detach()。"
        if not torch.allclose(got, truth, rtol=1e-3, atol=1e-4):
            return _wrong_product(f, got, w, v, truth)
        runs.append((w.numel(), seen))
    return _too_much_work(runs[0], runs[-1])


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
    if torch.allclose(got, H.sum((2, 3)), rtol=1e-3, atol=1e-4):
        return "没有乘 v：对 g.sum() 求的是 H 乘全 1。"
    if torch.allclose(got, g * v, atol=1e-4):
        return "这是 g 和 v 逐个相乘，要的是 (g * v).sum() 对 w 的斜率。"
    ratio = ((got * truth).sum() / truth.square().sum()).item()
    if torch.allclose(got, ratio * truth, rtol=1e-3, atol=1e-4):
        return f"方向对，大小是真值的 {ratio:.3g} 倍：多乘了一个数，或者求了不止一次。"
    return "不对：先求 g，再对 (g * v).sum() 求一次，v 别跟着求导。"
