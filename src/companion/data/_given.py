"""给 ``loaders`` 的数据能不能按编号取样本；看着像、其实会悄悄读错的，都说清楚。"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from companion.data._picks import indices
from companion.errors import ArgumentError

_PAIR = "请写成 loaders((inputs, targets), …)，输入和目标放进同一个元组。"


def check_data(data: Any, collated: bool) -> None:
    """``data`` 是能按编号取样本的数据集就什么也不做；``collated`` 是给了 ``collate_fn``。

    Raises:
        ArgumentError: 不是，或者看不出一项是一个样本，还是全部样本的一栏。
    """
    name = type(data).__name__
    if isinstance(data, Tensor | np.ndarray):
        kind = "张量" if isinstance(data, Tensor) else " NumPy 数组"
        turn = "" if isinstance(data, Tensor) else "先 torch.from_numpy。"
        raise ArgumentError(f"训练集和验证集应各是一个元组，实际给的是{kind}。{turn}{_PAIR}")
    if isinstance(data, Mapping):
        raise ArgumentError(
            f"数据集应能按编号 0、1、2… 取样本，实际的 {name} 按名字取。"
            "请写成元组：loaders((data['inputs'], data['targets']), …)。"
        )
    if hasattr(data, "iloc") or hasattr(data, "to_numpy"):
        raise ArgumentError(
            f"数据集应能按编号取样本，实际的表格 {name} 按列取。请先变成张量："
            "loaders((torch.tensor(table[列名].to_numpy()), …), …)。"
        )
    if isinstance(data, str | bytes):
        raise ArgumentError(
            f"数据集应是张量的元组、数据集或样本的列表，实际是字符串 {data!r:.100}。请先读出数据。"
        )
    if isinstance(data, list):
        _check_list(data, collated)
    _check_by_index(data)


def check_subset(data: Subset[Any]) -> Tensor:
    """``data`` 取了哪些编号，``int64``，在 CPU 上；负的从后往前数。

    Raises:
        ArgumentError, DataError: 编号不是整数（如布尔的掩码），或超出范围。
    """
    n = len(data.dataset)  # type: ignore[arg-type]
    return indices(data.indices, -n, n, "Subset")


def _check_list(data: list[Any], collated: bool) -> None:
    """样本的列表可以；``[x, y]`` 与样本的列表分不清，不行。"""
    if any(isinstance(item, Dataset) for item in data):
        raise ArgumentError(
            f"训练集应是一个数据集，实际是装着 {len(data)} 项的列表，里面有数据集。"
            "请分开给：loaders(train, valid, …)；要连起来用 ConcatDataset。"
        )
    if not collated and any(isinstance(item, Tensor | np.ndarray) for item in data):
        raise ArgumentError(
            "列表应是样本的列表 [(x1, y1), (x2, y2), …]，实际的 "
            f"{len(data)} 项里有张量或数组，分不清一项是一栏还是一个样本。各是一栏，写成元组 "
            "loaders((inputs, targets), …)；各是一个样本，写成 loaders((torch.stack(data),), …)，"
            "长短不一就再给 collate_fn。"
        )


def _check_by_index(data: Any) -> None:
    name, whole = type(data).__name__, data
    while isinstance(whole, Subset):
        if hasattr(whole.dataset, "__len__"):
            check_subset(whole)
        whole = whole.dataset
    if isinstance(whole, IterableDataset):
        raise ArgumentError(
            f"数据集应能按编号取样本，实际的 {type(whole).__name__} 是 IterableDataset，只能从头"
            "读，无从打乱，也无法精确续训。请先读成列表：loaders(list(…), …)；放不进内存就自己写 "
            "DataLoader。"
        )
    get = getattr(type(data), "__getitem__", None)
    if get in (None, Dataset.__getitem__) or not hasattr(data, "__len__"):
        raise ArgumentError(
            f"数据集应有 len() 和按编号取的 dataset[i]，实际是 {name}。"
            "张量请写成元组：loaders((inputs, targets), …)；已经是加载器的，直接用它。"
        )
