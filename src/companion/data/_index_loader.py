"""按编号取样本的数据集，一批一批地取：``DataLoader``，但随机变换只由种子、轮次、编号决定。

普通 ``DataLoader`` 的随机变换接着用一串随机数，所以取数据的子进程一多、或从半轮续上，就抽到别的数。
这里每取一个样本，先用（种子、轮次、编号）给全局的发生器定种，取完、拼完一批再恢复原状。
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from companion.data._random import global_random_kept, mix, seed_global
from companion.data._sampler import EpochSampler
from companion.errors import ArgumentError, check_whole

Collate = Callable[[list[Any]], Any]


class ByIndex(Dataset[Any]):
    """按 ``(轮次, 编号)`` 取样本的数据集，取到的样本只由种子和这两个数决定。

    ``dataset[index]`` 里用到的 torch（CPU）、NumPy、Python 的全局随机数都定了种，之后恢复原状；
    只给编号时算第 0 轮。数据集自己另带的发生器（如 ``self.rng``）管不到，请别用。编号可能重复时
    （有 ``sampler``），键里还有第三个数，是它在这一轮的次序里排第几：重复的样本各抽各的。

    Args:
        dataset: 有 ``len`` 和 ``[编号]`` 的数据集；要能 pickle，Windows 上的子进程靠它传过去。
        seed: 任意整数。
        collate: 把一批样本的列表拼成一批；不给就原样给出列表。
    """

    def __init__(self, dataset: Any, seed: int = 0, collate: Collate | None = None) -> None:
        self.dataset, self.seed, self.collate = dataset, seed, collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, ...]) -> Any:
        with global_random_kept():
            return self._sample(key if isinstance(key, tuple) else (0, key))

    def __getitems__(self, keys: list[tuple[int, ...]]) -> Any:
        with global_random_kept():
            samples = [self._sample(key) for key in keys]
            # 拼的时候也会抽（如遮住几个词元）：接着最后一个样本的随机数，所以也定了种
            return samples if self.collate is None else self.collate(samples)

    def _sample(self, key: tuple[int, ...]) -> Any:
        seed_global(mix(self.seed, *key))
        return self.dataset[key[1]]


class IndexLoader(DataLoader[Any]):
    """``DataLoader``，每个 ``for`` 是新的一轮，可以从任一批续上；不动全局的随机数。

    Args:
        dataset: 有 ``len`` 和 ``[编号]`` 的数据集。
        sampler: 每一批是哪些编号；随机变换与它用同一个种子。
        workers: 取样本的子进程数；轮与轮之间不重启。
        collate_fn: 把一批样本的列表拼成一批；在取样本的进程里调用，里面的随机数也只由种子、轮次、
            编号决定。``None`` 是 torch 的 ``default_collate``。

    Raises:
        ArgumentError: ``collate_fn`` 不能调用。
    """

    def __init__(
        self,
        dataset: Any,
        sampler: EpochSampler,
        workers: int = 0,
        collate_fn: Collate | None = None,
    ) -> None:
        if collate_fn is not None and not callable(collate_fn):
            raise ArgumentError(
                f"collate_fn 应能调用：collate_fn(样本的列表)，实际是 {collate_fn!r:.100}。"
                "例：collate_fn=lambda samples: pad_sequence(samples, batch_first=True)。"
            )
        super().__init__(
            ByIndex(dataset, sampler.seed, collate_fn),
            batch_sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=None if collate_fn is None else _as_is,  # 定了种之后才能拼，见 ByIndex
            generator=torch.Generator(),  # DataLoader 每轮抽一个数；不给，它就抽全局的
        )
        self.batches = sampler
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """什么也不返回：让下一个 ``for`` 是第 ``epoch`` 轮，从头开始。"""
        self.epoch = check_whole("epoch", epoch, None)
        self.batches.seek(self.epoch)

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


def _as_is(batch: Any) -> Any:
    return batch
