"""这个加载器能不能精确续上？看它的类型，再试取几次样本，看随机数从哪里来。"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from companion.repro import random_state, restore_random_state
from companion.run._held import reachable, restore, sources, states
from companion.run._order import Inexact, can_skip, fingerprint

_REREAD = "只能把前面的批重读一遍，读到的未必与上次相同；它自带的状态也没有存"
_SPREAD = 16  # 数据集有自带的发生器时，试取这么多个样本
_GLOBAL = (torch.default_generator, random._inst, np.random.mtrand._rand)


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
        hint = "换成按编号取样本的数据集，用 companion.data 的 loaders()，就能一位不差"
        return Inexact(f"IterableDataset 不能按编号取样本，{_REREAD}", hint)
    if not ours and not can_skip(loader):
        return Inexact(f"{type(loader).__name__} {_REREAD}")
    if loader.num_workers and not loader.in_order:
        return Inexact("in_order=False 时各批的先后每次不同", "请去掉 in_order=False", True)
    marked = getattr(loader.dataset, "exact_by_index", False) and not ours
    return (None if marked else _why_random(loader)) or why_shifted(loader)


def why_shifted(loader: Any) -> Inexact | None:
    """子进程留着不走，全局的随机数就会错开；不会就是 ``None``。验证的加载器也一样。"""
    ours = hasattr(loader, "iter_from")  # 它给子进程的种子不从全局抽
    if ours or not (isinstance(loader, DataLoader) and loader.persistent_workers):
        return None
    return Inexact(
        "persistent_workers=True 的加载器在一个进程里只抽一次子进程的种子，新进程里又抽一次，"
        "之后的随机数就错开了",
        "请去掉 persistent_workers=True，或用 companion.data 的 loaders()",
        always=True,
    )


def _why_random(loader: DataLoader[Any]) -> Inexact | None:
    before, trial = random_state(), _Trial(loader)
    moved, same, own = trial[0] if not loader.num_workers else _in_a_worker(loader, trial)
    restore_random_state(before)
    lasting = loader.persistent_workers  # 不重启的子进程，随机数从上一轮接着用
    if moved and loader.num_workers:
        reason = "样本里的随机变换在子进程里抽随机数，子进程的随机数续不上"
        return Inexact(reason, always=lasting)
    if (moved or same) and not own:
        return None
    return Inexact(
        "样本里的随机数来自数据集自己的发生器（或计数器），它的状态没有存",
        "样本里请只用 torch、random、np.random 的全局随机数，再用 companion.data 的 "
        "loaders()，就能一位不差",
        always=lasting or not loader.num_workers,
    )


class _Trial:
    """只有一项的数据集：取样本、拼成批，看全局随机数动没动、几次是否相同、自带的发生器动没动。"""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._dataset, self._collate = loader.dataset, loader.collate_fn
        self._batched = loader.batch_sampler is not None

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[bool, bool, bool]:
        try:
            own = self._own()
            before = states(own)
            try:
                moved, same = self._four_times()
                return moved, same, bool(own) and (moved or same) and self._draws(own)
            finally:
                restore(own, before)
        except Exception:  # 编号不是整数、凑不成批……无从试起；真有错，训练时自会报出来
            return False, True, False

    def _own(self) -> list[Any]:
        """数据集（和拼批的函数）自带的发生器；全局的那三个不算。"""
        found = sources(reachable((self._dataset, self._collate), objects=True))
        return [source for source in found if not any(source is known for known in _GLOBAL)]

    def _four_times(self) -> tuple[bool, bool]:
        """0 号样本取四次：全局随机数动没动，四次是否相同。"""
        before = fingerprint()
        batches = [self._batch(0) for _ in range(4)]
        moved = fingerprint() != before
        return moved, moved or all(_same(batches[0], batch) for batch in batches)

    def _draws(self, own: list[Any]) -> bool:
        """各处的样本再取一次，自带的发生器又往前走了没有；每个样本都重新定种的不会。"""
        count: int = len(self._dataset)  # type: ignore[arg-type]
        for index in np.linspace(0, count - 1, min(_SPREAD, count), dtype=int).tolist():
            self._batch(index)
            before = states(own)
            self._batch(index)
            if states(own) != before:
                return True
        return False

    def _batch(self, index: int) -> Any:
        sample = self._dataset[index]
        return self._collate([sample, sample] if self._batched else sample)


def _in_a_worker(loader: DataLoader[Any], trial: _Trial) -> tuple[bool, bool, bool]:
    """在子进程里试：有的数据集第一次取样本时才打开文件，在主进程里打开就被各个子进程共用了。"""
    options: Any = {
        "num_workers": 1,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
    }
    found: tuple[bool, bool, bool] = next(iter(DataLoader(trial, batch_size=None, **options)))  # type: ignore[arg-type]
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
