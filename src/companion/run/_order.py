"""让一个加载器从第 k 批开始，并且抽到与从头开始时相同的随机数。

``DataLoader`` 一轮里动两次全局随机数：先抽子进程的种子，再（由采样器）抽次序。跳过前 k 批时
这两次照旧，只是前 k 批的编号抽出来就丢掉，样本一个也不读。
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from companion.run._held import Contents, reachable, sources

_LOADERS = "companion.data 的 loaders() 能一位不差"


class Inexact(NamedTuple):
    """不能一位不差地接着练的原因。"""

    reason: str
    hint: str = _LOADERS  # 怎么改
    always: bool = False  # 从一轮开头接着练也对不上


Report = Callable[[Inexact], None]


def start(loader: Any, done: int, report: Report) -> tuple[Iterator[Any], Callable[[], None]]:
    """从第 ``done`` 批（从 0 数）开始的迭代器，和一个函数：调用它，次序就已抽好。

    Args:
        loader: 任意可迭代的对象；能跳过的跳过，不能的读出来丢掉。
        done: 前面已经练过几批。
        report: 发现不能精确续上时，用原因调用它。
    """
    if hasattr(loader, "iter_from"):
        return loader.iter_from(done), _nothing
    if isinstance(loader, Sequence):
        return (loader[i] for i in range(done, len(loader))), _nothing
    if can_skip(loader) and (done or _strangers(loader)):
        indices = _Indices(_index_sampler(loader), done, report)
        return iter(_clone(loader, indices)), indices.draw
    iterator = iter(loader)
    return iterator, lambda: _consume(iterator, done)


def can_skip(loader: Any) -> bool:
    """是不是按编号取样本的 ``DataLoader``：跳过的批不必读。"""
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader).__iter__ is DataLoader.__iter__
    )


def announce(loader: Any, epoch: int) -> None:
    """告诉加载器和它的采样器现在是第几轮（有 ``set_epoch`` 的才告诉），人常常忘了这一句。"""
    for part in _parts(loader):
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


def length(loader: Any) -> int | None:
    """一轮有几批；说不准的（如 ``IterableDataset``）不问，是 ``None``。"""
    if hasattr(loader, "iter_from") or isinstance(loader, Sequence) or can_skip(loader):
        with suppress(TypeError):  # 采样器不一定有 __len__
            return len(loader)
    return None


def batch_size(loader: Any) -> int | None:
    """一批几个样本；问不出来就是 ``None``。"""
    sizes = [getattr(part, "batch_size", None) for part in _parts(loader)]
    return next((size for size in sizes if isinstance(size, int)), None)


def own_sources(loader: Any) -> list[Any]:
    """加载器和采样器自带的随机数发生器。"""
    if hasattr(loader, "iter_from"):  # 它的次序只由轮次决定
        return []
    return sources(value for part in _parts(loader) for value in _attributes(part))


def own_contents(loader: Any) -> Contents:
    """次序记在哪些列表和数组里；torch 和 companion 的采样器不会就地改，不看。"""
    if isinstance(loader, list):
        return Contents([loader], moved=True)
    strangers = _strangers(loader) if can_skip(loader) else []
    roots = [thing for part in strangers for thing in (part, *_attributes(part))]
    return Contents(reachable(roots, objects=False))


def why_changed(loader: Any) -> Inexact:
    """``own_contents`` 就地改过了：怎么说。"""
    if isinstance(loader, list):
        return Inexact(
            "交给 run.batches 的列表就地打乱过，新进程里又从没有打乱的开始",
            "请打乱副本：run.batches(random.sample(batches, len(batches)))",
            always=True,
        )
    names = "、".join(type(part).__name__ for part in _strangers(loader))
    return Inexact(
        f"采样器 {names} 的次序是就地改的，新进程里又从没有改过的开始",
        "请改它的副本，如 order = list(self.batches)，再打乱 order",
        always=True,
    )


class _Indices:
    """包着原来的采样器，给出第 ``skip`` 批起的编号；前面的抽出来丢掉。"""

    def __init__(self, indices: Any, skip: int, report: Report) -> None:
        self._indices, self._skip, self._report = indices, skip, report

    def __iter__(self) -> Iterator[Any]:
        self._rest, self._pulled = iter(self._indices), 0
        return self

    def __len__(self) -> int:
        return max(0, len(self._indices) - self._skip)

    def __next__(self) -> Any:
        self.draw()
        return self._pull()

    def draw(self) -> None:
        """抽出并丢掉前 ``skip`` 批的编号；采样器第一次被问到时，才抽次序。"""
        with suppress(StopIteration):
            while self._pulled < self._skip:
                self._pull()

    def _pull(self) -> Any:
        self._pulled += 1
        if not 2 <= self._pulled <= 4:  # 只看开头几次：第一次该抽次序，之后就不该再抽了
            return next(self._rest)
        before = fingerprint()
        indices = next(self._rest)
        if fingerprint() != before:
            reason = "采样器边取边抽随机数，与模型的（如 dropout）混在一起，跳过几批就对不上"
            self._report(Inexact(reason))
        return indices


def fingerprint() -> tuple[Any, ...]:
    """三个全局发生器此刻在哪里；两次相等，就是中间谁也没有抽过。"""
    legacy: Any = np.random.get_state()
    drawn = legacy[1].tobytes(), legacy[2]
    return torch.get_rng_state().numpy().tobytes(), *drawn, random.getstate()


def _clone(loader: DataLoader[Any], indices: _Indices) -> DataLoader[Any]:
    """同样的加载器，换上 ``indices``。"""
    kept = ["num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "generator"]
    options: dict[str, Any] = {name: getattr(loader, name) for name in [*kept, "in_order"]}
    if loader.num_workers:
        options["multiprocessing_context"] = loader.multiprocessing_context
        options["prefetch_factor"] = loader.prefetch_factor
    if loader.batch_sampler is not None:
        return DataLoader(loader.dataset, batch_sampler=indices, **options)
    return DataLoader(loader.dataset, batch_size=None, sampler=indices, **options)


def _index_sampler(loader: DataLoader[Any]) -> Any:
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


def _parts(loader: Any) -> list[Any]:
    """加载器和它的各层采样器。"""
    parts = [loader]
    for part in parts:  # 边走边加：采样器里还可能有采样器
        for name in ("batch_sampler", "sampler"):
            inner = getattr(part, name, None)
            if inner is not None and not any(inner is known for known in parts):
                parts.append(inner)
    return parts


def _strangers(loader: Any) -> list[Any]:
    """不是 torch 或 companion 的采样器；torch 的只在开头抽一次随机数，不必盯着。"""
    ours = ("torch", "companion")
    return [p for p in _parts(loader)[1:] if type(p).__module__.split(".")[0] not in ours]


def _attributes(part: Any) -> list[Any]:
    return list(getattr(part, "__dict__", {}).values())


def _consume(iterator: Iterator[Any], count: int) -> None:
    next(islice(iterator, count, count), None)


def _nothing() -> None:
    pass
