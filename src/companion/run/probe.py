"""这个加载器能不能精确续上？看它的类型，再试取几次样本，看随机数从哪里来。"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from companion.repro import random_state, restore_random_state
from companion.run.order import Inexact, can_skip, fingerprint

__all__ = ["why_inexact"]


_REREAD = "只能把前面的批重读一遍，读到的未必与上次相同；它自带的状态也没有存"


def why_inexact(loader: Any) -> Inexact | None:
    """接着练时，哪里对不上，怎么改；对得上就是 ``None``。全局随机数不受影响。"""
    ours = hasattr(loader, "iter_from")
    if (ours and not isinstance(loader, DataLoader)) or isinstance(loader, Sequence):
        return None
    if isinstance(loader, Iterator):
        return Inexact(
            f"交给 run.batches 的是 {type(loader).__name__}，不是加载器：定不了轮次，也记不下次序",
            "把 enumerate 写在外面：for i, batch in enumerate(run.batches(loader))（接着练时 i "
            "从 0 数起，要接着数就用 run.step）；不用 zip，把两个数据集合成一个："
            "loaders(torch.utils.data.StackDataset(a, b), batch_size=…)",
            always=True,
        )
    if isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset):
        hint = "换成按编号取样本的数据集，用 companion.data.loaders 的 loaders()，就能一位不差"
        return Inexact(f"IterableDataset 不能按编号取样本，{_REREAD}", hint)
    if not ours and not can_skip(loader):
        return Inexact(f"{type(loader).__name__} {_REREAD}")
    if loader.num_workers and not loader.in_order:
        return Inexact("in_order=False 时各批的先后每次不同", "请去掉 in_order=False", True)
    if getattr(loader.dataset, "exact_by_index", False) and not ours:
        return None
    return _why_random(loader)


def _why_random(loader: DataLoader[Any]) -> Inexact | None:
    before, trial = random_state(), _Trial(loader)
    moved, same = trial[0] if not loader.num_workers else _in_a_worker(loader, trial)
    restore_random_state(before)
    lasting = loader.persistent_workers  # 不重启的子进程，随机数从上一轮接着用
    if moved and loader.num_workers:
        reason = "样本里的随机变换在子进程里抽随机数，子进程的随机数续不上"
        return Inexact(reason, always=lasting)
    if moved or same:
        return None
    return Inexact(
        "样本里的随机数来自数据集自己的发生器（或计数器），它的状态没有存",
        "样本里请只用 torch、random、np.random 的全局随机数，再用 companion.data.loaders 的 "
        "loaders()，就能一位不差",
        always=lasting or not loader.num_workers,
    )


class _Trial:
    """只有一项的数据集：把 0 号样本取四次、拼成批，看全局随机数动没动、四次是否相同。"""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._dataset, self._collate = loader.dataset, loader.collate_fn
        self._batched = loader.batch_sampler is not None

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[bool, bool]:
        before = fingerprint()
        try:
            batches = [self._batch() for _ in range(4)]
            moved = fingerprint() != before
            return moved, moved or all(_same(batches[0], batch) for batch in batches)
        except Exception:  # 编号不是整数、凑不成批……无从试起；真有错，训练时自会报出来
            return False, True

    def _batch(self) -> Any:
        sample = self._dataset[0]
        return self._collate([sample, sample] if self._batched else sample)


def _in_a_worker(loader: DataLoader[Any], trial: _Trial) -> tuple[bool, bool]:
    """在子进程里试：有的数据集第一次取样本时才打开文件，在主进程里打开就被各个子进程共用了。"""
    options: Any = {
        "num_workers": 1,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
    }
    found: tuple[bool, bool] = next(iter(DataLoader(trial, batch_size=None, **options)))  # type: ignore[arg-type]
    return found


def _same(one: Any, two: Any) -> bool:
    """两个样本的数值是否相同；不认得的类型算相同，免得冤枉它。"""
    if isinstance(one, Tensor | np.ndarray):
        return torch.equal(torch.as_tensor(one).nan_to_num(), torch.as_tensor(two).nan_to_num())
    if isinstance(one, dict):
        return all(_same(value, two.get(key)) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    if hasattr(one, "tobytes"):  # 图像
        return bool(one.tobytes() == two.tobytes())
    return not isinstance(one, int | float | str | bytes) or one == two
