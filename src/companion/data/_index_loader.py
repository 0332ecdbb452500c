"""按编号取样本的数据集，一批一批地取：``DataLoader``，但随机变换只由种子、轮次、编号决定。

普通 ``DataLoader`` 的随机变换接着用一串随机数，所以取数据的子进程一多、或从半轮续上，就抽到别的数。
这里每取一个样本，先用（种子、轮次、编号）给全局的发生器定种，取完一批再恢复原状。
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from companion.data._sampler import EpochSampler, mix


class ByIndex(Dataset[Any]):
    """按 ``(轮次, 编号)`` 取样本的数据集，取到的样本只由种子和这两个数决定。

    ``dataset[index]`` 里用到的 torch（CPU）、NumPy、Python 的全局随机数都定了种，之后恢复原状；
    只给编号时算第 0 轮。数据集自己另带的发生器（如 ``self.rng``）管不到，请别用。

    Args:
        dataset: 有 ``len`` 和 ``[编号]`` 的数据集；要能 pickle，Windows 上的子进程靠它传过去。
        seed: 任意整数。
    """

    def __init__(self, dataset: Any, seed: int = 0) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        return self.__getitems__([key if isinstance(key, tuple) else (0, key)])[0]

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Any]:
        with _global_random_kept():
            return [self._sample(epoch, index) for epoch, index in keys]

    def _sample(self, epoch: int, index: int) -> Any:
        seed = mix(self.seed, epoch, index)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed 还要管加速器，慢几十倍
        random.seed(seed)
        np.random.seed(seed % 2**32)  # NumPy 只收 32 位
        return self.dataset[index]


class IndexLoader(DataLoader[Any]):
    """``DataLoader``，每个 ``for`` 是新的一轮，可以从任一批续上；不动全局的随机数。

    Args:
        dataset: 有 ``len`` 和 ``[编号]`` 的数据集。
        sampler: 每一批是哪些编号；随机变换与它用同一个种子。
        workers: 取样本的子进程数；轮与轮之间不重启。
    """

    def __init__(self, dataset: Any, sampler: EpochSampler, workers: int = 0) -> None:
        super().__init__(
            ByIndex(dataset, sampler.seed),
            batch_sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # DataLoader 每轮抽一个数；不给，它就抽全局的
        )
        self.batches = sampler
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """什么也不返回：让下一个 ``for`` 是第 ``epoch`` 轮，从头开始。"""
        self.epoch = epoch
        self.batches.seek(epoch)

    def __iter__(self) -> Any:
        return self.iter_from(0)

    def iter_from(self, start: int) -> Iterator[Any]:
        """这一轮从第 ``start`` 批（从 0 数）开始的各批；前面的样本不取。

        Raises:
            ArgumentError: ``start`` 超出批数。
        """
        self.batches.seek(self.epoch, start)
        self.epoch += 1
        return super().__iter__()


@contextmanager
def _global_random_kept() -> Iterator[None]:
    """离开时，三个全局发生器的状态与进来时相同。"""
    ours, numpys, pythons = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(ours)
        np.random.set_state(numpys)
        random.setstate(pythons)
