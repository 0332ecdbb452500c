"""分类的对错：准确率、精确率、召回率、F1、混淆矩阵、困惑度。

怎样读输出和目标，见 ``_layout.Layout``；攒、存、合并，见 ``_tally.Tally``。
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from companion.device import widest_float
from companion.errors import check_choice
from companion.metrics._layout import TASKS, Layout, check_used
from companion.metrics._tally import Tally, bins

_AVERAGES = ("macro", "micro", "weighted", None)


class Accuracy(Tally):
    """分类准确率：猜对的占全部的比例；``task="binary"``、``"multilabel"`` 时逐个元素算。

    Args:
        top_k: 得分最高的前几类里有正确的，就算猜对。
        task: ``"multiclass"`` 几类挑一类；``"binary"`` 一个得分分两类；``"multilabel"`` 一个样本有
            几个标签，形状 ``(B, L)``。
        class_axis: 几类挑一类时，类别在输出的第几维。``None`` 是第 1 维，与 torch 的交叉熵相同；
            目标看起来配的是最后一维，或两头都配得上（如 ``T == V``），就要写明 1 或 -1。
        ignore_index: 目标是它的位置不算；``None`` 是都算。
        threshold: 后两种里，得分大于它就判成 1：logits 写 0，概率写 0.5。

    Raises:
        ArgumentError: 取值不对，或这种 ``task`` 用不到它。
    """

    _name, _key = "准确率", "correct"
    _fixed = False  # 拿一批里别的样本当候选的，类别数随批的大小变

    def __init__(
        self,
        *,
        top_k: int = 1,
        task: str = "multiclass",
        class_axis: int | None = None,
        ignore_index: int | None = -100,
        threshold: float = 0.0,
    ) -> None:
        super().__init__(Layout(task, class_axis, ignore_index, threshold, top_k))

    def compute(self) -> float:
        """``[0, 1]`` 内的比例，不是百分数。

        Raises:
            DataError: 一个样本都没有记，有标签不合法，或得分里有 nan。
        """
        correct, total = self._totals()
        return int(correct) / total

    def _count(self, outputs: Tensor, truth: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        guess, broken = self._layout.guesses(outputs, truth)
        return ((guess == truth) & used).sum().unsqueeze(0), broken


class ConfusionMatrix(Tally):
    """混淆矩阵：第 i 行第 j 列，是真实为 i、被猜成 j 的样本数。

    Args:
        task: ``"multiclass"`` 或 ``"binary"``；后一种是 2×2。
        class_axis, ignore_index, threshold: 同 ``Accuracy``。
    """

    _name, _key = "混淆矩阵", "matrix"

    def __init__(
        self,
        *,
        task: str = "multiclass",
        class_axis: int | None = None,
        ignore_index: int | None = -100,
        threshold: float = 0.0,
    ) -> None:
        super().__init__(Layout(task, class_axis, ignore_index, threshold), TASKS[:2])

    def compute(self) -> Tensor:
        """样本数，形状 ``(C, C)``，``int64``，在 CPU 上。行是真实类别，列是预测类别。

        Raises:
            DataError: 同 ``Accuracy.compute``。
        """
        counts, _ = self._totals()
        side = self._layout.limit(self._classes or 0)
        return counts.reshape(side, side)

    def _count(self, outputs: Tensor, truth: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        guess, broken = self._layout.guesses(outputs, truth)
        side = self._layout.limit(self._layout.columns(outputs))
        return bins(truth * side + guess, used, side**2), broken


class _PerClass(Tally):
    """一类一个数，再合成一个；只占 O(C)。"""

    def __init__(
        self,
        average: str | None = "macro",
        *,
        task: str = "multiclass",
        class_axis: int | None = None,
        ignore_index: int | None = -100,
        threshold: float = 0.0,
    ) -> None:
        super().__init__(Layout(task, class_axis, ignore_index, threshold))
        check_choice("average", average, _AVERAGES)
        check_used("average", average, "macro", task, ("multiclass", "multilabel"))
        self.average = average

    def compute(self) -> float | Tensor:
        """``[0, 1]`` 内的数；``average=None`` 时是各类的，形状 ``(C,)``，``float64``，在 CPU 上。

        既没有出现、也没有被猜过的类没有定义：``None`` 时是 nan，``"macro"`` 时不参加平均。出现了、
        分母却是 0 的类算 0。

        Raises:
            DataError: 同 ``Accuracy.compute``。
        """
        counts = self._totals()[0].double().reshape(3, -1)
        many = self._layout.task == "multiclass"
        counts = counts if many else counts[:, 1::2]  # 各个标签只看判成 1 的
        truths, guesses, hits = (
            counts.sum(dim=1, keepdim=True) if self.average == "micro" else counts
        )
        each = self._score(truths, guesses, hits).nan_to_num()
        if self.average == "weighted":
            return float((each * truths).sum() / truths.sum().clamp(min=1))
        if many:
            each = each.where(truths + guesses > 0, torch.nan)
        return each if self.average is None else float(each.nanmean())

    def _count(self, outputs: Tensor, truth: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        guess, broken = self._layout.guesses(outputs, truth)
        size = self._layout.columns(outputs)
        right = used & (guess == truth)
        if self._layout.task != "multiclass":  # 第 l 个标签的 0 和 1，是第 2l 和 2l + 1 类
            start = torch.arange(0, 2 * size, 2, device=outputs.device)
            truth, guess, size = truth + start, guess + start, 2 * size
        parts = ((truth, used), (guess, used), (truth, right))
        return torch.cat([bins(index, kept, size) for index, kept in parts]), broken

    def _score(self, truths: Tensor, guesses: Tensor, hits: Tensor) -> Tensor:
        raise NotImplementedError


class Precision(_PerClass):
    """精确率：判成这一类的里面，真是这一类的占几成。

    Args:
        average: ``"macro"`` 各类同样重要；``"micro"`` 各样本同样重要；``"weighted"`` 按各类真实的
            个数加权；``None`` 不合并，返回各类的。``task="binary"`` 时只看第 1 类，不要写它。
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


class Perplexity(Tally):
    """困惑度：每个词元平均交叉熵（自然对数）的 ``exp``；瞎猜 V 个词是 V，全猜对是 1。

    输出通常是 ``(B, T, V)``，目标 ``(B, T)``。

    Args:
        ignore_index: 目标是它的位置不算，如补齐的位置；``None`` 是都算。
        class_axis: 词在输出的第几维。``None`` 是最后一维；目标看起来配的是第 1 维，或两头都配得上
            （``T == V``），就要写明 1 或 -1。
    """

    _name, _key = "困惑度", "loss"
    _fixed = False
    _room = 0  # 浮点数相加有先后：一批一批地加，存没存过都一样

    def __init__(self, *, ignore_index: int | None = -100, class_axis: int | None = None) -> None:
        layout = Layout(class_axis=class_axis, ignore_index=ignore_index, usual=-1)
        super().__init__(layout)

    def compute(self) -> float:
        """不小于 1 的数；大到浮点数放不下时是 inf。

        Raises:
            DataError: 一个词元都没有记，有词不在 ``0`` 到 ``V - 1`` 之间，或交叉熵是 nan。
        """
        loss, total = self._totals()
        return float((loss.double() / total).exp())

    def _count(self, outputs: Tensor, truth: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        scores = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        losses = F.cross_entropy(scores, truth, reduction="none").where(used, 0)
        return losses.sum(dtype=widest_float(losses.device)).unsqueeze(0), losses.isnan()
