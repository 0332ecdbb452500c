"""一轮里每一批是哪些编号：只由种子和轮次决定，与全局随机数、进程数、设备无关。"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.data import Sampler

from companion.data import _picks
from companion.data._random import fold, generator
from companion.distributed import rank, world_size
from companion.errors import ArgumentError, DataError, check_choice, check_whole

Picks = Sampler[int] | Iterable[int]


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
        sampler: 不打乱，改由它逐个给出编号，可以重复、可以不全，见 ``loaders``。每一轮都按种子和
            轮次重新定种，给出的是 ``(轮次, 编号, 在这一轮里排第几)``。

    Raises:
        ArgumentError: 参数不是上面说的样子；到取批时才发现 ``batch_size`` 小于进程数。
        DataError: 没有样本，``drop_last`` 之后一批也不剩，或者 ``sampler`` 的编号不对。
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool = False,
        seed: int = 0,
        sampler: Picks | None = None,
    ) -> None:
        self.n, self.batch_size = n, check_whole("batch_size", batch_size, 1)
        self.seed = fold(check_whole("seed", seed, None))
        check_choice("shuffle", shuffle, (True, False))
        check_choice("drop_last", drop_last, (True, False))
        if n == 0:
            raise DataError("数据集应至少有一个样本，实际是空的。请检查路径和筛选条件。")
        if sampler is not None and shuffle:
            raise ArgumentError("shuffle=True 和 sampler 应只给一个，实际都给了。请去掉 shuffle。")
        self.count = n if sampler is None else _picks.count(sampler)  # 一轮取几个
        if self.count == 0:
            raise DataError("sampler 应至少给出一个编号，实际 len(sampler) 是 0。请检查它的条件。")
        if drop_last and self.count < self.batch_size:
            raise DataError(
                f"drop_last=True 时样本应不少于一批的 {self.batch_size} 个，实际只有 {self.count} "
                "个，一批也不剩。请减小 batch_size，或去掉 drop_last。"
            )
        self.shuffle, self.drop_last, self.sampler = shuffle, drop_last, sampler
        self.epoch = self.start = 0
        if sampler is not None:
            _picks.check_repeatable(self.order(0), self.order(0), sampler)

    def seek(self, epoch: int, start: int = 0) -> None:
        """什么也不返回：让下一次遍历从第 ``epoch`` 轮的第 ``start`` 批（从 0 数）开始。"""
        self.epoch, self.start = epoch, start

    def order(self, epoch: int) -> Tensor:
        """第 ``epoch`` 轮的次序：样本编号，形状 ``(count,)``，``int64``，在 CPU 上。

        没有 ``sampler`` 时，它是 0 到 n - 1 的一个排列。
        """
        if self.sampler is not None:
            return _picks.drawn(self.sampler, self.n, self.count, self.seed, epoch)
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
        batches = self._batches(world)
        start = check_whole("start", start, None)
        if not 0 <= start <= batches:
            raise ArgumentError(f"start 应在 0 到 {batches}（批数）之间，实际是 {start}。")
        edges = [k * self.batch_size for k in range(start, batches + 1)]
        if not self.drop_last:
            edges[-1] = self.count  # 不满的一批；不够分的话，它已经并进前一批
        cuts = [(a, b - a) for a, b in pairwise(edges)]
        return [(a + k * ours // world, a + k * (ours + 1) // world) for a, k in cuts]

    def __len__(self) -> int:
        return self._batches(world_size())

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        epoch = self.epoch if self.shuffle or self.sampler is not None else 0
        order, spans = self.order(epoch).tolist(), self.spans(self.start)
        # 此刻就定下轮次：惰性地等到第一次 next 才读，中间别人可能已经 seek 到别处
        if self.sampler is None:
            return ([(epoch, index) for index in order[a:b]] for a, b in spans)
        return ([(epoch, order[place], place) for place in range(a, b)] for a, b in spans)

    def _batches(self, world: int) -> int:
        """一轮几批；各进程相同。"""
        self._check_world(world)
        full, rest = divmod(self.count, self.batch_size)
        return full + (not self.drop_last and rest >= (world if full else 1))

    def _check_world(self, world: int) -> None:
        if self.batch_size < world:
            raise ArgumentError(
                f"batch_size 是全部进程合起来的一批，应不小于进程数 {world}，实际是 "
                f"{self.batch_size}。请写成「每个进程的批量 × {world}」。"
            )
        if self.count < world:
            raise DataError(
                f"样本应不少于进程数 {world}，实际只有 {self.count} 个。"
                "请减少进程，或换大一点的数据。"
            )
