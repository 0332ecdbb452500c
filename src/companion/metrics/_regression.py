"""回归的好坏：平均绝对误差，决定系数。都先换成最宽的浮点再算，整数、半精度也不会溢出。"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from companion.device import widest_float
from companion.errors import DataError, check_same_shape
from companion.metrics._layout import check_sizes, check_state, detached

Part = tuple[int, Tensor]  # 几个，和它们的和


class _Parts:
    """各批一份，合成一份；子类写怎么合（``_step``）。一份一份接着合，存没存过结果都一样。"""

    _key = "sums"  # 存下来叫什么

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._parts: list[Part] = []

    def state_dict(self) -> dict[str, Any]:
        """``{"count": 几个, 和的名字: 它们的和}``，在 CPU 上；没记过是 0 和 ``None``。"""
        if not self._parts:
            return {"count": 0, self._key: None}
        count, sums = self._whole()
        return {"count": count, self._key: sums.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self.merge([state])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的。

        Raises:
            ArgumentError: 是别的指标存下的。
            ShapeError: 各份的列数不同。
        """
        for state in states:
            check_state(state, ("count", self._key))
        self.reset()
        for state in states:
            if state[self._key] is not None:
                self._add(state["count"], state[self._key].clone())

    def _add(self, count: int, sums: Tensor) -> None:
        sizes = (part.shape[-1] for _, part in [*self._parts[-1:], (0, sums)] if part.ndim)
        check_sizes("列数", sizes)
        self._parts.append((count, sums))
        if len(self._parts) >= 256:
            self._whole()

    def _whole(self) -> Part:
        (count, whole), *others = self._parts
        for more, part in others:
            whole = self._step(count, whole, more, part.to(whole.device, whole.dtype))
            count += more
        self._parts = [(count, whole)]
        return count, whole

    def _step(self, count: int, whole: Tensor, more: int, part: Tensor) -> Tensor:
        raise NotImplementedError


class MAE(_Parts):
    """平均绝对误差：``|输出 - 目标|`` 对全部元素平均，单位与目标相同。"""

    _key = "error"

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；两者形状相同，实数。

        Raises:
            ArgumentError, ShapeError, DtypeError: 两者配不上。
        """
        guess, truth = _wide(outputs, targets)
        if truth.numel():
            self._add(truth.numel(), torch.dist(guess, truth, 1))

    def compute(self) -> float:
        """不小于 0 的数。

        Raises:
            DataError: 一个元素都没有记。
        """
        state = self.state_dict()
        if not state["count"]:
            raise DataError("一个元素都没有，平均绝对误差没有定义。请先 update 至少一批。")
        return float(state["error"] / state["count"])

    def _step(self, count: int, whole: Tensor, more: int, part: Tensor) -> Tensor:
        return whole + part


class R2(_Parts):
    """决定系数 ``1 - Σ(目标 - 输出)² / Σ(目标 - 目标的平均)²``；目标有几列，就各算各的再平均。

    第 0 维是样本，其余每个位置一列。目标全相同的一列，全猜对是 1，否则是 0。各批先算自己的平均和
    离差平方和，再合起来，所以目标离 0 很远也算得准。

    出处：Chan、Golub、LeVeque，《Algorithms for Computing the Sample Variance》（1983）式 (2.1)。
    """

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；两者形状相同，实数。

        Raises:
            ArgumentError, ShapeError, DtypeError: 两者配不上，或各批的列数不同。
        """
        guess, truth = (
            x.reshape(-1, 1) if x.ndim < 2 else x.flatten(1) for x in _wide(outputs, targets)
        )
        if not truth.numel():
            return
        start = truth[0]  # 先减去第一个：全相同时，离差正好是 0
        away = truth - start
        mean = away.mean(dim=0)
        spread, rest = (away - mean).square().sum(dim=0), (truth - guess).square().sum(dim=0)
        self._add(len(truth), torch.stack([start + mean, spread, rest]))

    def compute(self) -> float:
        """不大于 1 的数；1 是全对，0 是不如只猜平均。

        Raises:
            DataError: 样本不到两个。
        """
        state = self.state_dict()
        if state["count"] < 2:
            raise DataError(
                f"R² 至少要两个样本，实际是 {state['count']} 个，没有定义。请先 update 够两个。"
            )
        _, spread, rest = state["sums"]
        each = (1 - rest / spread).where(spread != 0, (rest == 0).to(rest.dtype))
        return float(each.mean())

    def _step(self, count: int, whole: Tensor, more: int, part: Tensor) -> Tensor:
        step, both = part[0] - whole[0], count + more
        mean, spread = step * (more / both), step.square() * (count * more / both)
        return whole + torch.stack([mean, part[1] + spread, part[2]])


def _wide(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """核对过的输出和目标，最宽的浮点。"""
    outputs, targets = detached(outputs, targets)
    check_same_shape(outputs, targets)
    wide = widest_float(outputs.device)
    return outputs.to(wide), targets.to(wide)
