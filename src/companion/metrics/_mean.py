"""加权平均。"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from companion._common import unlike_numbers
from companion.device import widest_float
from companion.errors import ArgumentError, DataError, ShapeError
from companion.metrics._layout import check_number, check_state

Pair = tuple[Tensor | float, Tensor | float]  # 值和它的权重

_WAY = "请先取出这个数，如 float(x.real)。"
_BLOCK = 256  # 记满这么多个，就叠成一个张量


class Mean:
    """加权平均，全书的平均都由它算：``fit`` 报告的损失，``run.log`` 记下的数。

    按记下的先后一个一个加，所以途中问没问过、存没存过，结果一位不差。记下时不读数值，问的时候才
    读；权重是 0 的不算。

    ``count`` 是记过几个，``first_bad`` 是第几个（从 1 数）最先不是有限的数，没有是 ``None``。
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记。"""
        self._sum = self._weight = 0.0
        self._pending: list[Pair] = []  # 记下了、还没有加的
        self._packed: list[Tensor | list[Pair]] = []  # 同上，每 256 个叠成了一个
        self.count = 0
        self.first_bad: int | None = None

    def update(self, value: Tensor | float, weight: Tensor | float = 1) -> None:
        """记下一个值。

        Args:
            value: 一批的平均值，数或形状 ``()`` 的张量；梯度会被切断，数值留在原来的设备上。
            weight: 它代表几个样本（或词元），不为负；形状 ``(k,)`` 的掩码，是其中 ``True`` 的个数，
                不复制，之后别再改它。

        Raises:
            ShapeError: ``value`` 不是标量，``weight`` 多于一维。
            ArgumentError: ``value`` 或 ``weight`` 不是实数，或没有数值。
        """
        for name, given in (("value", value), ("weight", weight)):
            if isinstance(given, Tensor) and (problem := unlike_numbers(given)):
                raise ArgumentError(f"{name} 应是有数值的稠密张量，实际{problem}。")
        if isinstance(value, Tensor) and not value.is_complex():
            if value.ndim:
                shape = tuple(value.shape)
                raise ShapeError(f"value 应为标量，实际形状是 {shape}。请先取 mean()。")
            value = value.detach().clone()  # 复制：别人可能就地改它，图捕获还会重用它的内存
        else:
            value = check_number("value", value, _WAY)
        if not isinstance(weight, Tensor):
            weight = check_number("weight", weight, _WAY)
        elif weight.ndim > 1 or weight.is_complex():
            raise ShapeError(
                "weight 应是实数，一个数或一维的掩码，实际形状是 "
                f"{tuple(weight.shape)}、{weight.dtype}。掩码请先 flatten()。"
            )
        elif not weight.ndim:
            weight = weight.detach().clone()
        self._pending.append((value, weight))
        if len(self._pending) >= _BLOCK:
            self._pack()

    def compute(self) -> float:
        """加权平均值；单位与 ``value`` 相同。

        Raises:
            DataError: 总权重是 0，平均值没有定义。
            ArgumentError: 有权重小于 0。
        """
        self._add_up()
        if self._weight == 0:
            raise DataError("总权重是 0，平均值没有定义。请先 update 至少一个样本。")
        return self._sum / self._weight

    def state_dict(self) -> dict[str, Any]:
        """``{"sum": 加权和, "weight": 总权重}``，都是 Python 数。"""
        self._add_up()
        return {"sum": self._sum, "weight": self._weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self.merge([state])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的平均：和、权重各自相加。"""
        for state in states:
            check_state(state, ("sum", "weight"))
        self.reset()
        self._sum = math.fsum(state["sum"] for state in states)
        self._weight = math.fsum(state["weight"] for state in states)

    def _pack(self) -> None:
        """叠起来省内存；还留在设备上。"""
        if self._pending:
            self._packed.append(_stacked(self._pending))
            self._pending = []

    def _add_up(self) -> None:
        """把记下的加进来；这时才读数值。"""
        self._pack()
        for packed in self._packed:
            pairs = packed.tolist() if isinstance(packed, Tensor) else packed
            for value, weight in ((float(value), float(weight)) for value, weight in pairs):
                self.count += 1
                if weight < 0:
                    raise ArgumentError(f"weight 应不小于 0，实际是 {weight}。请检查是几个的平均。")
                if weight:
                    self._sum += value * weight
                    self._weight += weight
                    if self.first_bad is None and not math.isfinite(value):
                        self.first_bad = self.count
        self._packed = []


def _stacked(pairs: list[Pair]) -> Tensor | list[Pair]:
    """形状 ``(n, 2)`` 的一个张量，最宽的浮点，只要读一次；值不全是同一种张量，就原样。"""
    values, weights = zip(*pairs, strict=True)
    tensors = [value for value in values if isinstance(value, Tensor)]
    kinds = {(tensor.device, tensor.dtype) for tensor in tensors}
    if len(tensors) < len(values) or len(kinds) > 1:
        return pairs
    how: Any = {"dtype": widest_float(tensors[0].device), "device": tensors[0].device}
    right = torch.as_tensor(_counts(weights), **how)
    return torch.stack([torch.stack(tensors).to(**how), right], dim=1)


def _counts(weights: Sequence[Any]) -> Any:
    """各个权重，掩码换成个数；掩码接起来一次数完，比一个一个数快得多。"""
    if not any(isinstance(weight, Tensor) for weight in weights):
        return weights
    if all(isinstance(weight, Tensor) and weight.ndim for weight in weights):
        ends = torch.tensor([0, *(len(mask) for mask in weights)]).cumsum(0)
        marks = torch.cat([weights[0].new_zeros(1), *weights]).cumsum(0)
        return marks[ends.to(marks.device)].diff()
    device = next(weight.device for weight in weights if isinstance(weight, Tensor))
    how: Any = {"dtype": widest_float(device), "device": device}
    return torch.stack([torch.as_tensor(weight, **how).sum() for weight in weights])
