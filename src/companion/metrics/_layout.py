"""分类的输出是什么样，怎么变成一个个的预测和标签：几类挑一类，一个得分分两类，一样本几个标签。

标签是 ``ignore_index`` 的位置一律不算；别的标签不合法，``update`` 时不读数值，到 ``compute`` 才说。
"""

from typing import NamedTuple

import torch
from torch import Tensor

from companion.errors import ArgumentError, DtypeError, ShapeError, check_choice, check_labels

TASKS = ("multiclass", "binary", "multilabel")


class Layout(NamedTuple):
    """怎么读一批输出和目标。

    Args:
        task: ``"multiclass"`` 类别得分在 ``class_axis`` 那一维，目标是类别编号；``"binary"`` 一个
            样本一个得分，目标同形状，0 或 1；``"multilabel"`` 形状 ``(B, L)`` 的得分，目标同形状。
        class_axis: 类别在输出的第几维。
        ignore_index: 目标是它的位置不算；``None`` 是都算。
        threshold: 后两种里，得分大于它就判成 1：logits 写 0，概率写 0.5。
    """

    task: str = "multiclass"
    class_axis: int = 1
    ignore_index: int | None = -100
    threshold: float = 0.0

    def checked(self) -> "Layout":
        """取值都对就是自己，否则报错。"""
        check_choice("task", self.task, TASKS)
        return self

    def scores(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """类别在第 1 维的得分和目标；形状、dtype 核对过。"""
        if self.task != "multiclass":
            check_marks(outputs, targets, self.task)
            return outputs, targets
        if self.class_axis == 1 and outputs.ndim == 2 and outputs.shape[1] > 1:  # 最常见，每步都走
            check_labels(outputs, targets)
            return outputs, targets
        if self.class_axis != 1 and outputs.ndim > 1:
            outputs = outputs.movedim(self.class_axis, 1)
        elif outputs.ndim > 2 and targets.shape == outputs.shape[:-1] != _without(outputs):
            raise ShapeError(
                f"类别应在输出的第 1 维，输出的形状是 {tuple(outputs.shape)}，目标是 "
                f"{tuple(targets.shape)}，看起来在最后一维。指标请写 class_axis=-1；"
                "交叉熵请先 outputs.transpose(1, -1)。"
            )
        check_classes(outputs)
        check_labels(outputs, targets)
        return outputs, targets

    def guesses(self, outputs: Tensor) -> Tensor:
        """预测，与目标同形状：类别编号，或 0 和 1。"""
        if self.task == "multiclass":
            return outputs.argmax(dim=1)
        return outputs > self.threshold

    def kept(self, targets: Tensor) -> Tensor | None:
        """哪些位置算；都算是 ``None``。"""
        return None if self.ignore_index is None else targets != self.ignore_index


def _without(outputs: Tensor) -> torch.Size:
    return outputs.shape[:1] + outputs.shape[2:]


def check_classes(outputs: Tensor) -> None:
    """不止一类就什么也不做：一列的得分取最大，永远是第 0 类。"""
    if outputs.ndim > 1 and outputs.shape[1] == 1:
        raise ShapeError(
            f"几类挑一类，类别那一维应不止 1，实际形状是 {tuple(outputs.shape)}。一个得分分两类的，"
            '请写 task="binary"，目标与输出同形状；或者每类一列。'
        )


def check_marks(outputs: Tensor, targets: Tensor, task: str) -> None:
    """输出和 0、1 的目标形状相同，就什么也不做。"""
    if outputs.shape != targets.shape:
        raise ShapeError(
            f'task="{task}" 时目标的形状应与输出相同，是 {tuple(outputs.shape)}，实际是 '
            f"{tuple(targets.shape)}。少一维用 targets[:, None]，多一维用 squeeze(1)。"
        )
    if task == "multilabel" and outputs.ndim != 2:
        raise ShapeError(f"多标签的输出形状应为 (B, L)，实际是 {tuple(outputs.shape)}。")
    if targets.is_complex():
        raise DtypeError(f"目标应是 0 和 1，实际是 {targets.dtype}。")


def check_top_k(top_k: int, task: str) -> int:
    """前几名；只有几类挑一类才有前几名。"""
    if top_k > 1 and task != "multiclass":
        raise ArgumentError(f'top_k 只用于 task="multiclass"，实际 task 是 {task!r}。请去掉它。')
    return top_k
