"""交给 Run 的模型变了没有：数优化器走了几步，看张量的版本号（就地改一次，torch 就加一）。

每一步都不读数值。两样都要看：``fused=True`` 的优化器不动版本号，不用 torch 的优化器数不到步数。
也看得出接着练时又执行了一遍的代码改了什么。
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from companion.distributed import all_finite, local_part
from companion.run import _parts as parts
from companion.run._position import Position
from companion.run._steps import Steps

_PROBES = 4  # 一个模型每一步只看这么多个参数
_SAMPLE = 64  # 版本号没有动，一轮之末再比这么多个数


class Watch:
    """从建它的时候起，``objects`` 里的模型变了没有；什么也没有，就当变了。"""

    def __init__(self, objects: Mapping[str, Any], position: Position) -> None:
        split = parts.is_split(objects)  # FSDP2 的参数一会儿是片，一会儿是整个，看不准
        found = [] if split else list(parts.models(objects).values())
        self._objects, self._position = objects, position
        self._step, self._held = position.step, [t for model in found for t in _tensors(model)]
        self._probes = [p for model in found for p in _spread(_trainable(model))]
        every = [_tensors(model, buffers=False) for model in found]
        self._sampled = self._probes + [p for held in every for p in _spread(held)]
        self.steps = Steps(objects, position)
        self._first, self._versions = self.marks(), [t._version for t in self._held]
        self._samples, self._numbers = list(map(_sample, self._sampled)), _numbers(objects)

    def marks(self) -> list[int]:
        """优化器走了几步，几个参数此刻的版本号；一步一次，要便宜。"""
        return self.steps.counts + [p._version for p in self._probes]

    def moved(self, marks: list[int]) -> bool:
        """``marks`` 之后更新过没有；若从来不动（如重放 CUDA 图），看不出来，算更新过。"""
        now = self.marks()
        return not now or now != marks or (now == self._first and self._position.step > self._step)

    def waiting(self, marks: list[int]) -> bool:
        """``marks`` 之后优化器没有走，却有梯度：多半还攒着，此刻存就丢了。"""
        counts = self.steps.counts
        return bool(counts) and marks[:1] == counts and self.steps.any_gradient()

    def unchanged(self) -> bool:
        """从一轮开头练了几步，要训练的参数却一个也没有变。"""
        trained = sum(call.done for call in self._position.calls)
        whole = self._position.step - self._step == trained  # 接着练的一轮，前面的没有看到
        if not self._probes or not trained or not whole:
            return False
        return not self._versions_moved() and self._samples_stay()

    def changes(self) -> list[str]:
        """优化器和调度器的数、模型的参数改了哪些；人看的话。"""
        now = _numbers(self._objects)
        found = [
            f"{name}（{old:g} → {now[name]:g}）"
            for name, old in self._numbers.items()
            if now.get(name, old) != old
        ]
        changed = self._versions_moved() and not self._samples_stay()  # 换进换出的不算
        return found + (["模型的参数"] if changed else [])

    def close(self) -> None:
        """不再数优化器的步数。"""
        self.steps.close()

    def _versions_moved(self) -> bool:
        return [t._version for t in self._held] != self._versions

    def _samples_stay(self) -> bool:
        return all(map(torch.equal, self._samples, map(_sample, self._sampled)))


def models_finite(objects: Mapping[str, Any]) -> bool:
    """各个模型的参数里没有 nan 和 inf；FSDP2 的只看本进程的那一片。"""
    models = parts.models(objects).values()
    return all_finite(t for model in models for t in _tensors(model, buffers=False))


def _numbers(objects: Mapping[str, Any]) -> dict[str, float]:
    """优化器各组的学习率等，调度器走到了第几步。"""
    found: dict[str, float] = {}
    for name, part in objects.items():
        if isinstance(part, Optimizer):
            for i, group in enumerate(part.param_groups):
                held = {key: value for key, value in group.items() if _is_number(value)}
                found |= {f'{name}.param_groups[{i}]["{key}"]': float(held[key]) for key in held}
        elif _is_number(getattr(part, "last_epoch", None)):
            found[f"{name}.last_epoch"] = float(part.last_epoch)
    return found


def _is_number(value: object) -> bool:
    """学习率也可以是张量。"""
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)


def _tensors(model: nn.Module, *, buffers: bool = True) -> list[Tensor]:
    held = [*model.parameters(), *(model.buffers() if buffers else ())]
    return [t for t in held if not is_lazy(t) and not t.is_inference()]


def _trainable(model: nn.Module) -> list[Tensor]:
    return [t for t in _tensors(model, buffers=False) if t.requires_grad and t.numel()]


def _spread(tensors: list[Tensor]) -> list[Tensor]:
    """头、尾和中间的几个。"""
    places = np.linspace(0, len(tensors) - 1, min(_PROBES, len(tensors)), dtype=int)
    return [tensors[place] for place in places]


def _sample(tensor: Tensor) -> Tensor:
    return local_part(tensor).detach().flatten()[:_SAMPLE].clone()
