"""权重的指数滑动平均。"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from companion._common import check_model, misfit, overwrite, unlike_numbers
from companion.distributed import bare_state, unwrap
from companion.errors import ArgumentError, MismatchError


class EMA:
    """模型权重的指数滑动平均：``平均 ← decay × 平均 + (1 - decay) × 现在``。

    平均的是 ``model.state_dict()`` 里的浮点、复数张量，所以批归一化的统计量也在内；整数（步数）和含
    inf 的缓冲区照抄。半精度、float8 的权重用 ``float32`` 攒平均，否则每次只改一点，加上去就没了。

    Args:
        model: 正在训练的模型；搬到设备上之后再建。
        decay: 旧的平均占多少，0 到 1（不含）。0.999 大约是最近一千次更新的平均。
        warmup: 开头用小一些的 ``(1 + n) / (10 + n)``，n 是更新过几次，好尽快忘掉初值。

    Raises:
        ArgumentError: ``decay`` 不在范围里；不是模型；模型里有稀疏的、嵌套的、没有数值的张量。
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ArgumentError(f"decay 应在 0 到 1 之间（不含 1），实际是 {decay}。常用 0.999。")
        check_model(model)
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self._model = unwrap(model)
        for name, value in self._values().items():
            if problem := unlike_numbers(value):
                raise ArgumentError(
                    f"EMA 平均的应是有数值的稠密张量，实际 {name} {problem}，再建 EMA。"
                )
        self._average = {
            name: value.detach().to(_wide(value.dtype), copy=True)
            for name, value in self._values().items()
        }
        self._shapes = {name: value.shape for name, value in self._average.items()}
        self._copied = {name for name, value in self._values().items() if not _can_average(value)}

    def follows(self, model: nn.Module) -> bool:
        """平均的是不是这个模型，包没包都算。"""
        return self._model is unwrap(model)

    @torch.no_grad()
    def update(self) -> None:
        """把现在的权重算进平均；每次 ``optimizer.step()`` 之后调用一次，不读回数值。

        Raises:
            ArgumentError: 模型里多了、少了张量，或者换了形状。
        """
        early = (1 + self.updates) / (10 + self.updates) if self.warmup else 1.0
        self.updates += 1
        values = self._values()
        pairs: dict[type, tuple[list[Tensor], list[Tensor]]]
        pairs = defaultdict(lambda: ([], []))  # 分片的和普通的不能一起算
        self._check_same(values)
        for name, value in values.items():
            average = self._average[name]
            if name in self._copied:
                average.copy_(value)
            else:
                old, new = pairs[type(average)]
                old.append(average)
                same = value.dtype == average.dtype and value.device == average.device
                new.append(value if same else value.to(average.device, average.dtype))
        for old, new in pairs.values():
            torch._foreach_lerp_(old, new, 1 - min(self.decay, early))

    @contextmanager
    def average(self) -> Iterator[None]:
        """``with ema.average():`` 里面，模型用平均的权重；离开时（出错也一样）换回来。"""
        values = self._values()
        self._check_same(values)
        backup = {name: value.detach().clone() for name, value in values.items()}
        averaged = values.keys() - self._copied
        _copy(self._average | {n: _filled(self._average[n], values[n]) for n in averaged}, values)
        try:
            yield
        finally:
            _copy(backup, values)

    def state_dict(self) -> dict[str, Any]:
        """``{"updates": 更新次数, "average": {名字: 平均}}``。"""
        return {"updates": self.updates, "average": dict(self._average)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """换成 ``state`` 里的平均；先全部核对，再动手。

        Raises:
            MismatchError: 名字或形状与模型的不同，或有的数超出了模型的 dtype 的范围。
        """
        ours, theirs = self._shapes, {n: value.shape for n, value in state["average"].items()}
        differing = sorted(dict(ours.items() ^ theirs.items()))
        if differing:
            name = differing[0]
            raise MismatchError(
                f"EMA 的平均应与模型的形状逐个相同，{len(differing)} 个名字不符，"
                f"如 {name}：应为 {_said(ours, name)}，实际是 {_said(theirs, name)}。"
                "请用存的时候那个模型。"
            )
        for name, average in self._average.items():
            if problem := misfit(average, state["average"][name]):
                raise MismatchError(
                    f"EMA 的平均 {name} 应为 {average.dtype}，实际是 {problem}。"
                    "请用存的时候那个模型。"
                )
        _copy(state["average"], self._average)
        self.updates = state["updates"]

    def _values(self) -> dict[str, Tensor]:
        """模型现在的张量，每个一次：两个名字共用的（tied）只留第一个名字。"""
        found: dict[int, tuple[str, Tensor]] = {}
        for item in bare_state(self._model, keep_vars=True).items():
            if isinstance(item[1], Tensor):  # 模型自己的 extra_state 可以是别的
                found.setdefault(id(item[1]), item)
        return dict(found.values())

    def _check_same(self, values: Mapping[str, Tensor]) -> None:
        """模型的张量还是建 EMA 时的那些，就什么也不做。"""
        ours, theirs = self._shapes, {name: value.shape for name, value in values.items()}
        if ours != theirs:
            name = sorted(dict(ours.items() ^ theirs.items()))[0]
            raise ArgumentError(
                f"模型的张量应与建 EMA 时的相同，实际 {name} 那时是 {_said(ours, name)}，"
                f"现在是 {_said(theirs, name)}。改过模型，就重建：EMA(model)。"
            )


def _said(shapes: Mapping[str, torch.Size], name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "没有"


def _wide(dtype: torch.dtype) -> torch.dtype:
    if dtype.itemsize > 2 or not dtype.is_floating_point or _is_packed(dtype):
        return torch.complex64 if dtype == torch.complex32 else dtype
    return torch.float32


def _is_packed(dtype: torch.dtype) -> bool:
    """一个字节里有两个数，torch 只会原样搬。"""
    return "float4" in str(dtype)


def _can_average(value: Tensor) -> bool:
    """浮点、复数的参数都能；缓冲区里有 inf 就不能：掩码的 -inf 与 -inf 平均出来是 nan。"""
    inexact = value.is_floating_point() or value.is_complex()
    if not inexact or _is_packed(value.dtype):
        return False
    return isinstance(value, nn.Parameter) or bool(value.to(_wide(value.dtype)).isfinite().all())


def _filled(average: Tensor, value: Tensor) -> Tensor:
    """``average``；缓冲区里平均不出有限的数的（后来才填上 -inf 的掩码），用现在的。"""
    if isinstance(value, nn.Parameter):
        return average
    return torch.where(average.isfinite(), average, value.to(average.device, average.dtype))


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        overwrite(value, source[name])
