"""平均：加权平均，和由平均损失得到的困惑度。"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from companion.device import widest_float
from companion.errors import DataError, ShapeError


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

    def state_dict(self) -> dict[str, Any]:
        """``{"sum": 加权和, "weight": 总权重}``，都是 Python 数。"""
        return {"sum": float(self._sum), "weight": float(self._weight)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self._sum, self._weight = state["sum"], state["weight"]

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的平均：和、权重各自相加。"""
        self._sum = math.fsum(state["sum"] for state in states)
        self._weight = math.fsum(state["weight"] for state in states)


class Perplexity:
    """困惑度：每个词元平均交叉熵（自然对数）的 ``exp``；瞎猜 V 个词是 V，全猜对是 1。

    Args:
        ignore_index: 目标是它的位置不算，如补齐的位置。
    """

    def __init__(self, ignore_index: int = -100) -> None:
        self.ignore_index, self._mean = ignore_index, Mean()

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._mean.reset()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批。

        Args:
            outputs: 每个位置的词得分，形状 ``(…, V)``，词在最后一维；通常是 ``(B, T, V)``。
            targets: 正确的词，形状 ``(…)``，``int64``。

        Raises:
            ShapeError: 目标的形状不是得分去掉最后一维。
        """
        if targets.shape != outputs.shape[:-1]:
            raise ShapeError(
                f"targets 的形状应为 {tuple(outputs.shape[:-1])}，实际是 {tuple(targets.shape)}。"
                "词的那一维放在最后：(B, V, T) 的得分先 transpose(1, 2)。"
            )
        scores, words = outputs.detach().flatten(0, -2).float(), targets.flatten()
        losses = F.cross_entropy(
            scores, words, ignore_index=self.ignore_index, reduction="none"
        )  # 不算的位置上是 0
        count = (words != self.ignore_index).sum()
        total = losses.sum(dtype=widest_float(losses.device))
        self._mean.update(total / count.clamp(min=1), count)

    def compute(self) -> float:
        """不小于 1 的数；大到浮点数放不下时是 inf。

        Raises:
            DataError: 一个词元都没有记。
        """
        return float(torch.tensor(self._mean.compute(), dtype=torch.float64).exp())

    def state_dict(self) -> dict[str, Any]:
        """每个词元平均损失的 ``state_dict``，见 ``Mean``。"""
        return self._mean.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self._mean.load_state_dict(state)

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的：按词元数加权。"""
        self._mean.merge(states)
