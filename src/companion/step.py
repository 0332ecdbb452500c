"""一步：一批数据怎么变成一个损失，一轮的损失和指标怎么攒起来。``train`` 建在它上面。"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from companion.device import model_device, to_device
from companion.errors import ArgumentError, DataError, ShapeError, check_targets
from companion.metrics import Mean, Metric

__all__ = ["Loss", "Record", "Step", "StepOut", "Totals", "make_forward"]


class StepOut(NamedTuple):
    """一步的结果，``step`` 返回它。"""

    loss: Tensor  # 这一批的平均损失，形状 ()，带着计算图
    n: int | Tensor  # 它是几个样本（或词元）的平均；一轮的损失按它加权
    values: tuple[Tensor, ...] = ()  # 每个指标都 update(*values)，通常是 (outputs, targets)


Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[nn.Module, Any], StepOut]
Record = dict[str, Any]


class Totals:
    """一轮里的平均损失和各指标；``add`` 只在设备上累加，``compute`` 才读出数值。"""

    def __init__(self, metrics: Mapping[str, Metric] | None) -> None:
        self.loss, self.metrics, self.empty = Mean(), dict(metrics or {}), True
        if "loss" in self.metrics:
            raise ArgumentError('指标不能叫 "loss"，这个名字留给损失。请换一个名字。')
        for metric in self.metrics.values():
            metric.reset()

    def add(self, out: StepOut) -> None:
        """记下一步；梯度会被切断。"""
        self.empty = False
        self.loss.update(out.loss, out.n)
        if self.metrics and not out.values:
            raise ArgumentError("要算指标，step 应返回 StepOut(loss, n, (outputs, targets))。")
        values = [value.detach() for value in out.values]
        for metric in self.metrics.values():
            metric.update(*values)

    def compute(self) -> Record:
        """``{"loss": …, 指标名: …}``；标量都是 Python 数。

        Raises:
            DataError: 一步都没有记。
        """
        if self.empty:
            raise DataError(
                "加载器应至少给出一批，实际一批也没有。检查：数据集是不是空的；样本不足一批而 "
                "drop_last=True；它是不是只能走一遍的生成器（第二轮就空了，请换成 DataLoader）。"
            )
        results = {name: metric.compute() for name, metric in self.metrics.items()}
        return {"loss": self.loss.compute()} | {
            name: value.item() if isinstance(value, Tensor) and value.ndim == 0 else value
            for name, value in results.items()
        }


def make_forward(
    model: nn.Module, loss: Loss | None, step: Step | None
) -> Callable[[Any], StepOut]:
    """同一种函数：一批数据进，``StepOut`` 出，不论给的是 ``loss`` 还是 ``step``。

    Raises:
        ArgumentError: ``loss`` 和 ``step`` 都给了或都没给；或 ``step`` 返回的不是 ``StepOut``。
        DataError, ShapeError, DtypeError: 一批数据不是约定的样子，消息里写着怎么改。
    """
    if step is not None and loss is None:
        chosen = step
    elif loss is not None and step is None:
        chosen = _pair_step(loss)
    else:
        given = "都没给" if loss is None else "都给了"
        raise ArgumentError(f"loss 和 step 应给且只给一个，实际{given}。分类、回归给 loss 就够了。")
    device = model_device(model)

    def forward(batch: Any) -> StepOut:
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
