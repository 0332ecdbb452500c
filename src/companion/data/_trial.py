"""同一个样本取两次，看随机数从哪里来：全局的发生器，还是数据集自己的。"""

from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from companion._common import random_position, random_state_kept, same


def random_in_samples(loader: DataLoader[Any]) -> tuple[bool, bool]:
    """``(取样本动用了全局随机数, 没有动用、两次却不同)``；无从试起，两个都是 ``False``。

    全局随机数、加载器不受影响；样本真的会取两次。
    """
    trial: Any = _Twice(loader.dataset, loader.collate_fn, loader.batch_sampler is not None)
    try:
        with random_state_kept():
            # 有子进程的也在子进程里试：有的数据集第一次取样本才打开文件，别在主进程里打开
            kept = ("worker_init_fn", "multiprocessing_context")
            how: Any = {name: getattr(loader, name) for name in kept}
            how |= {"batch_size": None, "num_workers": min(loader.num_workers, 1)}
            moved, same_twice = next(iter(DataLoader(trial, **how)))
    except Exception:  # 真有错，训练时自会报出来
        return False, False
    return bool(moved), not (moved or same_twice)


class _Twice:
    """只有一项的数据集：取 0 号样本两次，全局随机数动没动，两次是否相同。"""

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], batched: bool) -> None:
        self._dataset, self._collate, self._batched = dataset, collate, batched

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[bool, bool]:
        before = random_position()
        one, two = self._batch(), self._batch()
        return random_position() != before, same(one, two)

    def _batch(self) -> Any:
        sample = self._dataset[0]
        return self._collate([sample, sample] if self._batched else sample)
