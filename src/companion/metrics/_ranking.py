"""排序的好坏：AUC。它要看全部样本的次序，所以得分都留着，到 ``compute`` 才排。"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from companion.errors import DataError
from companion.metrics._layout import Layout


class AUC:
    """ROC 曲线下的面积：随便取一个正样本、一个负样本，正的得分更高的概率（一样高算半个）。

    两类时第 1 类是正；多类时每一类轮流当正、其余当负，各算一次再平均，得分用 softmax 概率。
    全部得分都留在设备上：一百万个样本、十类，占 40 MB。

    Args:
        task: ``"binary"`` 一个得分分两类；``"multilabel"`` 各个标签的平均；默认几类挑一类。
        class_axis, ignore_index: 同 ``Accuracy``。
    """

    def __init__(
        self,
        *,
        task: str = "multiclass",
        class_axis: int = 1,
        ignore_index: int | None = -100,
    ) -> None:
        self._layout = Layout(task, class_axis, ignore_index).checked()
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批。

        Args:
            outputs: 类别得分（未经 softmax），形状 ``(B, C)`` 或 ``(B, C, …)``。
            targets: 类别编号，形状 ``(B,)`` 或 ``(B, …)``，``int64``。

        Raises:
            ShapeError, DtypeError: 见 ``errors.check_labels``。
        """
        outputs, targets = self._layout.scores(outputs.detach(), targets)
        if self._layout.task == "multiclass":
            outputs, targets = outputs.movedim(1, -1).flatten(0, -2), targets.flatten()
        elif self._layout.task == "binary":
            outputs, targets = outputs.reshape(-1, 1), targets.reshape(-1, 1)
        self._scores.append(outputs.clone())  # 调用的人可能接着改写这块内存
        self._labels.append(targets.clone())

    def compute(self) -> float:
        """``[0, 1]`` 内的数，瞎猜是 0.5；多类时只平均正负样本都有的类。

        Raises:
            DataError: 没有一类同时有正负样本，标签不在 ``0`` 到 ``C - 1`` 之间，或得分里有 nan。
        """
        if not self._scores:
            raise DataError("一个样本都没有，AUC 没有定义。请先 update 至少一批。")
        state = self.state_dict()
        scores, labels = state["scores"].double(), state["labels"]
        kept = self._layout.kept(labels)
        kept = torch.ones_like(labels, dtype=torch.bool) if kept is None else kept
        many = labels.ndim == 2
        _check_usable(scores, labels[kept], 2 if many else scores.shape[1])
        if many:
            columns = zip(scores.T, labels.T, kept.T, strict=True)
            areas = [_area(column[k], label[k] == 1) for column, label, k in columns]
        elif scores.shape[1] == 2:
            scores, labels = scores[kept], labels[kept]
            areas = [_area(scores[:, 1] - scores[:, 0], labels == 1)]
        else:
            scores, labels = (
                scores[kept],
                labels[kept],
            )  # 取对数不改变次序，又不会有一堆概率挤成 1.0
            each = scores.log_softmax(dim=1).unbind(dim=1)
            areas = [_area(column, labels == c) for c, column in enumerate(each)]
        known = [area for area in areas if area is not None]
        if not known:
            raise DataError("AUC 要有正样本也要有负样本，实际全是同一类。请换一个划分。")
        return sum(known) / len(known)

    def state_dict(self) -> dict[str, Any]:
        """``{"scores": (N, C), "labels": (N,)}``，在 CPU 上；没记过都是 ``None``。"""
        if not self._scores:
            return {"scores": None, "labels": None}
        scores, labels = (
            torch.cat([part.cpu() for part in parts]) for parts in (self._scores, self._labels)
        )
        return {"scores": scores, "labels": labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self.merge([state])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的：样本排在一起。"""
        given = [state for state in states if state["scores"] is not None]
        self._scores = [state["scores"] for state in given]
        self._labels = [state["labels"] for state in given]


def _check_usable(scores: Tensor, labels: Tensor, classes: int) -> None:
    wrong = int(((labels < 0) | (labels >= classes) | (labels != labels.round())).sum())
    if wrong:
        raise DataError(
            f"标签应在 0 到 {classes - 1} 之间，有 {wrong} 个不在。请检查类别编号是否从 0 开始。"
        )
    if scores.isnan().any():
        raise DataError("得分里有 nan，排不出次序。请先检查模型的输出。")


def _area(scores: Tensor, positive: Tensor) -> float | None:
    """按秩算的面积（Mann–Whitney U）：正样本的秩之和，减去最小可能，除以正负对数。"""
    _, group, sizes = scores.unique(return_inverse=True, return_counts=True)
    ranks = sizes.cumsum(0).double() - (sizes - 1) / 2  # 一样高的，秩取平均
    n_positive = int(positive.sum())
    pairs = n_positive * (len(positive) - n_positive)
    if pairs == 0:
        return None  # 缺正的或缺负的，没有定义
    above = float(ranks[group[positive]].sum()) - n_positive * (n_positive + 1) / 2
    return above / pairs
