"""一次运行的记录：一步一步记下的数，一轮之末成了 ``History`` 里的一行、CSV、TensorBoard。"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from companion.distributed import is_main
from companion.run._files import Board, write_csv
from companion.run._history import History
from companion.run._sums import LogSums, averages

_JUDGED = {"val", "valid", "validation", "eval", "test"}  # 评估出来的列，名字这样开头


class Records:
    """``folder`` 是 ``None`` 时只留在内存里。"""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._board = Board(folder) if folder else None
        self.history = History()
        self._inside = LogSums()  # batches 的循环里记的：接着练时要接上
        self._outside = LogSums()  # 循环外面记的：那几行会重新执行，不存

    def log(self, n: int | Tensor, values: Mapping[str, Any], inside: bool) -> None:
        """记下一组值；``inside`` 说是不是在 ``batches`` 的循环里。"""
        sums = self._inside if inside else self._outside
        sums.add(n, values, only_scalars=inside, stored=self._folder is not None)

    def close_epoch(self, epoch: int) -> None:
        """把这一轮的平均写成一条记录；写文件的只有 0 号进程。"""
        record = {"epoch": epoch} | averages(self._inside, self._outside) | {"epoch": epoch}
        self.history.records.append(record)
        self._inside, self._outside = LogSums(), LogSums()
        if self._folder and self._board and is_main():
            write_csv(self._folder, self.history)
            self._board.write(record)

    def judged(self) -> str | None:
        """刚收尾的一轮里，看名字是评估出来的一列，先取叫 loss 的；没有就是 ``None``。"""
        found = [
            name
            for name, value in self.history.records[-1].items()
            if isinstance(value, int | float) and name.lower().split("_")[0] in _JUDGED
        ]
        return min(found, key=lambda name: "loss" not in name, default=None)

    def state_dict(self) -> dict[str, Any]:
        """这个进程在这一轮里记下的和。"""
        return self._inside.state_dict()

    def load_state_dict(self, history: list[dict[str, Any]], sums: Sequence[Any]) -> None:
        """接上以前的记录；``sums`` 是归这个进程接的几份和。"""
        self.history.records[:] = history
        self._inside.load_state_dict(*sums)

    def reopen(self) -> None:
        """目录没有了：往后的曲线写进新的文件。"""
        self._board = Board(self._folder) if self._folder else None

    def close(self) -> None:
        """关上 TensorBoard 的文件。"""
        if self._board:
            self._board.close()
