"""分类的输出是什么样，怎么变成一个个的预测和标签：几类挑一类，一个得分分两类，一样本几个标签。

标签是 ``ignore_index`` 的位置一律不算；别的标签不合法，``update`` 时不读数值，到 ``compute`` 才说。
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from companion.device import widest_float
from companion.errors import (
    ArgumentError,
    DtypeError,
    ShapeError,
    check_choice,
    check_labels,
    check_whole,
)

TASKS = ("multiclass", "binary", "multilabel")
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_REAL = _FLOATS | {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


class Layout(NamedTuple):
    """怎么读一批输出和目标。

    Args:
        task: ``"multiclass"`` 类别得分在 ``class_axis`` 那一维，目标是类别编号；``"binary"`` 一个
            样本一个得分，目标同形状，0 或 1；``"multilabel"`` 形状 ``(B, L)`` 的得分，目标同形状。
        class_axis: 类别在输出的第几维；``None`` 是 ``usual``，但目标也配得上另一头时要写明。
        ignore_index: 目标是它的位置不算；``None`` 是都算。
        threshold: 后两种里，得分大于它就判成 1。
        top_k: 几类挑一类时，正确的在前几名里就算猜对。
        usual: ``class_axis`` 没写时类别在哪一维，1 或 -1。
    """

    task: str = "multiclass"
    class_axis: int | None = None
    ignore_index: int | None = -100
    threshold: float = 0.0
    top_k: int = 1
    usual: int = 1

    def checked(self, tasks: Sequence[str] = TASKS) -> "Layout":
        """取值都对就是自己，整数换成 ``int``；取值不对的、不起作用的，报错。"""
        check_choice("task", self.task, tasks)
        axis, ignored = self.class_axis, self.ignore_index
        if axis is not None:
            axis = check_whole("class_axis", axis, None, "请写 1 或 -1。")
        if ignored is not None:
            ignored = check_whole("ignore_index", ignored, None, "都算请写 None。")
            if not -(2**63) <= ignored < 2**63:
                raise ArgumentError(f"ignore_index 应放得进 int64，实际是 {ignored:.3e}。")
        threshold = check_number("threshold", self.threshold, "logits 写 0，概率写 0.5。")
        if math.isnan(threshold):
            raise ArgumentError("threshold 应是一个数，实际是 nan。logits 写 0，概率写 0.5。")
        top_k = check_whole("top_k", self.top_k)
        check_used("top_k", top_k, 1, self.task, ("multiclass",))
        check_used("class_axis", axis, None, self.task, ("multiclass",))
        check_used("threshold", threshold, 0, self.task, ("binary", "multilabel"))
        return self._replace(
            class_axis=axis, ignore_index=ignored, threshold=threshold, top_k=top_k
        )

    def read(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """核对过的得分和目标，没有梯度；类别在第 1 维，``"binary"`` 的摊成一维。"""
        outputs, targets = detached(outputs, targets)
        if outputs.dtype not in _FLOATS:
            outputs = outputs.to(widest_float(outputs.device))
        if self.task != "multiclass":
            _check_marks(outputs, targets, self.task)
            one = self.task == "binary"
            return (outputs.flatten(), targets.flatten()) if one else (outputs, targets)
        if outputs.ndim > 2 or self.class_axis not in (None, 1):
            outputs, targets = self._moved(outputs, targets)
        if outputs.ndim > 1 and outputs.shape[1] < 2:  # 一列的得分取最大，永远是第 0 类
            raise ShapeError(
                f"几类挑一类，类别那一维应不止 1，实际形状是 {tuple(outputs.shape)}。"
                '一个得分分两类的，请写 task="binary"，目标与输出同形状；或者每类一列。'
            )
        check_labels(outputs, targets)
        return outputs, targets

    def columns(self, outputs: Tensor) -> int:
        """几类，或几个标签。"""
        return 1 if self.task == "binary" else outputs.shape[1]

    def limit(self, columns: int) -> int:
        """合法的标签小于它。"""
        return columns if self.task == "multiclass" else 2

    def flat(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """几类挑一类的，一个位置一行：``(N, C)`` 和 ``(N,)``；别的原样。"""
        if self.task == "multiclass" and outputs.ndim > 2:
            return outputs.movedim(1, -1).flatten(0, -2), targets.flatten()
        return outputs, targets

    def marks(self, targets: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        """``int64`` 的标签（不合法的换成合法的），哪些要算，其中哪些合法。"""
        whole = targets.long()  # 先换宽再比：uint8 的 156 与 -100 相等
        truth = whole.clamp(0, self.limit(columns) - 1)
        if self.ignore_index is None:
            kept = torch.ones_like(whole, dtype=torch.bool)
        else:
            kept = whole != self.ignore_index
            if targets.is_floating_point():  # -100.5 换成整数是 -100
                kept |= whole != targets
        return truth, kept, kept & (truth == targets)

    def guesses(self, outputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """``int64`` 的预测，与 ``truth`` 同形状；和哪些位置的得分里有 nan。"""
        if self.task != "multiclass":
            return (outputs > self.threshold).long(), outputs.isnan()
        if self.top_k == 1:
            best, guess = outputs.max(dim=1)  # 有 nan 的，最大就是 nan
            return guess, best.isnan()
        best, ranked = outputs.topk(min(self.top_k, outputs.shape[1]), dim=1)
        among = (ranked == truth.unsqueeze(1)).any(dim=1)
        return truth.where(among, ranked[:, 0]), best[:, 0].isnan()

    def _moved(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """类别挪到第 1 维；从最后一维来的，一个位置一行。"""
        shape, axis = outputs.shape, self.class_axis
        if len(shape) < 2:
            return outputs, targets
        first, last = shape[:1] + shape[2:], shape[:-1]
        if axis is None:
            axis = self.usual
            if targets.shape == (last if axis == 1 else first):
                self._refuse(shape, targets.shape)
        if not -len(shape) <= axis < len(shape):
            raise ShapeError(
                f"class_axis 应是输出的一维，实际是 {axis}，输出的形状是 {tuple(shape)}。"
                "请写 1 或 -1。"
            )
        if axis == -1 and targets.shape == last:
            return outputs.flatten(0, -2), targets.flatten()
        return outputs.movedim(axis, 1), targets

    def _refuse(self, shape: torch.Size, targets: torch.Size) -> None:
        names = {"第 1 维": tuple(shape[:1] + shape[2:]), "最后一维": tuple(shape[:-1])}
        (here, near), (there, far) = list(names.items())[:: self.usual]
        loss = "交叉熵要它在第 1 维：算损失之前先 outputs.movedim(-1, 1)"
        if near == far:
            raise ShapeError(
                f"应写明类别在输出的哪一维，实际没有写：输出 {tuple(shape)} 配目标 {near}，"
                "当成第 1 维配得上，当成最后一维也配得上。建指标时，像图像那样 (B, C, …) 的写 "
                f"class_axis=1，像语言模型那样 (B, T, V) 的写 class_axis=-1。{loss}。"
            )
        raise ShapeError(
            f"类别应在输出的{here}，目标的形状应为 {near}，实际是 {tuple(targets)}，"
            f"看起来在{there}。真在{there}的，建指标时写 class_axis={-self.usual}。{loss}"
            "（transpose 会把图像的高和宽对调）。"
        )


def detached(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """切断了梯度的两个张量；不是实数、不在一个设备上就报错。"""
    for name, value in (("outputs", outputs), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise ArgumentError(
                f"{name} 应是张量，实际是 {type(value).__name__}。请先 torch.as_tensor()。"
            )
        if value.dtype not in _REAL or value.layout != torch.strided or value.is_nested:
            raise DtypeError(
                f"{name} 应是稠密的实数张量，实际是 {value.dtype}、{value.layout}。"
                "复数先取实部或模，稀疏的先 to_dense()，别的先 float() 或 long()。"
            )
    if outputs.device != targets.device or outputs.is_meta:
        raise ArgumentError(
            f"outputs 和 targets 应在同一个设备上，实际是 {outputs.device} 和 {targets.device}。"
            "请先 targets.to(outputs.device)；meta 上的没有数值，不能用。"
        )
    if outputs.requires_grad or targets.requires_grad:
        return outputs.detach(), targets.detach()
    return outputs, targets


def check_state(state: Mapping[str, Any], names: Sequence[str]) -> None:
    """是有这几项的 ``state_dict()``，就什么也不做。"""
    if not isinstance(state, Mapping) or not set(names) <= state.keys():
        found = "、".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ArgumentError(
            f"指标的 state 应有 {'、'.join(names)}，实际是 {found or '空的'}。"
            "它是另一种指标存下的，请换回那一种，或者从头记。"
        )


def check_sizes(name: str, sizes: Iterable[int]) -> None:
    """都一样就什么也不做。"""
    different = sorted(set(sizes))
    if len(different) > 1:
        raise ShapeError(f"各批的{name}应相同，实际是 {different}。换了模型、数据请先 reset()。")


def check_number(name: str, value: Any, way: str) -> float:
    """``value`` 这个实数；数组、张量要只有一个数，字符串不收。"""
    with suppress(TypeError, ValueError, RuntimeError, OverflowError):
        if hasattr(value, "__float__"):
            return float(value)
    raise ArgumentError(f"{name} 应是一个数，实际是 {value!r:.100}。{way}")


def check_used(name: str, value: Any, default: Any, task: str, tasks: Sequence[str]) -> None:
    """是默认值，或 ``task`` 用得到它，就什么也不做。"""
    if task not in tasks and value != default:
        wanted = "、".join(f'task="{each}"' for each in tasks)
        raise ArgumentError(f"{name} 只用于 {wanted}，实际 task 是 {task!r}。请去掉 {name}。")


def _check_marks(outputs: Tensor, targets: Tensor, task: str) -> None:
    """输出和 0、1 的目标形状相同，就什么也不做。"""
    if outputs.shape != targets.shape:
        raise ShapeError(
            f'task="{task}" 时目标的形状应与输出相同，是 {tuple(outputs.shape)}，实际是 '
            f"{tuple(targets.shape)}。少一维用 targets[:, None]，多一维用 squeeze(1)。"
        )
    if task == "multilabel" and outputs.ndim != 2:
        raise ShapeError(f"多标签的输出形状应为 (B, L)，实际是 {tuple(outputs.shape)}。")
