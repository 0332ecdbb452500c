"""☆ 其余的层一节的检查器。"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from companion.book.exercises._common import (
    Wrong,
    error_from,
    require_error,
    require_numbers,
)

Answer = Callable[..., Any]


def separable(answer: Any) -> str | None:
    values = require_numbers(answer, "四", "普通的参数、拆开的参数、普通的乘法、拆开的乘法")
    places, deep, cross = 8 * 8, 32 * 9, 32 * 64
    truths = (64 * (deep + 1), deep + 32 + cross + 64, places * 64 * deep, places * (deep + cross))
    known = [
        {
            64 * deep: "偏置忘了数，一个输出通道一个。",
            32 * (64 * 9 + 1): "偏置的个数是输出通道数，不是输入的。",
        },
        {
            deep + cross: "两层的偏置都忘了数。",
            deep + 32 + cross: "第二层的偏置忘了数。",
            deep + cross + 64: "第一层的偏置忘了数。",
            32 * (deep + 1) + cross + 64: "第一层分了 32 组，每个核只看 1 个通道，不是 32 个。",
        },
        {
            places * (64 * deep + 64): "偏置是加的，不算乘法。",
            64 * deep: "这是一个位置的。补了一圈 0，输出还是 8×8。",
            36 * 64 * deep: "补了一圈 0，输出还是 8×8，不是 6×6。",
            2 * places * 64 * deep: "只数乘法；一乘一加都数，才是两倍。",
        },
        {
            places * (32 * deep + cross): "第一层分了 32 组，每个核只看 1 个通道，不是 32 个。",
            places * deep: "第二层的忘了数。",
            places * cross: "第一层的忘了数。",
            places * (deep + 32 + cross + 64): "偏置是加的，不算乘法。",
            2 * places * (deep + cross): "只数乘法；一乘一加都数，才是两倍。",
        },
    ]
    hints = (
        "每个输出通道 32×3×3 个乘数，加一个偏置。",
        "第一层 32 个核，各 1×3×3；第二层 64 个核，各 32×1×1；都有偏置。",
        "输出 64×8×8 个数，每个要几次乘法？",
        "两层都输出 8×8，各数各的，再加起来。",
    )
    for i, (value, truth) in enumerate(zip(values, truths, strict=True)):
        if value != truth:
            return f"第 {i + 1} 个不对：{known[i].get(int(value), hints[i])}"
    return None


# —— 每一层出来的形状 ——


class _Twice(nn.Module):
    """同一层叫两次；后写的先叫；有一层从不叫。"""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.never = nn.Linear(4, 4), nn.Linear(9, 9)
        self.enter = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mix(self.mix(self.enter(x)).relu())
        return y


def _picture_net(counting: bool = False) -> nn.Sequential:
    """`counting` 时批归一化来时在练：不拨到 eval 就走，它的账本就变了。"""
    body = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5))
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    body[0 if counting else 1].eval()  # 有人把这一层单独留在 eval
    return net


def trace_shapes(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(3, 2, 6, 5, generator=generator)
    vectors = torch.randn(2, 2, 3, generator=generator)
    hooked, heard = _picture_net(counting=True), []
    hooked.get_submodule("0.3").register_forward_hook(
        lambda layer, *_: heard.append(layer.training)
    )
    cases = [(_picture_net(), pictures), (_Twice(), vectors), (hooked, pictures[:1])]
    for model, x in cases:
        truth = _truth(model, x)
        hooks = _hooks(model)
        got = answer(model, x)
        if True in heard:
            return "是在 train 状态下走的：批归一化的账本会变，丢弃会乱丢，先 model.eval()。"
        if len(heard) > 1:
            return f"这一趟把模型走了 {len(heard)} 遍：一遍就够，名字和形状一起记。"
        if _hooks(model) != hooks:
            return _wrong_hooks(model, hooks)
        if wrong := _wrong_rows(got, truth):
            return wrong
    return _after_an_error(answer)


def _truth(model: nn.Module, x: Tensor) -> list[tuple[str, tuple[int, ...]]]:
    """照着两个模型的 forward 一步步写出来的，不靠钩子。"""
    if isinstance(model, _Twice):
        n = len(x)
        return [
            ("enter.0", (n, 6)),
            ("enter.1", (n, 4)),
            ("mix", (n, 4)),
            ("mix", (n, 4)),
        ]
    n, _, height, width = x.shape
    rows = [(f"0.{i}", (n, 3, height - 2, width - 2)) for i in range(4)]
    return [*rows, ("1", (n, 3, 1, 1)), ("2", (n, 3)), ("3", (n, 2))]


def _hooks(model: nn.Module) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def _wrong_hooks(model: nn.Module, before: list[int]) -> str:
    if sum(_hooks(model)) > sum(before):
        return "走的时候钩子还挂着：register_forward_hook 返回一个柄，最后要 remove()。"
    return "模型上原来就有的钩子被你摘掉了：只摘自己挂的。"


def _wrong_rows(got: Any, truth: list[tuple[str, tuple[int, ...]]]) -> str | None:
    rows = _as_rows(got)
    names, right = [name for name, _ in rows], [name for name, _ in truth]
    if names == right:
        for (name, shape), (_, expected) in zip(rows, truth, strict=True):
            if shape != expected:
                return f"{name} 的输出形状应为 {expected}，你的是 {shape}。"
        return None
    if len(rows) == len(truth) and len(set(names)) == 1 < len(set(right)):
        return f"每一行的名字都是 {names[0]!r}：循环里的函数记住的是变量，不是当时的值。"
    if extra := [name for name in names if name not in right]:
        return f"多了 {extra[0]!r}：只要没有子模块、而且真的走过的层；名字用 named_modules 的。"
    if missing := [name for name in right if name not in names]:
        return f"少了 {missing[0]!r}：每一个没有子模块的层都要，里面的也要。"
    if len(names) < len(right):
        return "有一层走了两次，你只记了一次：每走一次记一行。"
    if len(names) > len(right):
        return "有的层走一次记了两行：共用的一层只挂一个钩子。"
    return "次序不对：按走过的先后，不是按写在类里的先后。"


def _as_rows(got: Any) -> list[tuple[Any, tuple[int, ...]]]:
    form = "要一个列表，一项一对：(层的名字, 输出的形状)，形状是整数的元组。"
    if not isinstance(got, list | tuple):
        raise Wrong(form)
    rows = []
    for row in got:
        if not isinstance(row, tuple | list) or len(row) != 2 or not isinstance(row[0], str):
            raise Wrong(form)
        if not isinstance(row[1], tuple) or any(type(n) is not int for n in row[1]):
            raise Wrong(f"形状要是整数的元组，{row[0]!r} 那一行给的是 {type(row[1]).__name__}。")
        rows.append((row[0], tuple(row[1])))
    return rows


def _after_an_error(answer: Answer) -> str | None:
    """走到一半抛了异常：要传出来，钩子要摘掉，状态要复原。"""
    model = _picture_net(counting=True)
    model[3] = nn.Linear(4, 2)  # 前面都走得通，到它才错
    modes, x = [m.training for m in model.modules()], torch.randn(2, 2, 6, 6)
    buffers = {name: t.clone() for name, t in model.named_buffers()}
    require_error("最后一层的形状不对，模型走不完", RuntimeError, answer, model, x)
    assert error_from(answer, model, x) is not None
    if sum(_hooks(model)):
        return "模型走到一半抛了异常，钩子留在了上面：remove() 放进 finally。"
    if [m.training for m in model.modules()] != modes:
        return "模型走到一半抛了异常，train/eval 没有复原：也放进 finally。"
    if any(not torch.equal(t, buffers[name]) for name, t in model.named_buffers()):
        return "模型走到一半抛了异常，批归一化的账本已经变了：先 eval() 再走。"
    return None
