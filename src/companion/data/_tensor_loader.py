"""内存里的张量，一批一批地取：比 ``DataLoader(TensorDataset)`` 快好几倍，次序可以精确续上。

``DataLoader`` 逐个取样本再拼起来；这里一次 ``index_select`` 取走一整批，变换也对整批做。
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from companion._common import random_position
from companion.data._augment import Transform, as_compose
from companion.data._random import generator, global_random_kept
from companion.data._sampler import EpochSampler, Picks
from companion.errors import ArgumentError, DataError, MismatchError, ShapeError, check_whole


class TensorLoader:
    """逐批给出 ``(inputs, targets, …)``，每个张量一份；样本在第 0 维。

    次序只由种子和轮次决定，随机变换只由种子、轮次和样本编号决定，都不动全局的随机数。每个
    ``for`` 是新的一轮；从任一批续上（``iter_from``、``load_state_dict``），后面的批都一样。

    Args:
        tensors: 样本数相同、在同一设备上的张量，或一个 ``TensorDataset``。数据留在原来的设备上。
        batch_size: 一批几个样本；``torchrun`` 之下是全部进程合起来的一批，每个进程拿自己的一段。
        shuffle: 每轮重新打乱。
        drop_last: 扔掉最后不满的一批。
        seed: 打乱和随机变换用的种子，任意整数。
        transform: 一个变换或一串变换，作用于第一个张量的一批，见 ``loaders``。
        sampler: 不打乱，改由它逐个给出编号，见 ``loaders``。

    Raises:
        ArgumentError: 给的不是张量，或者别的参数不能用。
        ShapeError: 张量的样本数不同。
        DataError: 没有样本，张量不在同一设备上，``drop_last`` 之后一批也不剩，或者 ``sampler``
            的编号不对。
    """

    def __init__(
        self,
        *tensors: Tensor | TensorDataset,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        transform: Transform | Sequence[Transform] | None = None,
        sampler: Picks | None = None,
    ) -> None:
        self.tensors = _checked(tensors)
        self.sampler = EpochSampler(
            len(self.tensors[0]),
            batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            sampler=sampler,
        )
        self.transform = as_compose(transform)
        self._try_transform()
        self.set_epoch(0)

    @property
    def batch_size(self) -> int:
        """一批几个样本，全部进程合起来。"""
        return self.sampler.batch_size

    def set_epoch(self, epoch: int) -> None:
        """什么也不返回：让下一个 ``for`` 是第 ``epoch`` 轮，从头开始。"""
        self.epoch = check_whole("epoch", epoch, None)  # 下一个 for 的轮次
        self._start = 0  # 下一个 for 从第几批开始；只有 load_state_dict 会改
        self._position = (self.epoch, 0)  # 交到外面的下一批是哪一轮的第几批

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self.iter_from(self._start)

    def iter_from(self, start: int) -> Iterator[tuple[Tensor, ...]]:
        """这一轮从第 ``start`` 批（从 0 数）开始的各批；前面的不取，也不花时间。

        Raises:
            ArgumentError: ``start`` 超出批数。
        """
        epoch, spans = self.epoch, self.sampler.spans(start)
        self.epoch, self._start, self._position = epoch + 1, 0, (epoch, start)
        return self._batches(epoch, start, spans)

    def state_dict(self) -> dict[str, int]:
        """读到了哪一轮的第几批，以及校对用的样本数、批量、次序和种子；都是整数。"""
        epoch, batch = self._position
        if batch == len(self):
            epoch, batch = epoch + 1, 0
        return {"epoch": epoch, "batch": batch, "seed": self.sampler.seed} | self._looks()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """什么也不返回：下一个 ``for`` 从存的地方接着读；种子也用存的。

        Raises:
            MismatchError: 样本数、批量或 ``sampler`` 与存的不同，「第几批」就对不上了。
        """
        keys = "epoch", "batch", "seed", "n", "batch_size"
        if lost := "、".join(key for key in keys if key not in state):
            raise MismatchError(
                f"加载器的存档应有 {'、'.join(keys)}，实际缺 {lost}。请给 state_dict() 的结果。"
            )
        before, self.sampler.seed = self.sampler.seed, check_whole("seed", state["seed"], None)
        ours, theirs = (self.sampler.n, self.batch_size), (state["n"], state["batch_size"])
        problem = ""
        if ours != theirs:
            problem = f"（样本数, 批量）应与存档相同，存档是 {theirs}，现在是 {ours}"
        elif state.get("order") != self._looks().get("order"):
            problem = "sampler 应与存档时的相同，实际抽出的次序不同"
        if problem:
            self.sampler.seed = before
            raise MismatchError(f"加载器的{problem}。请用原来的数据和设置，或从新的一轮开始。")
        self.set_epoch(state["epoch"])
        self._start, self._position = state["batch"], (state["epoch"], state["batch"])

    def _looks(self) -> dict[str, int]:
        """接着读时应当相同的：样本数、批量；有 ``sampler``，还有第 0 轮的次序的校验和。"""
        sampler = self.sampler
        looks = {"n": sampler.n, "batch_size": sampler.batch_size}
        if sampler.sampler is not None:
            looks["order"] = zlib.crc32(sampler.order(0).numpy().tobytes())
        return looks

    def _batches(
        self, epoch: int, start: int, spans: list[tuple[int, int]]
    ) -> Iterator[tuple[Tensor, ...]]:
        inputs, *others = self.tensors
        order = self.sampler.order(epoch).to(inputs.device)  # 先在 CPU 上定，每种设备上都一样
        transform, draws = self.transform if self.transform.transforms else None, self._draws(epoch)
        repeats = self.sampler.sampler is not None
        for done, (a, b) in enumerate(spans, start + 1):
            index = order[a:b]
            batch = inputs.index_select(0, index)
            if transform is not None:
                # 没有随机的变换就没有一行；sampler 会重复取样本，所以那时随机数跟着位置走
                drawn = draws
                if transform.draws:
                    drawn = draws[:, a:b] if repeats else draws.index_select(1, index)
                batch = transform(batch, drawn)
            self._position = (epoch, done)
            yield (batch, *[other.index_select(0, index) for other in others])

    def _draws(self, epoch: int) -> Tensor:
        """这一轮每个样本的随机数，一次抽完，形状 ``(draws, count)``。"""
        source, size = generator(self.sampler.seed, epoch, 1), self.sampler.count
        draws = torch.rand(self.transform.draws, size, generator=source)
        return draws.to(self.tensors[0].device)

    def _try_transform(self) -> None:
        """拿前两个样本试一次，错误早早报出来。"""
        images = self.tensors[0][:2].clone()
        draws = torch.full((self.transform.draws, len(images)), 0.5, device=images.device)
        with global_random_kept():
            before = random_position()
            result: Any = self.transform(images, draws)
            moved = random_position() != before
        if not isinstance(result, Tensor) or result.shape[:1] != images.shape[:1]:
            shown = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ArgumentError(
                f"transform 应把一批 {len(images)} 张变成同样多张的一个张量，实际得到 {shown}。"
            )
        if moved:
            raise ArgumentError(
                "transform 的随机数应从外面给，实际动用了 torch 的全局发生器，或 NumPy、Python 的："
                "整批只抽一次，验证时也会照抽。请用 companion.data 里的随机变换，或给自己的变换加上"
                " draws。"
            )


def _checked(tensors: tuple[Tensor | TensorDataset, ...]) -> tuple[Tensor, ...]:
    """摊平成张量；不合要求就报错。"""
    if len(tensors) == 1 and isinstance(tensors[0], TensorDataset):
        tensors = tensors[0].tensors
    kinds = [type(tensor).__name__ for tensor in tensors if not isinstance(tensor, Tensor)]
    if kinds or not tensors:
        raise ArgumentError(
            "元组里应全是张量 (inputs, targets)，TensorLoader 也收一个 TensorDataset，实际是 "
            f"{'、'.join(kinds[:3]) or '空的'}。NumPy 数组先 torch.from_numpy，数的列表先 "
            "torch.tensor；样本的元组先变成列表，几个数据集要分开给。"
        )
    ours: tuple[Any, ...] = tensors
    if any(tensor.ndim == 0 for tensor in ours) or len({len(tensor) for tensor in ours}) > 1:
        shapes = "、".join(str(tuple(tensor.shape)) for tensor in ours)
        raise ShapeError(f"各张量第 0 维应一样长（一个样本一行），实际形状是 {shapes}。")
    if sparse := [str(tensor.layout) for tensor in ours if tensor.layout != torch.strided]:
        raise DataError(f"张量应是稠密的，实际有 {sparse[0]}。请先 .to_dense()。")
    if len({tensor.device for tensor in ours}) > 1:
        devices = "、".join(str(tensor.device) for tensor in ours)
        raise DataError(f"各张量应在同一设备上，实际在 {devices}。请先 .to(同一设备)。")
    return ours
