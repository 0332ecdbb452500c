"""``run.log`` 记下的数：按 n 加权的平均，一轮读一次。每一步只把张量留下，不把数值读回来。"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion.checkpoint import plain
from companion.distributed import gather_objects
from companion.errors import ShapeError

_CHUNK = 256  # 攒够这么多个标量张量，就叠成一个，省内存


class _Series:
    """一个名字的加权和。按记下的先后一个一个加，所以中途存过没存过，结果一位不差。"""

    def __init__(self, total: float = 0.0, weight: float = 0.0) -> None:
        self.total, self.weight = total, weight
        self.values: list[Any] = []  # 还没有加的
        self.weights: list[Any] = []
        self.chunks: list[tuple[Any, Any]] = []

    def pack(self) -> None:
        self.chunks.append((_stacked(self.values), _stacked(self.weights)))
        self.values, self.weights = [], []

    def read(self) -> tuple[float, float]:
        """``(加权和, 总权重)``，float64；这时才读数值。"""
        self.pack()
        for values, weights in self.chunks:
            for value, weight in zip(_listed(values), _listed(weights), strict=True):
                self.total += value * weight
                self.weight += weight
        self.chunks = []
        return self.total, self.weight


class LogSums:
    """一轮里记下的数：标量按 n 加权平均，别的（矩阵、文字）留最后一个。"""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}  # 名字到 _Series，或到那个「别的」

    def add(
        self,
        n: int | Tensor,
        values: Mapping[str, Any],
        *,
        only_scalars: bool,
        stored: bool = True,
    ) -> None:
        """记下一组值；张量切断梯度，数值留在原来的设备上。``stored`` 说要不要存进存档。

        Raises:
            ShapeError: ``n`` 不是标量；``only_scalars`` 时给了矩阵、列表等。
            ArgumentError: ``stored`` 时给了存不下的东西。
        """
        weight = _scalar(n)
        if weight is None:
            raise ShapeError(f"run.log 的 n 应是标量，实际{_actual(n)}。请给样本（或词元）的个数。")
        for name, given in values.items():
            value = _scalar(given)
            if value is None:
                if only_scalars and not isinstance(given, str | complex | None):
                    raise ShapeError(
                        f"每一步里 run.log 的 {name} 应是标量，实际{_actual(given)}。"
                        "请先取 mean()；整轮算一次的矩阵、列表，在 batches 的循环外面记。"
                    )
                self.entries[name] = _kept(name, given, stored)
                continue
            series = self.entries.get(name)
            if not isinstance(series, _Series):
                series = self.entries[name] = _Series()
            series.values.append(value)
            series.weights.append(weight)
            if len(series.values) == _CHUNK:
                series.pack()

    def read(self) -> dict[str, Any]:
        """名字到 ``(加权和, 总权重)``，或到那个「别的」。"""
        return {
            name: entry.read() if isinstance(entry, _Series) else entry
            for name, entry in self.entries.items()
        }

    def state_dict(self) -> dict[str, tuple[float, float]]:
        """标量的加权和与总权重；普通的数，可以存。"""
        return {name: e.read() for name, e in self.entries.items() if isinstance(e, _Series)}

    def load_state_dict(self, *states: Mapping[str, Sequence[float]]) -> None:
        """从 ``state_dict()`` 那里接着记；几份就加在一起。"""
        self.entries = {}
        for state in states:
            for name, (total, weight) in state.items():
                series = self.entries.setdefault(name, _Series())
                series.total += total
                series.weight += weight


def _scalar(value: Any) -> float | Tensor | None:
    """一个数：张量还是张量（切断梯度），别的（只有一个数的数组、列表）成了 float；不是就 None。"""
    if isinstance(value, Tensor):  # 复制：别人可能就地改它，图捕获还会重用它的内存
        return value.detach().clone() if value.numel() == 1 else None
    if isinstance(value, list | tuple) and len(value) == 1:
        return _scalar(value[0])
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    try:
        return float(value) if hasattr(value, "__float__") else None
    except (TypeError, ValueError):  # 如 pandas 的一列
        return None


def _actual(value: Any) -> str:
    held = isinstance(value, Tensor | np.ndarray)
    return f"形状是 {tuple(value.shape)}" if held else f"是 {type(value).__name__}"


def _kept(name: str, value: Any, stored: bool) -> Any:
    """原样留下的一份；存不下的，现在就说。"""
    if stored:
        plain(value, f"run.log 的 {name}")
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    return list(value) if isinstance(value, list | tuple) else value  # 元组留给 (加权和, 总权重)


def averages(*parts: LogSums) -> dict[str, Any]:
    """几份合起来、各进程合起来的平均：名字到 Python 数；不是标量的，用 0 号进程的。"""
    sums: dict[str, Any] = {}
    for part in parts:
        for name, entry in part.read().items():
            _merge(sums, name, entry)
    merged: dict[str, Any] = {}
    everyone = gather_objects(sums)
    for theirs in everyone:
        for name, entry in theirs.items():
            _merge(merged, name, entry)
    for name, entry in merged.items():
        if isinstance(entry, tuple):
            means = {total / weight for total, weight in _pairs(everyone, name) if weight}
            merged[name] = means.pop() if len(means) == 1 else _mean(*entry)
    return merged


def _pairs(everyone: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [sums[name] for sums in everyone if isinstance(sums.get(name), tuple)]


def _mean(total: float, weight: float) -> float:
    return total / weight if weight else float("nan")


def _merge(sums: dict[str, Any], name: str, entry: Any) -> None:
    old = sums.get(name)
    if isinstance(old, tuple) and isinstance(entry, tuple):
        entry = (old[0] + entry[0], old[1] + entry[1])
    elif name in sums and not isinstance(entry, tuple):
        return
    sums[name] = entry


def _stacked(items: list[Any]) -> Any:
    """全是同一设备、同一 dtype 的张量，就叠成一个；否则原样。"""
    if not items or not all(isinstance(item, Tensor) for item in items):
        return items
    kinds = {(item.device, item.dtype) for item in items}
    return torch.stack([item.reshape(()) for item in items]) if len(kinds) == 1 else items


def _listed(items: Any) -> list[float]:
    return items.tolist() if isinstance(items, Tensor) else [float(item) for item in items]
