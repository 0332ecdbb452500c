"""模型概况：一层一行的输出形状、参数个数、FLOPs，实际跑一次前向得来，跑完模型和原来一样。"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from companion._common import eval_mode, overwrite, width
from companion.device import model_device
from companion.errors import ArgumentError


@dataclass
class Layer:
    """表里的一行：一个模块自己的，不含它的子模块的。"""

    name: str  # 在模型里的路径，如 "layers.0"；模型自己是 ""
    kind: str  # 类名，如 "Linear"
    params: int = 0  # 自己的参数个数；与前面的行共用的不再算
    flops: int = 0  # 自己的 FLOPs；被调用几次就是几次的和
    output: str = "—"  # 最后一次调用的输出形状；没有被直接调用过是 "—"
    calls: int = 0


@dataclass(frozen=True)
class Summary:
    """模型的概况。打印出来是一张表；各列加起来就是总数。"""

    layers: list[Layer]
    trainable: int  # 要训练的参数个数
    frozen: int  # 冻结的（requires_grad=False）

    @property
    def params(self) -> int:
        """参数一共多少个，共用的只算一次。"""
        return self.trainable + self.frozen

    @property
    def flops(self) -> int:
        """一次前向的 FLOPs：一次乘法、一次加法各算一次，所以 m×k 乘 k×n 的矩阵是 2·m·n·k。

        只算矩阵乘、卷积和注意力；归一化、激活等逐元素的运算，和 torch 没有给公式的运算，都记作 0。
        """
        return sum(layer.flops for layer in self.layers)

    def __repr__(self) -> str:
        rows = [("层", "输出形状", "参数", "FLOPs")]
        for layer in self.layers:
            times = f" ×{layer.calls}" if layer.calls > 1 else ""
            name = f"{layer.name} ({layer.kind}){times}".strip()
            rows.append((name, layer.output, _number(layer.params), _number(layer.flops)))
        rows.append(("合计", "", _number(self.params), _number(self.flops)))
        widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        end = f"要训练 {_number(self.trainable)}，冻结 {_number(self.frozen)}"
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], end])


def summary(model: nn.Module, *inputs: Any) -> Summary:
    """``model(*inputs)`` 的逐层概况 ``Summary``。

    在 eval 状态下跑一次前向，不记计算图。跑完，train/eval 状态、缓冲区、梯度和 torch 的随机数都与
    原来一样。模型和输入都在 ``meta`` 设备上也行，那样只推形状，不占内存。

    Args:
        model: 要看的模型。
        inputs: 一批真实的输入，与模型在同一个设备上；FLOPs 与批量大小有关。

    Raises:
        ArgumentError: 模型里有惰性层（LazyLinear 等），它要先跑一次才知道形状。

    出处：``torch.utils.flop_counter.FlopCounterMode``。
    """
    from torch.utils.flop_counter import FlopCounterMode  # 它要载入 triton，用到才载

    named = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, tensor in named if is_lazy(tensor)]
    if lazy:
        raise ArgumentError(
            f"参数的形状应已确定，实际 {lazy[0]} 还没有。请先跑一次 model(*inputs)。"
        )
    layers = {m: Layer(name, type(m).__name__) for name, m in model.named_modules()}
    _count_parameters(layers)
    counter = FlopCounterMode(display=False)
    with _untouched(model), _without_fusion(), counter, _watched(layers, counter), torch.no_grad():
        model(*inputs)
    shown = [
        row
        for module, row in layers.items()
        if row.params or row.flops or (row.calls and not list(module.children()))
    ]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return Summary(shown, trainable, frozen)


def _count_parameters(layers: Mapping[nn.Module, Layer]) -> None:
    seen: set[int] = set()
    for module, row in layers.items():
        for parameter in module.parameters(recurse=False):
            row.params += parameter.numel() if id(parameter) not in seen else 0
            seen.add(id(parameter))


@contextmanager
def _watched(layers: Mapping[nn.Module, Layer], counter: Any) -> Iterator[None]:
    """期间每次调用都记下形状和 FLOPs；一层的 FLOPs 要扣掉它里面各层的。"""
    open_calls: list[list[int]] = [[0, 0]]  # 每个正在进行的调用：[开始时的总数, 里面各层的和]

    def before(module: nn.Module, _: Any) -> None:
        open_calls.append([counter.get_total_flops(), 0])

    def after(module: nn.Module, _: Any, output: Any) -> None:
        start, inner = open_calls.pop()
        used = counter.get_total_flops() - start
        open_calls[-1][1] += used
        row = layers[module]
        row.flops += used - inner
        row.calls += 1
        row.output = _shapes(output)

    handles = [module.register_forward_pre_hook(before) for module in layers]
    handles += [module.register_forward_hook(after) for module in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """期间模型在 eval 状态；离开时状态、缓冲区、随机数都换回原来的。"""
    device = model_device(model)
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    accelerated = device.type not in ("cpu", "meta")
    fork = {"devices": [device], "device_type": device.type} if accelerated else {"devices": []}
    with torch.random.fork_rng(**fork), eval_mode(model):
        try:
            yield
        finally:
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer
                overwrite(buffer, value)


@contextmanager
def _without_fusion() -> Iterator[None]:
    """期间 LSTM 和自注意力不走各自的整块实现：那些实现没有 FLOPs 的公式，会记成 0。"""
    libraries: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn]
    enabled = [bool(library.enabled) for library in libraries]
    fast = torch.backends.mha.get_fastpath_enabled()

    def switch(flags: Iterable[bool], fast: bool) -> None:
        for library, flag in zip(libraries, flags, strict=True):
            library.enabled = flag
        torch.backends.mha.set_fastpath_enabled(fast)

    switch([False, False], False)
    try:
        yield
    finally:
        switch(enabled, fast)


def _shapes(value: Any) -> str:
    """输出的形状；元组、列表、字典逐个写出。"""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shapes(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_shapes, value)) + "]"
    return "—" if value is None else type(value).__name__


def _number(n: int) -> str:
    return f"{n:,}".replace(",", " ")


def _aligned(row: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    """前两列靠左，后两列是数，靠右。"""
    for i, (text, columns) in enumerate(zip(row, widths, strict=True)):
        gap = " " * (columns - width(text))
        yield text + gap if i < 2 else gap + text
