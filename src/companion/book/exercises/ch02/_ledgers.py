"""☆ 动手一节里问账本的几题的检查器。判题用自己的结果 `_Node`，和读者的 `Var` 一样用。"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from companion.book.exercises._common import Wrong, error_from, require_number, require_tensor
from companion.book.exercises._watch import in_time

Answer = Callable[..., Any]
Rule = Callable[[Tensor], tuple[Tensor, ...]]


class _AskedTooOften(Exception):
    """问父亲的次数远超结果的个数：同一个结果去了一次又一次。"""


class _Node:
    """有 data、grad、parents、rule；还看着 parents 被读了几次，那时递归的上限是多少。"""

    reads_left: ClassVar[float] = math.inf
    highest_limit: ClassVar[int] = 0

    def __init__(
        self, data: Tensor, parents: tuple["_Node", ...] = (), rule: Rule | None = None
    ) -> None:
        self.data = data
        self.grad: Tensor | None = None
        self._parents = self.given = parents
        self.rule: Rule = rule or (lambda g: ())

    @property
    def parents(self) -> tuple["_Node", ...]:
        _Node.reads_left -= 1
        _Node.highest_limit = max(_Node.highest_limit, sys.getrecursionlimit())
        if _Node.reads_left < 0:
            raise _AskedTooOften
        return self._parents

    @parents.setter
    def parents(self, parents: tuple["_Node", ...]) -> None:
        self._parents = parents

    def __deepcopy__(self, memo: object) -> "_Node":
        return self  # 两万层的一串，逐层抄会撞上递归的上限


# —— tanh ——


def tanh(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    made: list[tuple[_Node, Any, Tensor, Tensor]] = []
    for shape, dtype in (((), torch.float32), ((3,), torch.float64), ((2, 5), torch.float32)):
        u = torch.randn(shape, generator=generator, dtype=dtype) * 2
        g = torch.randn(shape, generator=generator, dtype=dtype)
        node = _Node(u.clone())
        result = answer(node)
        if wrong := _not_a_var(result, node, u) or _wrong_rule(result, node, u, g):
            return wrong
        made.append((node, result, u, g))
    for node, result, u, g in made:
        try:
            wrong = _wrong_rule(result, node, u, g)
        except Wrong as error:
            wrong = str(error)
        if wrong:
            return (
                "规则第一次叫是对的，别的 Var 算过之后第二次叫就不对："
                "用这一次自己的 out，不放在全局，不改它，也别用过就丢。"
            )
    return None


def _not_a_var(result: Any, node: _Node, u: Tensor) -> str | None:
    if not torch.equal(node.data, u):
        return "改了 a 的 data：它别处还要用，算出新的装进新的 Var。"
    fields = ("data", "grad", "parents", "rule")
    if not all(hasattr(result, name) for name in fields) or type(result).__hash__ is None:
        return f"要返回一个 Var，你返回的是 {type(result).__name__}。"
    if len(result.parents) != 1 or result.parents[0] is not node:
        return "父亲应是传进来的那个 a，写成 (a,)。"
    if not callable(result.rule):
        return "没有写规则：Var 的第三个参数。"
    require_tensor(result.data, tuple(u.shape), u.dtype)
    if result.grad is not None or result.data.requires_grad:
        return "刚算出来的结果，grad 应是 None，data 也不连着 torch 的账本。"
    return (
        None if torch.allclose(result.data, u.tanh(), atol=1e-6) else "值不对：应是 a.data.tanh()。"
    )


def _wrong_rule(result: Any, node: _Node, u: Tensor, g: Tensor) -> str | None:
    received = g.clone()
    try:
        shares = result.rule(received)
    except Exception as error:  # 读者的规则，什么都可能抛
        raise Wrong(f"叫规则时出错了：{type(error).__name__}: {error}") from error
    if not torch.equal(received, g):
        return "规则就地改了收到的 g：它别处还要用，算出新的再交。"
    if node.grad is not None or not torch.equal(node.data, u):
        return "规则只交出 a 的那一份，不写 a.grad，也不改 a.data：加进去是机器的事。"
    if not torch.allclose(result.data, u.tanh(), atol=1e-6):
        return "叫过一次规则，结果的 data 就变了：里面有就地的运算，名字末尾带 _ 的。"
    if not isinstance(shares, tuple | list) or len(shares) != 1:
        return "规则要返回一个元组，一个父亲一项，别忘了末尾的逗号。"
    if isinstance(shares[0], Tensor) and shares[0].dtype != g.dtype:
        return f"收到 {g.dtype} 的斜率，交出去成了 {shares[0].dtype}：规则里别换 dtype。"
    require_tensor(shares[0], tuple(u.shape))
    right = torch.allclose(shares[0], g * (1 - u.tanh() ** 2), atol=1e-5)
    return None if right else _wrong_share(shares[0], u, g)


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


# —— in_order_flat ——


def in_order_flat(answer: Answer) -> str | None:
    limit = sys.getrecursionlimit()
    for name, last in _graphs():
        _Node.highest_limit = limit
        order, error = _first_order(answer, last)
        if max(_Node.highest_limit, sys.getrecursionlimit()) > limit:
            sys.setrecursionlimit(limit)
            return "把递归的上限调高了，账本再深一点还是会撞上：不要递归，自己管一个列表当栈。"
        if isinstance(error, RecursionError):
            return f"{name}：撞上了 Python 的递归上限。自己管一个列表当栈，不要递归。"
        if isinstance(error, _AskedTooOften):
            return f"{name}：同一个结果去了不止一次，路一分岔就走不完：记下见过谁，不再去。"
        if changed := _changed(last):
            return f"{name}：{changed}"
        again = answer(last)
        if not isinstance(again, list | tuple):
            return f"要返回一个列表，你返回的是 {type(again).__name__}。"
        if isinstance(order, list | tuple) and len(order) != len(again):
            return f"{name}：同一本账第二次走，排出的少了：记见过谁的集合，每次走都要新造。"
        if wrong := _wrong_order(list(again), last):
            return f"{name}：{wrong}"
    return None


def _first_order(answer: Answer, last: _Node) -> tuple[Any, BaseException | None]:
    """走第一遍的结果，和抛出的异常；行数和读 `parents` 的次数都有上限。"""
    count, found = len(_reachable(last)), []

    def walk(last: _Node) -> None:
        lines = 2000 * count + 10_000 if count < 100 else None  # 一行一行地看着走，慢几十倍
        found.append(in_time(answer, last, lines=lines))

    _Node.reads_left = 40 * count + 1000  # 再多读，就抛 `_AskedTooOften`
    try:
        error = error_from(walk, last)
    finally:
        _Node.reads_left = math.inf
    return (found or [None])[0], error


def _changed(last: _Node) -> str | None:
    """走完之后，账本和先前不一样的地方。"""
    fields = vars(_Node(torch.ones(())))
    for node in _reachable(last).values():
        if extra := set(vars(node)) - set(fields):
            return f"在结果身上留下了 {extra.pop()}，下一次走会当成见过：用一个自己的集合记。"
        if node._parents is not node.given:
            return "走完之后，结果的 parents 变了：账本往回走时还要用，只看不改。"
        if node.grad is not None:
            return "动了结果的 grad：这里只排次序。"
    return None


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


def _reachable(last: _Node) -> dict[int, _Node]:
    seen: dict[int, _Node] = {}
    stack = [last]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            stack += node.given
    return seen


# —— audit ——


def audit(answer: Answer) -> str | None:
    right = [(None, _Machine()), (None, _Machine(by_count=True))]
    first, *rest = BROKEN.items()
    for fault, machine in (right[0], first, *rest, right[1], first, right[0]):
        got = answer(machine)
        require_number(got, bool)
        if fault is None and not got:
            return (
                "冤枉了一台对的机器：它在哪张图上都和 torch 一样，"
                "走完只在叶子上留下 .grad。先核对你手算的斜率。"
            )
        if fault is not None and got:
            return f"放过了一台坏机器：{fault}"
    return None


def _sum_back(g: Tensor, shape: torch.Size) -> Tensor:
    return g.sum_to_size(shape)


def _mean_back(g: Tensor, shape: torch.Size) -> Tensor:
    return g.sum_to_size(shape) * shape.numel() / g.numel()


@dataclass(frozen=True)
class _Machine:
    """一台往回走的机器，和章节里的一样，只在叶子上留下 grad；坏的那台拨错一处。"""

    back: Callable[[Tensor, torch.Size], Tensor] = _sum_back
    add: bool = True
    wait: bool = True
    by_count: bool = False

    def __call__(self, last: Any) -> None:
        got = {last: torch.ones_like(last.data)}
        order = list(_by_count(last)) if self.by_count else _in_order(last)[::-1]
        if not self.wait:
            self._at_once(last, got, {last})
        for node in order if self.wait else ():
            for _ in self._hand_down(node, got):
                pass
        for node in order:
            if not node.parents:
                node.grad = self._meet(node.grad, got[node])

    def _meet(self, old: Tensor | None, new: Tensor) -> Tensor:
        if old is None or not self.add:
            return new
        try:
            return old + new
        except RuntimeError:  # 坏机器没有加回去的，形状各是各的
            return new

    def _hand_down(self, node: Any, got: dict[Any, Tensor]) -> Iterator[Any]:
        for parent, g in zip(node.parents, node.rule(got[node]), strict=True):
            got[parent] = self._meet(got.get(parent), self.back(g, parent.data.shape))
            yield parent

    def _at_once(self, node: Any, got: dict[Any, Tensor], seen: set[Any]) -> None:
        for parent in self._hand_down(node, got):
            if parent not in seen:
                seen.add(parent)
                self._at_once(parent, got, seen)


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
    "后到的斜率盖掉先到的。让一个数走两条路，再和手算的比。": _Machine(add=False),
    "没等收齐就往回传。走两条路的若只是叶子，看不出来；让一个中间结果也走两条路。": (
        _Machine(wait=False)
    ),
    "广播拉长的维没有加回去，斜率和主人不同形状。用一次广播，形状也要比。": (
        _Machine(back=lambda g, shape: g)
    ),
    "广播拉长的维求了平均，该求和。用一次广播，数也要比。": _Machine(back=_mean_back),
}
