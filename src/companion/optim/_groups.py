"""参数分组：哪些参数不做权重衰减。"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from companion._common import eval_mode
from companion.errors import ArgumentError

_Norm = nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | nn.modules.batchnorm._NormBase
_Embedding = nn.Embedding | nn.EmbeddingBag


def decay_groups(
    model: nn.Module, weight_decay: float, *, embeddings: bool = False
) -> list[dict[str, Any]]:
    """两个参数组：做权重衰减的，和不做的（衰减系数 0）；交给任何优化器。

    不做的是偏置、归一化层的参数、其余不足两维的参数；``embeddings=False`` 时还有嵌入表。
    冻结的（``requires_grad=False``）不在内；几处共用的只出现一次，有一处不做就不做。参数化过的
    （``weight_norm`` 等），看它原来是哪一层的什么。

    Raises:
        ArgumentError: 有的参数还没有形状（惰性层），分不出来。
    """
    spared: dict[nn.Parameter, bool] = {}
    for module in model.modules():
        whole = isinstance(module, _Norm) or (isinstance(module, _Embedding) and not embeddings)
        for name, value, parameters in _own(module):
            if is_lazy(value):
                raise ArgumentError(
                    f"参数应已有形状，才分得出做不做权重衰减，实际 {type(module).__name__} 的 "
                    f"{name} 还没有。请先用一批数据走一遍前向，再分组。"
                )
            for parameter in (p for p in parameters if p.requires_grad):
                here = whole or value.ndim < 2 or "bias" in name
                spared[parameter] = here or spared.get(parameter, False)
    return [
        {"params": [p for p, no in spared.items() if not no], "weight_decay": weight_decay},
        {"params": [p for p, no in spared.items() if no], "weight_decay": 0.0},
    ]


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor, list[nn.Parameter]]]:
    """``module`` 自己的各个张量：名字，值，存着它的参数；参数化过的是算出来的，可能存成几个。"""
    if isinstance(module, ParametrizationList):
        return  # 里面的已经算在它所在的那一层
    for name, parameter in module.named_parameters(recurse=False):
        yield name, parameter, [parameter]
    if is_parametrized(module):
        for name, inside in module.parametrizations.items():  # type: ignore[union-attr, operator]
            with torch.no_grad(), eval_mode(module):  # 谱归一化在 train 状态每算一次都改自己
                yield name, getattr(module, name), list(inside.parameters(recurse=False))
