"""一轮里每一批是哪些编号：只由种子和轮次决定，与全局随机数、进程数、设备无关。"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from companion.distributed import rank, world_size
from companion.errors import ArgumentError, DataError

_MASK = 2**64 - 1


def mix(*keys: int) -> int:
    """几个整数混成的一个种子，``0`` 到 ``2**64 - 1``；换一个数、换个次序，结果都大不相同。

    出处：splitmix64（Steele、Lea、Flood 2014），每个数走一遍。
    """
    state = 0
    for key in keys:
        state = (state + key + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def generator(*keys: int) -> torch.Generator:
    """由几个整数定下的、CPU 上的新发生器；与全局的那个无关。"""
    return torch.Generator().manual_seed(mix(*keys))


class EpochSampler:
    """``DataLoader`` 的 ``batch_sampler``：逐批给出 ``[(轮次, 编号), …]``。

    ``batch_size`` 是全部进程合起来的一批。每个进程拿走每一批里自己的一段，长短最多差 1；最后
    一批若不够每个进程分一个，就并进前一批。所以各进程的批数相同，每个样本恰好出现一次。

    Args:
        n: 样本数。
        batch_size: 全局的一批有几个样本。
        shuffle: 每轮重新打乱；不打乱时给出的轮次恒为 0，每一轮完全一样。
        drop_last: 扔掉最后不满的一批。
        seed: 打乱用的种子，任意整数。

    Raises:
        ArgumentError: ``batch_size`` 不是正整数；到取批时才发现它小于进程数。
        DataError: 没有样本，或者 ``drop_last`` 之后一批也不剩。
    """

    def __init__(
        self, n: int, batch_size: int, *, shuffle: bool, drop_last: bool = False, seed: int = 0
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ArgumentError(f"batch_size 应为不小于 1 的整数，实际是 {batch_size!r}。")
        if n == 0:
            raise DataError("数据集应至少有一个样本，实际是空的。请检查路径和筛选条件。")
        if drop_last and n < batch_size:
            raise DataError(
                f"drop_last=True 时样本应不少于一批的 {batch_size} 个，实际只有 {n} 个，"
                "一批也不剩。请减小 batch_size，或去掉 drop_last。"
            )
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.shuffle, self.drop_last = shuffle, drop_last
        self.epoch = self.start = 0

    def seek(self, epoch: int, start: int = 0) -> None:
        """什么也不返回：让下一次遍历从第 ``epoch`` 轮的第 ``start`` 批（从 0 数）开始。"""
        self.epoch, self.start = epoch, start

    def order(self, epoch: int) -> Tensor:
        """第 ``epoch`` 轮的次序：0 到 n - 1 的一个排列，形状 ``(n,)``，``int64``，在 CPU 上。"""
        if not self.shuffle:
            return torch.arange(self.n)
        return torch.randperm(self.n, generator=generator(self.seed, epoch))

    def spans(self, start: int = 0) -> list[tuple[int, int]]:
        """从第 ``start`` 批起，本进程在每一批里拿到的那一段次序：``(起点, 终点)``。

        Raises:
            ArgumentError: ``start`` 超出批数，或者 ``batch_size`` 小于进程数。
            DataError: 样本比进程还少。
        """
        ours, world = rank(), world_size()
        self._check_world(world)
        edges = list(range(0, self.n + 1, self.batch_size))
        if not self.drop_last and edges[-1] < self.n:
            if len(edges) > 1 and self.n - edges[-1] < world:
                edges.pop()  # 最后一批不够分，并进前一批
            edges.append(self.n)
        cuts = [(a, b - a) for a, b in pairwise(edges)]
        if not 0 <= start <= len(cuts):
            raise ArgumentError(f"start 应在 0 到 {len(cuts)}（批数）之间，实际是 {start}。")
        return [(a + k * ours // world, a + k * (ours + 1) // world) for a, k in cuts[start:]]

    def __len__(self) -> int:
        return len(self.spans())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch if self.shuffle else 0
        order, spans = self.order(epoch).tolist(), self.spans(self.start)
        # 此刻就定下轮次：惰性地等到第一次 next 才读，中间别人可能已经 seek 到别处
        return ([(epoch, index) for index in order[a:b]] for a, b in spans)

    def _check_world(self, world: int) -> None:
        if self.batch_size < world:
            raise ArgumentError(
                f"batch_size 是全部进程合起来的一批，应不小于进程数 {world}，实际是 "
                f"{self.batch_size}。请写成「每个进程的批量 × {world}」。"
            )
        if self.n < world:
            raise DataError(
                f"样本应不少于进程数 {world}，实际只有 {self.n} 个。请减少进程，或换大一点的数据。"
            )
