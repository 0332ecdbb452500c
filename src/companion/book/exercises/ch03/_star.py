"""★ 各节的检查器。"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from companion.book.exercises._common import (
    Wrong,
    mutates,
    require_error,
    require_numbers,
)

Answer = Callable[..., Any]


class _Net2(nn.Module):
    """题目里的那个网络。"""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))
        self.extra = [nn.Linear(16, 16)]
        self.head = nn.Linear(16, 10, bias=False)


def names(answer: Any) -> str | None:
    truth = list(_Net2().state_dict())
    if not isinstance(answer, list | tuple):
        return f"要一个列表，里面全是字符串，你给的是 {type(answer).__name__}。"
    for i, name in enumerate(answer, 1):
        if not isinstance(name, str):
            return f"列表里应全是字符串，一个名字一项，第 {i} 项是 {type(name).__name__}。"
    got = [name.strip() for name in answer]
    if got == truth:
        return None
    if len(set(got)) < len(got):
        return "有名字写了两遍。"
    return _why_not_names(got, truth)


def _why_not_names(got: list[str], truth: list[str]) -> str:
    extra, missing = set(got) - set(truth), set(truth) - set(got)
    if not extra and not missing:
        return "名字都对，次序不对：照登记的先后，每层先 weight 后 bias。"
    if any(name.startswith("extra") for name in extra):
        return "extra 是个普通列表，里面的层没有登记。"
    if "head.bias" in extra:
        return "head 写了 bias=False，没有偏置。"
    if any(name.startswith(("body.1", "body.3")) for name in extra):
        return "body 里的序号不对：nn.ReLU() 占序号 1，但没有张量。"
    if extra:
        return f"没有 {min(extra)!r} 这个名字：一层一层写出 self. 后面的名字，用点连起来。"
    return f"少了 {len(missing)} 个名字。"


def conv_paper(answer: Any) -> str | None:
    side, few = require_numbers(answer, "两", "输出的边长, 参数的个数")
    layer = nn.Conv2d(3, 8, 5, stride=2, padding=1, device="meta")
    true_side = layer(torch.empty(1, 3, 32, 32, device="meta")).shape[-1]
    if side != true_side:
        return "①不对：四周各补 1 圈，边长多 2；减去 5，除以 2 向下取整，再加 1。"
    true_few = sum(p.numel() for p in layer.parameters())
    return None if few == true_few else _why_not_few(few, true_few)


def _why_not_few(few: float, truth: int) -> str:
    if few == truth - 8:
        return "②少了偏置：每个输出通道一个。"
    if few == 8 * (25 + 1):
        return "②少乘了输入通道：每个模板要盖住 3 个通道，是 3×5×5。"
    return "②不对：8 个模板，每个盖住 3 个通道的 5×5，再加一个偏置。"


@mutates(0)  # 改没改，自己看，好说出是哪个名字
def strip_prefix(answer: Answer) -> str | None:
    a, b, c = (torch.tensor([float(i)]) for i in range(3))
    cases: list[tuple[dict[str, Tensor], tuple[str, ...], dict[str, Tensor]]] = [
        (
            {"module.conv1.weight": a, "module.head.bias": b},
            (),
            {"conv1.weight": a, "head.bias": b},
        ),
        ({"head.bias": c, "module.x": a}, (), {"head.bias": c, "x": a}),
        ({"a.module.x": a, "module.module.y": b}, (), {"a.module.x": a, "module.y": b}),
        ({"_orig_mod.w": a, "module.w": b}, ("_orig_mod.",), {"w": a, "module.w": b}),
        ({"module_list.w": a, "modulew": b}, (), {"module_list.w": a, "modulew": b}),
        (
            {"module.z": a, "y": b, "module.x": c, "b": a},
            (),
            {"z": a, "y": b, "x": c, "b": a},
        ),
        ({}, (), {}),
    ]
    for state, more, truth in cases:
        given, numbers = dict(state), {name: t.clone() for name, t in state.items()}
        got = answer(given, *more)
        if isinstance(got, dict) and got is given:
            return _touched(given, state, numbers) or "返回的就是传进来的那个字典：造一个新的。"
        if problem := _touched(given, state, numbers) or _why_not_stripped(got, truth, state, more):
            return problem
    _refuses_clashes(answer, a, b)
    return None


def _touched(
    given: dict[str, Tensor], state: dict[str, Tensor], numbers: dict[str, Tensor]
) -> str | None:
    """传进来的字典被改了：名字、张量，哪一样。"""
    instead = "造一个新的字典，别动它"
    if gone := [name for name in state if name not in given]:
        return f"传进来的 state 里，{gone[0]!r} 这个名字没了：{instead}，也别 pop。"
    if list(given) != list(state):
        return f"传进来的 state 里，名字多了，或者换了次序：{instead}。"
    for name, tensor in state.items():
        if given[name] is not tensor:
            return f"传进来的 state 里，{name!r} 换成了别的张量：{instead}。"
        if tensor.requires_grad or not torch.equal(tensor, numbers[name]):
            return f"传进来的 state 里，{name!r} 的张量被改了：只换名字，张量不动。"
    return None


def _why_not_stripped(
    got: Any, truth: dict[str, Tensor], state: dict[str, Tensor], more: tuple[str, ...]
) -> str | None:
    if not isinstance(got, dict):
        return f"要返回一个字典，你返回的是 {type(got).__name__}。"
    if set(got) != set(truth):
        given = f"{list(state)}，prefix={(more or ('module.',))[0]!r}"
        return f"{given}：名字成了 {list(got)}。只去掉开头的一截，只去一次，别的名字原样。"
    if list(got) != list(truth):
        return "名字的次序变了：照原来的先后。"
    for name, tensor in truth.items():
        if not isinstance(got[name], Tensor):
            return f"{name!r} 名下应是原来的张量，你给的是 {type(got[name]).__name__}。"
        if got[name].dtype != tensor.dtype or not torch.equal(got[name], tensor):
            return "张量对不上名字了：名字改，张量跟着走，一点不改。"
    return None


def _refuses_clashes(answer: Answer, a: Tensor, b: Tensor) -> None:
    clashes = [({"module.w": a, "w": b}, ""), ({"w": b, "module.w": a}, "")]
    clashes += [
        ({"module.w": a, "w": a.clone()}, "，数相同"),
        ({"w": a, "module.w": a}, "，数相同"),
    ]
    for state, same in clashes:
        given, numbers = dict(state), {name: t.clone() for name, t in state.items()}
        what = f"{list(state)} 去掉之后两个都叫 w{same}"
        require_error(what, ValueError, answer, given)
        if touched := _touched(given, state, numbers):
            raise Wrong(f"抛 ValueError 是对的，可是{touched}")
