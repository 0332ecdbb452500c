"""☆ 动手、最少动多少两节的检查器。"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import error_from, require_number, require_tensor
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
        shapes = tuple(tuple(int(n) for n in shape) for shape in answer)
    except (TypeError, ValueError):
        return None
    return shapes if len(shapes) == 3 else None


class _AskedTooOften(Exception):
    """问父亲的次数远超结果的个数：同一个结果去了一次又一次。"""


class _Node:
    """和读者的 `Var` 一样用：有 data、grad、parents、rule；还数着 parents 被读了几次。"""

    reads_left: ClassVar[float] = math.inf

    def __init__(self, data: Tensor, parents: tuple["_Node", ...] = ()) -> None:
        self.data, self.grad = data, None
        self._parents = parents
        self.rule: Callable[[Tensor], tuple[Tensor, ...]] = lambda g: ()

    @property
    def parents(self) -> tuple["_Node", ...]:
        _Node.reads_left -= 1
        if _Node.reads_left < 0:
            raise _AskedTooOften
        return self._parents

    def __deepcopy__(self, memo: object) -> "_Node":
        return self  # 两万层的一串，逐层抄会撞上递归的上限


def tanh(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for shape, dtype in (((), torch.float32), ((3,), torch.float64), ((2, 5), torch.float32)):
        u = torch.randn(shape, generator=generator, dtype=dtype) * 2
        g = torch.randn(shape, generator=generator, dtype=dtype)
        node = _Node(u)
        result = answer(node)
        if wrong := _not_a_var(result, node):
            return wrong
        require_tensor(result.data, shape, dtype)
        if not torch.allclose(result.data, u.tanh(), atol=1e-6):
            return "值不对：应是 a.data.tanh()。"
        shares = result.rule(g)
        if not isinstance(shares, tuple | list) or len(shares) != 1:
            return "规则要返回一个元组，一个父亲一项，别忘了末尾的逗号。"
        if isinstance(shares[0], Tensor) and shares[0].dtype != dtype:
            return f"收到 {dtype} 的斜率，交出去成了 {shares[0].dtype}：规则里别换 dtype。"
        require_tensor(shares[0], shape)
        if not torch.allclose(shares[0], g * (1 - u.tanh() ** 2), atol=1e-5):
            return _wrong_share(shares[0], u, g)
    return None


def _not_a_var(result: Any, node: _Node) -> str | None:
    if not all(hasattr(result, name) for name in ("data", "parents", "rule")):
        return f"要返回一个 Var，你返回的是 {type(result).__name__}。"
    if len(result.parents) != 1 or result.parents[0] is not node:
        return "父亲应是传进来的那个 a，写成 (a,)。"
    return None if callable(result.rule) else "没有写规则：Var 的第三个参数。"


def _wrong_share(share: Tensor, u: Tensor, g: Tensor) -> str:
    t = u.tanh()
    known = {
        "1 减的是输入的平方，该是输出的平方。": g * (1 - u**2),
        "漏了传回来的 g，要乘上它。": 1 - t**2,
        "只把 g 传了下去，没有乘这一步的斜率。": g,
        "少了平方。": g * (1 - t),
        "符号反了。": -g * (1 - t**2),
    }
    for text, value in known.items():
        if torch.allclose(share, value, atol=1e-5):
            return f"规则不对：{text}"
    return "规则不对：g 乘上 1 减输出的平方。"


def in_order_flat(answer: Answer) -> str | None:
    limit = sys.getrecursionlimit()
    for name, last in _graphs():
        error = _error_within(40 * len(_reachable(last)) + 1000, answer, last)
        if sys.getrecursionlimit() != limit:
            sys.setrecursionlimit(limit)
            return "把递归的上限调高了，账本再深一点还是会撞上：不要递归，自己管一个列表当栈。"
        if isinstance(error, RecursionError):
            return f"{name}：撞上了 Python 的递归上限。自己管一个列表当栈，不要递归。"
        if isinstance(error, _AskedTooOften):
            return f"{name}：同一个结果去了不止一次，路一分岔就走不完：记下见过谁，不再去。"
        order = answer(last)
        if not isinstance(order, list | tuple):
            return f"要返回一个列表，你返回的是 {type(order).__name__}。"
        if wrong := _wrong_order(list(order), last):
            return f"{name}：{wrong}"
    return None


def _error_within(reads: int, answer: Answer, last: _Node) -> BaseException | None:
    """读者的函数抛出的异常；`parents` 最多许它读这么多次，再读就抛 `_AskedTooOften`。"""
    _Node.reads_left = reads
    try:
        return error_from(answer, last)
    finally:
        _Node.reads_left = math.inf


def _graphs() -> list[tuple[str, _Node]]:
    one = torch.ones(())
    a, b = _Node(one), _Node(one)
    c = _Node(one, (a, b))
    fork = _Node(one, (c, a))
    d, e = _Node(one, (a,)), _Node(one, (b,))
    crossed = _Node(one, (_Node(one, (d, _Node(one, (e, d)))), e))
    doubled = _Node(one)
    for _ in range(40):
        doubled = _Node(one, (doubled, doubled))
    deep = _Node(one)
    for _ in range(20_000):
        deep = _Node(one, (deep,))
    late = _Node(one, (a, _Node(one, (_Node(one, (a,)),))))
    return [
        ("只有一个结果", a),
        ("d = ab + a", fork),
        ("两条路长短不同", late),
        ("几条路交叉", crossed),
        ("翻倍 40 次", doubled),
        ("两万层", deep),
    ]


def _wrong_order(order: list[Any], last: _Node) -> str | None:
    place: dict[int, int] = {}
    for at, node in enumerate(order):
        if not isinstance(node, _Node):
            return f"列表里要放结果本身，第 {at} 项是 {type(node).__name__}。"
        if id(node) in place:
            return "有的结果出现了两次。"
        place[id(node)] = at
    everyone = _reachable(last)
    if len(order) != len(everyone):
        return f"排出 {len(order)} 个，能走到的有 {len(everyone)} 个，连 last 自己也算。"
    if any(place[id(p)] > place[id(node)] for node in order for p in node.parents):
        return "有的父亲排在孩子后面。"
    return None


def _reachable(last: _Node) -> set[int]:
    seen, stack = set(), [last]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            stack += node.parents
    return seen


def audit(answer: Answer) -> str | None:
    for machine in (_machine(), _machine(by_count=True)):
        got = answer(machine)
        require_number(got, bool)
        if not got:
            return "冤枉了一台对的机器：它在哪张图上都和 torch 一样。先核对你手算的斜率。"
    for what, machine in BROKEN.items():
        got = answer(machine)
        require_number(got, bool)
        if got:
            return f"放过了一台坏机器：{what}"
    return None


def _sum_back(g: Tensor, shape: torch.Size) -> Tensor:
    return g.sum_to_size(shape)


def _mean_back(g: Tensor, shape: torch.Size) -> Tensor:
    return g.sum_to_size(shape) * shape.numel() / g.numel()


def _machine(
    back: Callable[[Tensor, torch.Size], Tensor] = _sum_back,
    add: bool = True,
    wait: bool = True,
    by_count: bool = False,
) -> Callable[[Any], None]:
    """一台往回走的机器；四个参数各管一处，坏的那台拨错其中一个。"""

    def hand_down(node: Any) -> Iterator[Any]:
        for parent, g in zip(node.parents, node.rule(node.grad), strict=True):
            g = back(g, parent.data.shape)
            parent.grad = parent.grad + g if add and parent.grad is not None else g
            yield parent

    def at_once(node: Any, seen: set[int]) -> None:
        for parent in hand_down(node):
            if id(parent) not in seen:
                seen.add(id(parent))
                at_once(parent, seen)

    def backward(last: Any) -> None:
        last.grad = torch.ones_like(last.data)
        if not wait:
            at_once(last, {id(last)})
            return
        for node in _by_count(last) if by_count else reversed(_in_order(last)):
            for _ in hand_down(node):
                pass

    return backward


def _in_order(last: Any) -> list[Any]:
    order, seen, stack = [], set(), [(last, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(parent, False) for parent in node.parents]
    return order


def _by_count(last: Any) -> Iterator[Any]:
    """另一种对的次序：用到它的都走过了，才轮到它。"""
    waiting = Counter(id(parent) for node in _in_order(last) for parent in node.parents)
    ready = [last]
    while ready:
        yield (node := ready.pop(0))
        for parent in node.parents:
            waiting[id(parent)] -= 1
            if not waiting[id(parent)]:
                ready.append(parent)


BROKEN = {
    "后到的斜率盖掉先到的。让一个数走两条路，再和手算的比。": _machine(add=False),
    "没等收齐就往回传。走两条路的若只是叶子，看不出来；让一个中间结果也走两条路。": (
        _machine(wait=False)
    ),
    "广播拉长的维没有加回去，斜率和主人不同形状。用一次广播，形状也要比。": (
        _machine(back=lambda g, shape: g)
    ),
    "广播拉长的维求了平均，该求和。用一次广播，数也要比。": _machine(back=_mean_back),
}


def network_grads(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for n, hidden, classes in ((6, 5, 3), (4, 7, 4)):
        x = torch.randn(n, 8, generator=generator)
        y = torch.randint(0, classes, (n,), generator=generator)
        sizes = ((8, hidden), (hidden,), (hidden, classes), (classes,))
        params = [torch.randn(size, generator=generator) for size in sizes]
        params[0][:, 0] = params[1][0] = 0  # 第 0 个正好踩在 relu 的尖角上
        truth = _network_truth(x, y, params)
        with Watch() as seen:
            got = answer(x, F.one_hot(y, classes).float(), *params)
        if seen.differentiated:
            return "用到了 torch 的自动求导；这题要用你自己的机器，或者公式。"
        if not isinstance(got, list | tuple) or len(got) != 4:
            return "要返回四个张量：w1、b1、w2、b2 的梯度。"
        for name, grad, right in zip(("w1", "b1", "w2", "b2"), got, truth, strict=True):
            if isinstance(grad, Tensor) and grad.shape != right.shape:
                return (
                    f"{name} 的梯度应和它同形状 {tuple(right.shape)}，你的是 {tuple(grad.shape)}。"
                )
            require_tensor(grad, tuple(right.shape), torch.float32)
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
    where = (
        "先查第二层：它离损失近。" if name in ("w2", "b2") else "第一层隔着 relu：恰好是 0 处给 0。"
    )
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
