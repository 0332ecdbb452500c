"""训练和验证的加载器，一句话配好；次序和随机变换都能精确续上，不论几个子进程在取数据。"""

from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from companion.data._augment import Compose, Transform, as_compose
from companion.data._index_loader import IndexLoader
from companion.data._sampler import EpochSampler
from companion.data._tensor_loader import TensorLoader
from companion.errors import ArgumentError

Data = Dataset[Any] | Sequence[Any]
Loader = TensorLoader | IndexLoader


@overload
def loaders(
    train: Data,
    valid: None = None,
    *,
    batch_size: int,
    valid_batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    transform: Transform | Sequence[Transform] | None = None,
    drop_last: bool = False,
) -> Loader: ...


@overload
def loaders(
    train: Data,
    valid: Data,
    *,
    batch_size: int,
    valid_batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    transform: Transform | Sequence[Transform] | None = None,
    drop_last: bool = False,
) -> tuple[Loader, Loader]: ...


def loaders(
    train: Data,
    valid: Data | None = None,
    *,
    batch_size: int,
    valid_batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    transform: Transform | Sequence[Transform] | None = None,
    drop_last: bool = False,
) -> Loader | tuple[Loader, Loader]:
    """训练加载器；给了 ``valid`` 就是 ``(训练加载器, 验证加载器)``。

    训练的每轮重新打乱。验证的不打乱、不扔样本，``transform`` 里随机的那部分也不做。

    Args:
        train, valid: 张量的元组 ``(inputs, targets)``、``TensorDataset`` 或用 ``random_split`` 从它
            切出的一份，得到 ``TensorLoader``；其余能按编号取样本的数据集，得到 ``IndexLoader``
            （也是 ``DataLoader``）。
        batch_size: 一批几个样本；``torchrun`` 之下是全部进程合起来的一批。
        valid_batch_size: 验证时的一批；不给就与 ``batch_size`` 相同。
        workers: 取样本的子进程数；内存里的张量用不到。
        seed: 打乱和随机变换用的种子，任意整数。
        transform: 对一批做的一个或一串变换，见 ``companion.data.augment``。只用于张量；别的数据集
            请把变换写在数据集里，用全局发生器抽的随机数照样能精确续上；数据集自带的发生器不能。
        drop_last: 扔掉训练里最后不满的一批。

    Raises:
        ArgumentError, DataError, ShapeError: 消息里写着怎么改。
    """
    steps, seeds = as_compose(transform), {"seed": seed, "workers": workers}
    training = _loader(train, batch_size, steps, shuffle=True, drop_last=drop_last, **seeds)
    if valid is None:
        return training
    size = batch_size if valid_batch_size is None else valid_batch_size
    return training, _loader(valid, size, steps.fixed(), shuffle=False, drop_last=False, **seeds)


def _loader(
    data: Data,
    batch_size: int,
    transform: Compose,
    *,
    shuffle: bool,
    drop_last: bool,
    seed: int,
    workers: int,
) -> Loader:
    if not isinstance(workers, int) or workers < 0:
        raise ArgumentError(f"workers 是子进程的个数，应为不小于 0 的整数，实际是 {workers!r}。")
    tensors = _in_memory(data)
    if tensors is not None:
        return TensorLoader(
            *tensors,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            transform=transform,
        )
    size = _checked_len(data)
    if transform.transforms:
        raise ArgumentError(
            f"transform 对整批张量做，实际的数据集是 {type(data).__name__}，一次给一个样本。"
            "请把变换写在数据集里（如 torchvision 数据集的 transform=），或先把数据读成张量。"
        )
    sampler = EpochSampler(size, batch_size, shuffle=shuffle, drop_last=drop_last, seed=seed)
    return IndexLoader(data, sampler, workers)


def _in_memory(data: Any) -> tuple[Tensor, ...] | None:
    """内存里现成的张量；不是这样的数据就是 ``None``。子类可能改写了取样本的办法，不算。"""
    if isinstance(data, tuple):
        return data
    if type(data) is TensorDataset:
        return data.tensors
    if type(data) is Subset and (whole := _in_memory(data.dataset)) is not None:
        index = torch.as_tensor(data.indices, dtype=torch.int64)
        return tuple(tensor[index.to(tensor.device)] for tensor in whole)
    return None


def _checked_len(data: Any) -> int:
    """样本数；不能按编号取样本的数据集报错。"""
    name = type(data).__name__
    if isinstance(data, Tensor):
        raise ArgumentError(
            "训练集和验证集应各是一个元组，实际给的是张量。"
            "请写成 loaders((inputs, targets), …)，输入和目标放进同一个元组。"
        )
    if isinstance(data, IterableDataset):
        raise ArgumentError(
            f"数据集应能按编号取样本，实际的 {name} 是 IterableDataset，只能从头读，无从打乱，也"
            "无法精确续训。请先读成列表：loaders(list(…), …)；放不进内存就自己写 DataLoader。"
        )
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise ArgumentError(
            f"数据集应有 len() 和按编号取的 dataset[i]，实际是 {name}。"
            "张量请写成元组：loaders((inputs, targets), …)；已经是加载器的，直接用它。"
        )
    return len(data)
