"""排序的好坏：AUC。它要看全部样本的次序，所以得分都留着，到 ``compute`` 才排。"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from companion.errors import DataError
from companion.metrics._layout import Layout, check_sizes, check_state
from companion.metrics._tally import check_counted


class AUC:
    """ROC 曲线下的面积：随便取一个正样本、一个负样本，正的得分更高的概率（一样高算半个）。

    两类时第 1 类是正；多类时每一类轮流当正、其余当负，各算一次再平均，得分用 softmax 概率。inf 当作
    比别的都大的数。全部得分都留在设备上：一百万个样本、十类，占 40 MB。

    Args:
        task: ``"binary"`` 一个得分分两类；``"multilabel"`` 各个标签的平均；默认几类挑一类。
        class_axis, ignore_index: 同 ``Accuracy``。
    """

    def __init__(
        self,
        *,
        task: str = "multiclass",
        class_axis: int | None = None,
        ignore_index: int | None = -100,
    ) -> None:
        self._layout = Layout(task, class_axis, ignore_index).checked()
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；参数与 ``Accuracy.update`` 相同，得分未经 softmax。

        Raises:
            ArgumentError, ShapeError, DtypeError: 两者配不上，或各批的类别数不同。
        """
        outputs, targets = self._layout.flat(*self._layout.read(outputs, targets))
        check_sizes("类别数", map(self._layout.columns, [outputs, *self._scores[-1:]]))
        self._scores.append(outputs.clone())  # 调用的人可能接着改写这块内存
        self._labels.append(targets.clone())

    def compute(self) -> float:
        """``[0, 1]`` 内的数，瞎猜是 0.5；多类时只平均正负样本都有的类。

        Raises:
            DataError: 没有一类同时有正负样本，标签不合法，或得分里有 nan。
        """
        state = self.state_dict()
        if state["scores"] is None:
            raise DataError("一个样本都没有，AUC 没有定义。请先 update 至少一批。")
        scores = state["scores"].double()
        columns = self._layout.columns(scores)
        truth, kept, used = self._layout.marks(state["labels"], columns)
        many = self._layout.task == "multiclass"
        broken = scores.isnan().any(dim=1) if many else scores.isnan()
        found = [int(part.sum()) for part in (kept, used, broken & used)]
        check_counted("AUC ", self._layout.limit(columns), *found)
        if many:
            pairs = _one_against_rest(_bounded(scores[used]), truth[used])
        else:
            parts = (part.reshape(len(part), -1).unbind(dim=1) for part in (scores, truth, used))
            pairs = [(s[kept], t[kept] == 1) for s, t, kept in zip(*parts, strict=True)]
        known = [area for area in (_area(*pair) for pair in pairs) if area is not None]
        if not known:
            raise DataError("AUC 要有正样本也要有负样本，实际全是同一类。请换一个划分。")
        return sum(known) / len(known)

    def state_dict(self) -> dict[str, Any]:
        """``{task: 几类, "scores": 得分, "labels": 标签}``，各批接在一起，在 CPU 上。

        没记过都是 ``None``。
        """
        if not self._scores:
            return {self._layout.task: None, "scores": None, "labels": None}
        scores, labels = (
            torch.cat([part.cpu() for part in parts]) for parts in (self._scores, self._labels)
        )
        return {self._layout.task: self._layout.columns(scores), "scores": scores, "labels": labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self.merge([state])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的：样本排在一起。

        Raises:
            ArgumentError: 是别的指标、别的 ``task`` 存下的。
            ShapeError: 各份的类别数不同。
        """
        for state in states:
            check_state(state, (self._layout.task, "scores", "labels"))
        given = [state for state in states if state["scores"] is not None]
        check_sizes("类别数", (state[self._layout.task] for state in given))
        self._scores = [state["scores"].clone() for state in given]
        self._labels = [state["labels"].clone() for state in given]


def _bounded(scores: Tensor) -> Tensor:
    """inf 换成比别的都大得多的数：inf 减 inf 是 nan，排不了序。"""
    far = 4 * scores.where(scores.isfinite(), 0).abs().max().clamp(max=1e300) + 1000
    return scores.clamp(-far, far)


def _one_against_rest(scores: Tensor, truth: Tensor) -> list[tuple[Tensor, Tensor]]:
    """每一类的得分，和哪些是正的；两类只看第 1 类。"""
    if scores.shape[1] == 2:
        return [(scores[:, 1] - scores[:, 0], truth == 1)]
    each = scores.log_softmax(dim=1)  # 取对数不改变次序，又不会有一堆概率挤成 1.0
    return [(column, truth == c) for c, column in enumerate(each.unbind(dim=1))]


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
