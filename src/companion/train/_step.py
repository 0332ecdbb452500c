"""一步：一批数据怎么变成一个损失，一轮的损失和指标怎么攒起来。``train`` 建在它上面。"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from companion.device import model_device, to_device
from companion.errors import ArgumentError, DataError, ShapeError, check_choice, check_targets

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class StepOut(NamedTuple):
    """一步的结果，``step`` 返回它。"""

    loss: Tensor  # 这一批的平均损失，形状 ()，带着计算图
    n: int | Tensor  # 它是几个样本（或词元）的平均；一轮的损失按它加权
    values: tuple[Tensor, ...] = ()  # 每个指标都 update(*values)，通常是 (outputs, targets)


Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[nn.Module, Any], StepOut]
Record = dict[str, Any]


def make_forward(
    model: nn.Module, loss: Loss | None, step: Step | None, precision: str = "fp32"
) -> Callable[[Any], StepOut]:
    """同一种函数：一批数据进，``StepOut`` 出，不论给的是 ``loss`` 还是 ``step``。

    ``precision`` 是 ``"bf16"`` 或 ``"fp16"`` 时在 ``torch.autocast`` 里算，权重仍是 ``float32``。

    Raises:
        ArgumentError: ``loss`` 和 ``step`` 都给了或都没给；或 ``step`` 返回的不是 ``StepOut``。
        DataError, ShapeError, DtypeError: 一批数据不是约定的样子，消息里写着怎么改。
    """
    check_choice("precision", precision, PRECISIONS)
    if step is not None and loss is None:
        chosen = step
    elif loss is not None and step is None:
        chosen = _pair_step(loss)
    else:
        given = "都没给" if loss is None else "都给了"
        raise ArgumentError(f"loss 和 step 应给且只给一个，实际{given}。分类、回归给 loss 就够了。")
    device = model_device(model)
    cast: Any = nullcontext()
    if precision != "fp32":
        cast = torch.autocast(device.type, PRECISIONS[precision])

    def forward(batch: Any) -> StepOut:
        with cast:
            out = chosen(model, to_device(batch, device))
        if not isinstance(out, StepOut):
            name = type(out).__name__
            raise ArgumentError(f"step 应返回 StepOut(loss, n, values)，实际返回了 {name}。")
        if out.loss.ndim:
            raise ShapeError(f"损失应是标量，实际形状是 {tuple(out.loss.shape)}。请先取 mean()。")
        return out

    return forward


def _pair_step(loss: Loss) -> Step:
    """一批是 ``(inputs, targets)`` 时的 ``step``。"""

    def step(model: nn.Module, batch: Any) -> StepOut:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise DataError(
                f"一批应是 (inputs, targets)，实际是 {type(batch).__name__}。"
                "别的结构请用 step=，自己写 step(model, batch)。"
            )
        inputs, targets = batch
        outputs = model(inputs)
        check_targets(loss, outputs, targets)
        return StepOut(loss(outputs, targets), len(targets), (outputs, targets))

    return step
