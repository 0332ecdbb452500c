"""让一个加载器从第 k 批开始，并且抽到与从头开始时相同的随机数；做不到的，说出为什么。

``DataLoader`` 一轮里动两次全局随机数：先抽子进程的种子，再（由采样器）抽次序。跳过前 k 批时
这两次照旧，只是前 k 批的编号抽出来就丢掉，样本一个也不读。
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from companion._common import random_position
from companion.data import random_in_samples
from companion.repro import RandomSource

Report = Callable[[str], None]

_OURS = "用 companion.data 的 loaders() 就能一位不差"
_REREAD = "只能把前面的批重读一遍，读到的未必与上次相同"


def start(loader: Any, done: int, report: Report) -> tuple[Iterator[Any], Callable[[], None]]:
    """从第 ``done`` 批（从 0 数）开始的迭代器，和一个函数：调用它，次序就已抽好。

    能跳过的跳过，不能的读出来丢掉；发现不能精确续上，就用原因调用 ``report``。
    """
    if hasattr(loader, "iter_from"):
        return loader.iter_from(done), lambda: None
    if isinstance(loader, Sequence):
        return (loader[i] for i in range(done, len(loader))), lambda: None
    homes = {type(part).__module__.split(".")[0] for part in _parts(loader)[1:]}
    strangers = not homes <= {"torch", "companion"}  # torch 的只在开头抽一次随机数，不必盯着
    if _by_index(loader) and (done or strangers):
        batched = loader.batch_sampler is not None
        sampler = loader.batch_sampler if batched else loader.sampler
        indices = _Indices(sampler, done, report)
        return iter(_clone(loader, indices)), indices.draw
    iterator = iter(loader)
    return iterator, lambda: next(islice(iterator, done, done), None)


def announce(loader: Any, epoch: int) -> None:
    """告诉加载器和它的采样器现在是第几轮（有 ``set_epoch`` 的才告诉），人常常忘了这一句。"""
    for part in _parts(loader):
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


def looks_of(loader: Any) -> dict[str, int]:
    """加载器的样子，问得出来的才有：批数、批量、样本数、种子。接着练时应当一样。"""
    loader = getattr(loader, "source", loader)  # 切成一段一段的，看切之前的
    ours, parts = hasattr(loader, "iter_from"), _parts(loader)
    fixed = ours or isinstance(loader, Sequence) or _by_index(loader)
    found = {
        "批数": _length(loader) if fixed else None,  # 说不准的（如 IterableDataset）不问
        "批量": _first(parts, "batch_size"),
        "一轮取几个": _first(parts, "count"),
        "样本数": _length(loader.dataset) if not ours and _by_index(loader) else _first(parts, "n"),
        "种子": _first(parts, "seed"),
    }
    return {name: value for name, value in found.items() if value is not None}


def generators(loader: Any) -> list[Any]:
    """加载器和采样器自带的随机数发生器，一个只算一次。"""
    if hasattr(loader, "iter_from") or not _by_index(loader):  # 前者的次序只由轮次决定
        return []
    held = [value for part in _parts(loader) for value in vars(part).values()]
    return list({id(value): value for value in held if isinstance(value, RandomSource)}.values())


def why_inexact(loader: Any) -> str | None:
    """接着练时哪里对不上，怎么改；对得上就是 ``None``。全局随机数不受影响。"""
    if hasattr(loader, "source") and not hasattr(loader.source, "iter_from"):
        return f"几次更新算一轮时，{type(loader.source).__name__} {_REREAD}；{_OURS}"
    ours = hasattr(loader, "iter_from")
    if (ours and not isinstance(loader, DataLoader)) or isinstance(loader, Sequence):
        return None
    if isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset):
        return f"IterableDataset 不能按编号取样本，{_REREAD}；换成按编号取的，{_OURS}"
    if not ours and not _by_index(loader):
        return f"{type(loader).__name__} {_REREAD}；{_OURS}"
    if loader.num_workers and not loader.in_order:
        return "in_order=False 时各批的先后每次不同；请去掉它"
    if loader.persistent_workers and not ours:
        return f"persistent_workers=True 让子进程的种子一个进程只抽一次；请去掉它，或{_OURS}"
    moved, own = random_in_samples(loader)
    if moved and loader.num_workers:
        return f"样本里的随机变换在子进程里抽随机数，子进程的随机数续不上；{_OURS}"
    if own:
        return f"样本里的随机数来自数据集自己的发生器，它的状态没有存；请用全局的，再{_OURS}"
    return None


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
        if self._pulled < self._skip:
            self.draw()
        return self._pull()

    def draw(self) -> None:
        """抽出并丢掉前 ``skip`` 批的编号；采样器第一次被问到时，才抽次序。"""
        with suppress(StopIteration):
            while self._pulled < self._skip:
                self._pull()

    def _pull(self) -> Any:
        self._pulled += 1
        before = random_position() if self._pulled == 2 else None  # 第一批抽次序，之后不该再抽
        indices = next(self._rest)
        if before is not None and random_position() != before:
            self._report(f"采样器边取边抽随机数，与模型的（如 dropout）混在一起；{_OURS}")
        return indices


def _by_index(loader: Any) -> bool:
    """是不是按编号取样本的 ``DataLoader``：跳过的批不必读。"""
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader).__iter__ is DataLoader.__iter__
    )


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


def _length(sized: Any) -> int | None:
    with suppress(TypeError):  # 采样器不一定有 __len__
        return len(sized)
    return None


def _first(parts: list[Any], name: str) -> int | None:
    """各层里第一个叫 ``name`` 的整数。"""
    found = [getattr(part, name, None) for part in parts]
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)


def _parts(loader: Any) -> list[Any]:
    """加载器和它的各层采样器。"""
    parts = [loader]
    for part in parts:  # 边走边加：采样器里还可能有采样器
        for name in ("batch_sampler", "sampler"):
            inner = getattr(part, name, None)
            if inner is not None and not any(inner is known for known in parts):
                parts.append(inner)
    return [part for part in parts if hasattr(part, "__dict__")]
