"""``NoRun``：与 ``Run`` 同样的接口，记在内存里，什么也不写；``fit(run=None)`` 用它。"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from companion.run._history import History
from companion.run._order import announce
from companion.run._records import Records


class NoRun:
    """不存档的运行：``epochs`` 从 1 数到头，``batches`` 就是加载器自己。方法见 ``Run``。"""

    def __init__(self) -> None:
        self.epoch = 0
        self._records, self._stopping = Records(None), False

    @property
    def history(self) -> History:
        """逐轮的记录。"""
        return self._records.history

    def attach(self, **objects: Any) -> None:
        """什么也不做：没有要存的。"""

    def update_config(self, **values: Any) -> None:
        """什么也不做：没有 ``run.json``。"""

    def epochs(self, total: int) -> Iterator[int]:
        """轮次，从 1 到 ``total``；每轮之后记一条。"""
        self._stopping = False
        while self.epoch < total and not self._stopping:
            self.epoch += 1
            yield self.epoch
            self._records.close_epoch(self.epoch)

    def batches(self, loader: Any, *, window: int = 1) -> Iterator[Any]:
        """``loader`` 的各批；先告诉它现在是第几轮。"""
        announce(loader, self.epoch)
        return iter(loader)

    def log(self, *, n: int | Tensor = 1, **values: Any) -> None:
        """什么也不返回：记下几个数，一轮之末按 ``n`` 加权平均。"""
        self._records.log(n, values, inside=False)

    def save(self) -> None:
        """什么也不做。"""

    def stop(self) -> None:
        """什么也不返回：这一轮之后就结束。"""
        self._stopping = True

    def close(self) -> None:
        """什么也不做。"""
