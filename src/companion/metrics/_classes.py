"""分类的对错：准确率、混淆矩阵、F1。输出都是 ``(B, C)`` 的得分，最大的一类算作预测。"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from companion.errors import DataError, ShapeError, check_choice, check_labels


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
        right = outputs.argmax(dim=1) == targets
        self._correct = self._correct + right.count_nonzero()  # 比 sum() 快
        self._total += targets.numel()

    def compute(self) -> float:
        """``[0, 1]`` 内的比例，不是百分数。

        Raises:
            DataError: 一个样本都没有记。
        """
        if self._total == 0:
            raise DataError("一个样本都没有，准确率没有定义。请先 update 至少一批。")
        return int(self._correct) / self._total

    def state_dict(self) -> dict[str, Any]:
        """``{"correct": 猜对几个, "total": 一共几个}``。"""
        return {"correct": int(self._correct), "total": self._total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self._correct, self._total = state["correct"], state["total"]

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的：两个数各自相加。"""
        self._correct = sum(state["correct"] for state in states)
        self._total = sum(state["total"] for state in states)


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
        counts = self._counts.to(cell.device)  # 从存档接着记时，它还在 CPU 上
        self._counts = counts.index_add(0, cell, torch.ones_like(cell))

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

    def state_dict(self) -> dict[str, Any]:
        """``{"classes": C, "counts": 逐格的个数}``，形状 ``(C² + 1,)``；没记过是 ``None``。"""
        counts = None if self._counts is None else self._counts.cpu()
        return {"classes": self._classes, "counts": counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self._classes, self._counts = state["classes"], state["counts"]

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的：逐格相加。

        Raises:
            ShapeError: 各份的类别数不同。
        """
        given = [state for state in states if state["counts"] is not None]
        sizes = sorted({state["classes"] for state in given})
        if len(sizes) > 1:
            raise ShapeError(f"各份的类别数应相同，实际是 {sizes}。请检查各进程的模型是否一样。")
        self.reset()
        if given:
            self._classes = sizes[0]
            self._counts = torch.stack([state["counts"] for state in given]).sum(dim=0)


class F1:
    """F1：精确率与召回率的调和平均 ``2·TP / (2·TP + FP + FN)``，一类一个，再合成一个数。

    Args:
        average: ``"macro"`` 各类同样重要；``"micro"`` 各样本同样重要，这时就等于准确率；
            ``None`` 不合并，返回各类的。

    Raises:
        ArgumentError: ``average`` 不是这三个之一。
    """

    def __init__(self, average: str | None = "macro") -> None:
        check_choice("average", average, ("macro", "micro", None))
        self.average, self._matrix = average, ConfusionMatrix()

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._matrix.reset()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；参数与 ``Accuracy.update`` 相同。

        Raises:
            ShapeError, DtypeError: 见 ``ConfusionMatrix.update``。
        """
        self._matrix.update(outputs, targets)

    def compute(self) -> float | Tensor:
        """``[0, 1]`` 内的数；``average=None`` 时是各类的，形状 ``(C,)``，``float64``，在 CPU 上。

        既没有出现、也没有被猜过的类没有 F1：``None`` 时是 nan，``"macro"`` 时不参加平均。

        Raises:
            DataError: 一个样本都没有记，或标签不合法。
        """
        counts = self._matrix.compute().double()
        hits, truths, guesses = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
        if self.average == "micro":
            return float(hits.sum() / counts.sum())
        each = 2 * hits / (truths + guesses)
        return each if self.average is None else float(each.nanmean())

    def state_dict(self) -> dict[str, Any]:
        """混淆矩阵的 ``state_dict``。"""
        return self._matrix.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self._matrix.load_state_dict(state)

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的。"""
        self._matrix.merge(states)
