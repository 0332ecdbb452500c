"""交给 Run 的模型变了没有：数优化器走了几步，看张量的版本号（就地改一次，torch 就加一）。

每一步都不读数值。两样都要看：``fused=True`` 的优化器不动版本号，不用 torch 的优化器数不到步数。
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from companion.distributed.wrap import all_finite, local_part
from companion.run import parts

__all__ = ["Watch", "models_finite"]

_PROBES = 4  # 一个模型每一步只看这么多个参数
_SAMPLE = 64  # 版本号没有动，一轮之末再比这么多个数


class Watch:
    """从建它的时候（``step`` 步）起，``objects`` 里的模型变了没有；什么也没有，就当变了。"""

    def __init__(self, objects: Mapping[str, Any], step: int) -> None:
        split = parts.is_split(objects)  # FSDP2 的参数一会儿是片，一会儿是整个，看不准
        found = [] if split else list(parts.models(objects).values())
        optimizers = [part for part in objects.values() if isinstance(part, Optimizer)]
        self.step, self._held = step, [t for model in found for t in _tensors(model)]
        self._probes = [p for model in found for p in _spread(_trainable(model))]
        self._steps = [0] if optimizers else []
        self._hooks = [o.register_step_post_hook(_adding(self._steps)) for o in optimizers]
        self._first, self._versions = self.marks(), [t._version for t in self._held]
        self._samples = [_sample(p) for p in self._probes]

    def marks(self) -> list[int]:
        """优化器走了几步，几个参数此刻的版本号；一步一次，要便宜。"""
        return self._steps + [p._version for p in self._probes]

    def moved(self, marks: list[int], step: int) -> bool:
        """``marks`` 之后更新过没有；若从来不动（如重放 CUDA 图），看不出来，算更新过。"""
        now = self.marks()
        return not now or now != marks or (now == self._first and step > self.step)

    def unchanged(self, step: int) -> bool:
        """练了几步，要训练的参数却一个也没有变。"""
        if step == self.step or not self._probes:
            return False
        if [t._version for t in self._held] != self._versions:
            return False
        return all(map(torch.equal, self._samples, map(_sample, self._probes)))

    def close(self) -> None:
        """不再数优化器的步数。"""
        for hook in self._hooks:
            hook.remove()


def models_finite(objects: Mapping[str, Any]) -> bool:
    """各个模型的参数里没有 nan 和 inf；FSDP2 的只看本进程的那一片。"""
    models = parts.models(objects).values()
    return all_finite(t for model in models for t in _tensors(model, buffers=False))


def _adding(steps: list[int]) -> Callable[..., None]:
    def add_one(*_: object) -> None:
        steps[0] += 1

    return add_one


def _tensors(model: nn.Module, *, buffers: bool = True) -> list[Tensor]:
    held = [*model.parameters(), *(model.buffers() if buffers else ())]
    return [t for t in held if not is_lazy(t) and not t.is_inference()]


def _trainable(model: nn.Module) -> list[Tensor]:
    return [t for t in _tensors(model, buffers=False) if t.requires_grad and t.numel()]


def _spread(tensors: list[Tensor]) -> list[Tensor]:
    """头、尾和中间的几个。"""
    last, count = len(tensors) - 1, min(_PROBES, len(tensors))
    return [tensors[last * i // max(1, count - 1)] for i in range(count)]


def _sample(tensor: Tensor) -> Tensor:
    return local_part(tensor).detach().flatten()[:_SAMPLE].clone()
