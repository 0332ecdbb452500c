"""分类的对错：准确率、精确率、召回率、F1、混淆矩阵。怎样读输出和目标，见 ``_layout.Layout``。"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from companion.errors import ShapeError, check_choice, check_whole
from companion.metrics._counts import ClassCounts, Hits, check_counted
from companion.metrics._layout import Layout, check_top_k

_AVERAGES = ("macro", "micro", "weighted", None)


class Accuracy:
    """分类准确率：猜对的占全部的比例；``task="binary"``、``"multilabel"`` 时逐个元素算。

    Args:
        top_k: 得分最高的前几类里有正确的，就算猜对。
        task: ``"multiclass"`` 几类挑一类；``"binary"`` 一个得分分两类；``"multilabel"`` 一个样本有
            几个标签，形状 ``(B, L)``。
        class_axis: 几类挑一类时，类别在输出的第几维。
        ignore_index: 目标是它的位置不算；``None`` 是都算。
        threshold: 后两种里，得分大于它就判成 1：logits 写 0，概率写 0.5。

    Raises:
        ArgumentError: 取值不对。
    """

    def __init__(
        self,
        *,
        top_k: int = 1,
        task: str = "multiclass",
        class_axis: int = 1,
        ignore_index: int | None = -100,
        threshold: float = 0.0,
    ) -> None:
        self._layout = Layout(task, class_axis, ignore_index, threshold).checked()
        self._top_k = check_top_k(check_whole("top_k", top_k), task)
        self._hits = Hits(self._layout)

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._hits.reset()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批。

        Args:
            outputs: 类别得分，形状 ``(B, C)`` 或 ``(B, C, …)``；最大的一类算作预测。
            targets: 类别编号，形状 ``(B,)`` 或 ``(B, …)``，``int64``。

        Raises:
            ShapeError, DtypeError: 两者配不上，消息里写着怎么改。
        """
        outputs, targets = self._layout.scores(outputs, targets)
        if self._top_k > 1:
            best = outputs.topk(min(self._top_k, outputs.shape[1]), dim=1).indices
            right = (best == targets.unsqueeze(1)).any(dim=1)
        else:
            right = self._layout.guesses(outputs) == targets
        limit = outputs.shape[1] if self._layout.task == "multiclass" else 2
        self._hits.add(right, targets, limit)

    def compute(self) -> float:
        """``[0, 1]`` 内的比例，不是百分数。

        Raises:
            DataError: 一个样本都没有记，或有标签不合法。
        """
        correct, total, illegal = self._hits.totals()
        check_counted(illegal, total, "准确率", self._hits.classes)
        return correct / total

    def state_dict(self) -> dict[str, Any]:
        """``{"correct": 猜对几个, "total": 一共几个, "illegal": 几个标签不合法}``。"""
        return dict(zip(("correct", "total", "illegal"), self._hits.totals(), strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self.merge([state])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的：各自相加。"""
        names = ("correct", "total", "illegal")
        self._hits.load([sum(state[name] for state in states) for name in names])


class ConfusionMatrix:
    """混淆矩阵：第 i 行第 j 列，是真实为 i、被猜成 j 的样本数。

    Args:
        class_axis, ignore_index: 同 ``Accuracy``。
    """

    def __init__(self, *, class_axis: int = 1, ignore_index: int | None = -100) -> None:
        self._layout = Layout("multiclass", class_axis, ignore_index)
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记；类别数也从下一批重新得知。"""
        self._counts: Tensor | None = None
        self._classes = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；参数与 ``Accuracy.update`` 相同，类别数 ``C`` 取自 ``outputs``。

        Raises:
            ShapeError, DtypeError: 两者配不上；或各批的类别数不同。
        """
        outputs, targets = self._layout.scores(outputs, targets)
        classes = outputs.shape[1]
        if self._counts is None:
            self._classes = classes
            self._counts = torch.zeros(classes**2 + 2, dtype=torch.int64, device=outputs.device)
        elif classes != self._classes:
            raise ShapeError(
                f"类别数应与前面的批相同，是 {self._classes}，实际是 {classes}。先 reset()。"
            )
        truth, guess = targets.flatten(), outputs.argmax(dim=1).flatten()
        legal = (truth >= 0) & (truth < classes)
        cell = torch.where(legal, truth * classes + guess, classes**2)  # 不合法的，到 compute 再说
        kept = self._layout.kept(truth)
        if kept is not None:
            cell = torch.where(kept, cell, classes**2 + 1)  # 最后一格是不算的
        counts = self._counts.to(cell.device)  # 从存档接着记时，它还在 CPU 上
        self._counts = counts.index_add(0, cell, torch.ones_like(cell))

    def compute(self) -> Tensor:
        """样本数，形状 ``(C, C)``，``int64``，在 CPU 上。行是真实类别，列是预测类别。

        Raises:
            DataError: 一个样本都没有记，或有标签不在 ``0`` 到 ``C - 1`` 之间。
        """
        counts = torch.zeros(2).long() if self._counts is None else self._counts.cpu()
        check_counted(int(counts[-2]), int(counts[:-2].sum()), "混淆矩阵", self._classes)
        return counts[:-2].reshape(self._classes, self._classes)

    def state_dict(self) -> dict[str, Any]:
        """``{"classes": C, "counts": 逐格的个数}``，形状 ``(C² + 2,)``；没记过是 ``None``。"""
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


class _PerClass:
    """一类一个数，再合成一个；只占 O(C)。"""

    _name = ""

    def __init__(
        self,
        average: str | None = "macro",
        *,
        task: str = "multiclass",
        class_axis: int = 1,
        ignore_index: int | None = -100,
        threshold: float = 0.0,
    ) -> None:
        check_choice("average", average, _AVERAGES)
        self.average = average
        self._layout = Layout(task, class_axis, ignore_index, threshold).checked()
        self._counts = ClassCounts(self._layout)

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._counts.reset()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；参数与 ``Accuracy.update`` 相同。

        Raises:
            ShapeError, DtypeError: 两者配不上，或各批的类别数不同。
        """
        self._counts.add(outputs, targets)

    def compute(self) -> float | Tensor:
        """``[0, 1]`` 内的数；``average=None`` 时是各类的，形状 ``(C,)``，``float64``，在 CPU 上。

        既没有出现、也没有被猜过的类没有定义：``None`` 时是 nan，``"macro"`` 时不参加平均。出现了、
        分母却是 0 的类算 0。

        Raises:
            DataError: 一个样本都没有记，或标签不合法。
        """
        counts = self._counts.compute(self._name)
        truths, guesses, hits = counts
        if self._layout.task == "binary":
            return float(self._score(truths[1], guesses[1], hits[1]).nan_to_num())
        if self.average == "micro":
            return float(self._score(*counts.sum(dim=1)).nan_to_num())
        seen = (truths + guesses > 0) | (self._layout.task == "multilabel")
        each = self._score(truths, guesses, hits).nan_to_num().where(seen, torch.nan)
        if self.average is None:
            return each
        if self.average == "weighted":
            return float((each.nan_to_num() * truths).sum() / truths.sum().clamp(min=1))
        return float(each.nanmean())

    def state_dict(self) -> dict[str, Any]:
        """``{"counts": 各类真的、判的、对的个数, "illegal": 不合法的个数}``。"""
        return self._counts.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self._counts.merge([state])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的。"""
        self._counts.merge(states)

    def _score(self, truths: Tensor, guesses: Tensor, hits: Tensor) -> Tensor:
        raise NotImplementedError


class Precision(_PerClass):
    """精确率：判成这一类的里面，真是这一类的占几成。

    Args:
        average: ``"macro"`` 各类同样重要；``"micro"`` 各样本同样重要；``"weighted"`` 按各类真实的
            个数加权；``None`` 不合并，返回各类的。``task="binary"`` 时只看第 1 类，用不到它。
        task, class_axis, ignore_index, threshold: 同 ``Accuracy``。
    """

    _name = "精确率"

    def _score(self, truths: Tensor, guesses: Tensor, hits: Tensor) -> Tensor:
        return hits / guesses


class Recall(_PerClass):
    """召回率：真是这一类的里面，判出来的占几成。参数同 ``Precision``。"""

    _name = "召回率"

    def _score(self, truths: Tensor, guesses: Tensor, hits: Tensor) -> Tensor:
        return hits / truths


class F1(_PerClass):
    """F1：精确率与召回率的调和平均 ``2·TP / (2·TP + FP + FN)``。参数同 ``Precision``。"""

    _name = "F1 "

    def _score(self, truths: Tensor, guesses: Tensor, hits: Tensor) -> Tensor:
        return 2 * hits / (truths + guesses)
