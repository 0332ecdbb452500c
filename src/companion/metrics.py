"""指标：一批一批地 ``update``，最后 ``compute`` 一次。

比例都在 0 到 1 之间，都按样本算，所以最后一批短一点也不会算错。``update`` 只在设备上累加，
不把数值读回来；要等 GPU 的只有 ``compute``。约定与 torchmetrics 相同，它的指标可以直接混用。
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from companion.device import widest_float
from companion.errors import DataError, ShapeError, check_labels

__all__ = ["Accuracy", "ConfusionMatrix", "Mean", "Metric"]


class Metric(Protocol):
    """指标的约定：有这三个方法的对象都可以交给 ``train_epoch``、``evaluate`` 和 ``fit``。"""

    def update(self, outputs: Any, targets: Any, /) -> None:
        """记下一批：模型的输出和对应的目标。"""

    def compute(self) -> Any:
        """到目前为止全部批的指标。"""

    def reset(self) -> None:
        """忘掉全部，从头记。"""


class Mean:
    """加权平均。``fit`` 报告的损失就是这样算的：每批的平均损失按样本数加权。"""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._sum: Tensor | float = 0.0
        self._weight: Tensor | float = 0

    def update(self, value: Tensor, weight: Tensor | float = 1) -> None:
        """记下一个值。

        Args:
            value: 一批的平均值，形状 ``()``；梯度会被切断，数值留在原来的设备上。
            weight: 它代表几个样本（或词元），不为负。

        Raises:
            ShapeError: ``value`` 不是标量。
        """
        if value.ndim:
            raise ShapeError(f"value 应为标量，实际形状是 {tuple(value.shape)}。请先取 mean()。")
        wide = value.detach().to(widest_float(value.device))
        self._sum = self._sum + wide * weight  # 不写 +=：就地改写会被 inference_mode 拒绝
        self._weight = self._weight + weight

    def compute(self) -> float:
        """加权平均值；单位与 ``value`` 相同。

        Raises:
            DataError: 总权重是 0，平均值没有定义。
        """
        weight = float(self._weight)
        if weight == 0:
            raise DataError("总权重是 0，平均值没有定义。请先 update 至少一个样本。")
        return float(self._sum) / weight


class Accuracy:
    """分类准确率：猜对的样本占全部样本的比例。"""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._correct: Tensor | int = 0
        self._total = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批。

        Args:
            outputs: 类别得分，形状 ``(B, C)`` 或 ``(B, C, …)``；最大的一类算作预测。
            targets: 类别编号，形状 ``(B,)`` 或 ``(B, …)``，``int64``。

        Raises:
            ShapeError, DtypeError: 见 ``errors.check_labels``。
        """
        check_labels(outputs, targets)
        self._correct = self._correct + (outputs.argmax(dim=1) == targets).sum()
        self._total += targets.numel()

    def compute(self) -> float:
        """``[0, 1]`` 内的比例，不是百分数。

        Raises:
            DataError: 一个样本都没有记。
        """
        if self._total == 0:
            raise DataError("一个样本都没有，准确率没有定义。请先 update 至少一批。")
        return int(self._correct) / self._total


class ConfusionMatrix:
    """混淆矩阵：第 i 行第 j 列，是真实为 i、被猜成 j 的样本数。"""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记；类别数也从下一批重新得知。"""
        self._counts: Tensor | None = None
        self._classes = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；参数与 ``Accuracy.update`` 相同，类别数 ``C`` 取自 ``outputs``。

        Raises:
            ShapeError, DtypeError: 见 ``errors.check_labels``；或各批的类别数不同。
        """
        check_labels(outputs, targets)
        classes = outputs.shape[1]
        if self._counts is None:
            self._classes = classes
            self._counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=outputs.device)
        elif classes != self._classes:
            raise ShapeError(
                f"类别数应与前面的批相同，是 {self._classes}，实际是 {classes}。先 reset()。"
            )
        truth, guess = targets.flatten(), outputs.argmax(dim=1).flatten()
        cell = truth * classes + guess
        legal = (truth >= 0) & (truth < classes)
        cell = torch.where(legal, cell, classes**2)  # 不合法的标签记在最后一格，到 compute 再说
        self._counts = self._counts.index_add(0, cell, torch.ones_like(cell))

    def compute(self) -> Tensor:
        """样本数，形状 ``(C, C)``，``int64``，在 CPU 上。行是真实类别，列是预测类别。

        Raises:
            DataError: 一个样本都没有记，或有标签不在 ``0`` 到 ``C - 1`` 之间。
        """
        if self._counts is None:
            raise DataError("一个样本都没有，混淆矩阵没有定义。请先 update 至少一批。")
        counts = self._counts.cpu()
        if counts[-1] > 0:
            raise DataError(
                f"标签应在 0 到 {self._classes - 1} 之间，有 {int(counts[-1])} 个不在。"
                "请检查类别编号是否从 0 开始。"
            )
        return counts[:-1].reshape(self._classes, self._classes)
