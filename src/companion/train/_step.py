"""一步：一批数据怎么变成一个损失。``train_epoch`` 和 ``evaluate`` 建在它上面。"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from companion.device import model_device, to_device
from companion.errors import ArgumentError, DataError, ShapeError, check_choice
from companion.train._loss import Loss, averaged

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class StepOut(NamedTuple):
    """一步的结果，``step`` 返回它。"""

    loss: Tensor  # 这一批的平均损失，形状 ()，带着计算图
    n: float | Tensor  # 它是几个样本（或词元）的平均；张量取它的和，所以掩码也行；0 是这批不算
    values: tuple[Any, ...] = ()  # 每个指标都 update(*values)，通常是 (outputs, targets)


Step = Callable[[nn.Module, Any], StepOut]
Forward = Callable[[Any], StepOut]
Record = dict[str, Any]


def make_forward(
    model: nn.Module, loss: Loss | None, step: Step | None, precision: str = "fp32"
) -> Forward:
    """同一种函数：一批数据进，``StepOut`` 出，不论给的是 ``loss`` 还是 ``step``。

    ``precision`` 是 ``"bf16"`` 或 ``"fp16"`` 时在 ``torch.autocast`` 里算，权重仍是 ``float32``。

    Raises:
        ArgumentError: ``loss`` 和 ``step`` 都给了或都没给；``loss`` 不是平均；``step`` 返回的不对。
        DataError, ShapeError, DtypeError: 一批数据不是约定的样子，消息里写着怎么改。
    """
    check_choice("precision", precision, PRECISIONS)
    device = model_device(model)
    if loss is not None and step is None:
        forward = _from_loss(model, loss, device)
    elif step is not None and loss is None:
        forward = _from_step(model, step, device)
    else:
        given = "都没给" if loss is None else "都给了"
        raise ArgumentError(f"loss 和 step 应给且只给一个，实际{given}。分类、回归给 loss 就够了。")
    forward = one_sample_explained()(forward)
    if precision == "fp32":
        return forward
    return torch.autocast(device.type, PRECISIONS[precision])(forward)  # type: ignore[no-any-return]


class OneSampleError(DataError):
    """训练时批归一化只收到一个样本。"""


@contextmanager
def one_sample_explained() -> Iterator[None]:
    """里面出了 torch 那句「一个样本算不了批归一化」，就换成说得清的；别的照旧。"""
    try:
        yield
    except (ValueError, RuntimeError) as error:  # 编译过的模型报的是后一种
        if "more than 1 value per channel" not in str(error):
            raise
        raise OneSampleError(
            "训练时批归一化要至少两个样本，实际有一批只有 1 个，算不出方差。最后一批剩下一个的，"
            "请给加载器 drop_last=True，或换一个 batch_size；只想预测的，请先 model.eval()。"
        ) from error


def _from_loss(model: nn.Module, loss: Loss, device: torch.device) -> Forward:
    """一批是 ``(inputs, targets)``。"""
    judge = averaged(loss)

    def forward(batch: Any) -> StepOut:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            _refuse_batch(batch)
        inputs, targets = to_device(batch, device)
        outputs = model(inputs)
        value, n = judge(outputs, targets)
        _check_loss(value)
        return StepOut(value, n, (outputs, targets))

    return forward


def _from_step(model: nn.Module, step: Step, device: torch.device) -> Forward:
    """一批是什么、损失怎么算，都由 ``step`` 定；返回的要核对。"""
    if isinstance(step, type) or not callable(step):
        raise ArgumentError(
            f"step 应是函数 step(model, batch)，实际是 {type(step).__name__}。请写一个函数。"
        )

    def forward(batch: Any) -> StepOut:
        out = step(model, to_device(batch, device))
        if not isinstance(out, StepOut):
            name = type(out).__name__
            raise ArgumentError(f"step 应返回 StepOut(loss, n, values)，实际返回了 {name}。")
        _check_loss(out.loss)
        if not isinstance(out.values, tuple | list):
            raise ArgumentError(
                f"StepOut 的 values 应是元组，实际是 {type(out.values).__name__}。"
                "请写成 (outputs, targets)，一个的写成 (outputs,)。"
            )
        return StepOut(out.loss, _checked_n(out.n), tuple(out.values))

    return forward


def _checked_n(n: Any) -> float | Tensor:
    """个数；CPU 上的张量这时就读成 Python 数，别的设备上的不读。"""
    if isinstance(n, Tensor):
        n = n.detach().sum()
        if n.device.type != "cpu":
            return n  # type: ignore[no-any-return]
        n = n.item()
    if not isinstance(n, Real) or not 0 <= float(n) < math.inf:
        raise ArgumentError(
            f"StepOut 的 n 应是不小于 0 的个数（loss 是几个样本的平均），实际是 {n!r}。"
            "一批几个样本就写 len(targets)；按词元平均的写词元数。"
        )
    return n if isinstance(n, int) else float(n)


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Tensor):
        raise ArgumentError(
            f"损失应是形状 () 的张量，实际是 {type(loss).__name__}。请别 .item()，也别转成 float。"
        )
    if loss.ndim:
        raise ShapeError(f"损失应是标量，实际形状是 {tuple(loss.shape)}。请先取 mean()。")


def _refuse_batch(batch: Any) -> None:
    actual = type(batch).__name__
    if isinstance(batch, list | tuple):
        actual = f"{len(batch)} 项的 {actual}"
    raise DataError(
        f"一批应是 (inputs, targets)，实际是{' ' if actual[0].isascii() else ''}{actual}。"
        "别的结构请用 step=，自己写 step(model, batch)。"
    )
