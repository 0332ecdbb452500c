"""回归的好坏：平均绝对误差，决定系数。"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from companion.device import widest_float
from companion.errors import DataError, check_same_shape
from companion.metrics._mean import OfMean


class MAE(OfMean):
    """平均绝对误差：``|输出 - 目标|`` 对全部元素平均，单位与目标相同。"""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；两者形状相同，浮点。

        Raises:
            ShapeError: 形状不同。
        """
        check_same_shape(outputs, targets)
        errors = (outputs.detach() - targets).abs()
        count = max(errors.numel(), 1)
        total = errors.sum(dtype=widest_float(errors.device))
        self._mean.update(total / count, errors.numel())

    def compute(self) -> float:
        """不小于 0 的数。

        Raises:
            DataError: 一个元素都没有记。
        """
        return self._mean.compute()


class R2:
    """决定系数 ``1 - Σ(目标 - 输出)² / Σ(目标 - 目标的平均)²``；全部元素当作一列。

    各批先算自己的平均和离差平方和，再合起来，所以目标离 0 很远也算得准。

    出处：Chan、Golub、LeVeque，《Algorithms for Computing the Sample Variance》（1983）式 (2.1)。
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._parts: list[Tensor] = []  # 每批一行：个数，目标的平均，离差平方和，残差平方和

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；两者形状相同，浮点。

        Raises:
            ShapeError: 形状不同。
        """
        check_same_shape(outputs, targets)
        if not targets.numel():
            return
        wide = widest_float(targets.device)
        guess, truth = outputs.detach().to(wide), targets.detach().to(wide)
        mean = truth.mean()
        count = torch.full_like(mean, truth.numel())
        spread, rest = (truth - mean).square().sum(), (truth - guess).square().sum()
        self._parts.append(torch.stack([count, mean, spread, rest]))
        if len(self._parts) >= 256:
            self._parts = [_joined(self._parts)]

    def compute(self) -> float:
        """不大于 1 的数；1 是全对，0 是不如只猜平均。

        Raises:
            DataError: 一个元素都没有记，或者目标全相同。
        """
        if not self._parts:
            raise DataError("一个元素都没有，R² 没有定义。请先 update 至少一批。")
        _, _, spread, rest = _joined(self._parts).tolist()
        if spread == 0:
            raise DataError("目标应有大有小，实际全相同，R² 没有定义。请换一个划分。")
        return float(1 - rest / spread)

    def state_dict(self) -> dict[str, Any]:
        """``{"sums": 个数、平均、离差平方和、残差平方和}``，形状 ``(4,)``；没记过是 ``None``。"""
        self._parts = [_joined(self._parts)] if self._parts else []
        return {"sums": self._parts[0].cpu() if self._parts else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self.merge([state])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的。"""
        self._parts = [state["sums"] for state in states if state["sums"] is not None]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """几份合成一份，形状 ``(4,)``；一份一份接着合，存没存过结果都一样。"""
    whole, *others = parts
    for part in others:
        part = part.to(whole.device, whole.dtype)
        count, step = whole[0] + part[0], part[1] - whole[1]
        mean = whole[1] + step * part[0] / count
        spread = whole[2] + part[2] + step**2 * whole[0] * part[0] / count
        whole = torch.stack([count, mean, spread, whole[3] + part[3]])
    return whole
