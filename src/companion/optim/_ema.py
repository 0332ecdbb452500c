"""权重的指数滑动平均。"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from companion.distributed import bare_state, unwrap
from companion.errors import ArgumentError, MismatchError


class EMA:
    """模型权重的指数滑动平均：``平均 ← decay × 平均 + (1 - decay) × 现在``。

    平均的是 ``model.state_dict()`` 里的浮点、复数张量，所以批归一化的统计量也在内；整数（步数）和含
    inf 的缓冲区照抄。半精度的权重用 ``float32`` 攒平均，否则每次只改一点，加上去就没了。

    Args:
        model: 正在训练的模型；搬到设备上之后再建。
        decay: 旧的平均占多少，0 到 1（不含）。0.999 大约是最近一千次更新的平均。
        warmup: 开头用小一些的 ``(1 + n) / (10 + n)``，n 是更新过几次，好尽快忘掉初值。

    Raises:
        ArgumentError: ``decay`` 不在范围里；模型里有稀疏的、还没有形状的张量。
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ArgumentError(f"decay 应在 0 到 1 之间（不含 1），实际是 {decay}。常用 0.999。")
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self._model = unwrap(model)
        for name, value in self._values().items():
            if is_lazy(value) or value.layout != torch.strided:
                raise ArgumentError(
                    f"EMA 平均的应是有数值的稠密张量，实际 {name} 是稀疏的，或者还没有形状。"
                    "稀疏的先 to_dense()；惰性层先用一批数据走一遍前向，再建 EMA。"
                )
        self._average = {
            name: value.detach().to(_wide(value.dtype), copy=True)
            for name, value in self._values().items()
        }
        self._copied = {name for name, value in self._values().items() if not _can_average(value)}

    def follows(self, model: nn.Module) -> bool:
        """平均的是不是这个模型，包没包都算。"""
        return self._model is unwrap(model)

    @torch.no_grad()
    def update(self) -> None:
        """把现在的权重算进平均；每次 ``optimizer.step()`` 之后调用一次，不读回数值。"""
        early = (1 + self.updates) / (10 + self.updates) if self.warmup else 1.0
        self.updates += 1
        pairs: dict[type, tuple[list[Tensor], list[Tensor]]] = {}  # 分片的和普通的不能一起算
        for name, value in self._values().items():
            average = self._average[name]
            if name in self._copied:
                average.copy_(value)
            else:
                old, new = pairs.setdefault(type(average), ([], []))
                old.append(average)
                new.append(value.to(average.device, average.dtype))
        for old, new in pairs.values():
            torch._foreach_lerp_(old, new, 1 - min(self.decay, early))

    @contextmanager
    def average(self) -> Iterator[None]:
        """``with ema.average():`` 里面，模型用平均的权重；离开时（出错也一样）换回来。"""
        values = self._values()
        backup = {name: value.detach().clone() for name, value in values.items()}
        _copy(self._average, values)
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
            MismatchError: 名字或形状与模型的不同。
        """
        ours = {name: tuple(value.shape) for name, value in self._average.items()}
        theirs = {name: tuple(value.shape) for name, value in state["average"].items()}
        differing = sorted(dict(ours.items() ^ theirs.items()))
        if differing:
            name = differing[0]
            raise MismatchError(
                f"EMA 的平均应与模型的形状逐个相同，{len(differing)} 个名字不符，"
                f"如 {name}：应为 {ours.get(name, '没有')}，实际是 {theirs.get(name, '没有')}。"
                "请用存的时候那个模型。"
            )
        _copy(state["average"], self._average)
        self.updates = state["updates"]

    def _values(self) -> dict[str, Tensor]:
        """模型现在的张量，每个一次：两个名字共用的（tied）只留第一个名字。"""
        names: dict[int, str] = {}
        state: dict[str, Tensor] = bare_state(self._model, keep_vars=True)
        for name, value in state.items():
            names.setdefault(id(value), name)
        return {name: state[name] for name in names.values()}


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _can_average(value: Tensor) -> bool:
    """浮点、复数的参数都能；缓冲区里有 inf 就不能：掩码的 -inf 与 -inf 平均出来是 nan。"""
    inexact = value.is_floating_point() or value.is_complex()
    if isinstance(value, nn.Parameter) or not inexact:
        return inexact
    return bool(value.isfinite().all())


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])
