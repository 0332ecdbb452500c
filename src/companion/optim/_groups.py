"""参数分组：哪些参数不做权重衰减。"""

from typing import Any

from torch import nn

_Norm = nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | nn.modules.batchnorm._NormBase
_Embedding = nn.Embedding | nn.EmbeddingBag


def decay_groups(
    model: nn.Module, weight_decay: float, *, embeddings: bool = False
) -> list[dict[str, Any]]:
    """两个参数组：做权重衰减的，和不做的（衰减系数 0）；交给任何优化器。

    不做的是偏置、归一化层的参数、其余不足两维的参数；``embeddings=False`` 时还有嵌入表。
    冻结的（``requires_grad=False``）不在内；几处共用的只出现一次，有一处不做就不做。
    """
    spared: dict[nn.Parameter, bool] = {}
    for module in model.modules():
        whole = isinstance(module, _Norm) or (isinstance(module, _Embedding) and not embeddings)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                here = whole or parameter.ndim < 2 or "bias" in name
                spared[parameter] = here or spared.get(parameter, False)
    return [
        {"params": [p for p, no in spared.items() if not no], "weight_decay": weight_decay},
        {"params": [p for p, no in spared.items() if no], "weight_decay": 0.0},
    ]
