"""记录：一步一步记下的数，一轮之末成了 ``History`` 的一行、CSV、TensorBoard。"""

import importlib
import json
import math
from collections.abc import Mapping, Sequence, ValuesView
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from companion._common import replacing
from companion.checkpoint import plain
from companion.distributed import gather_objects, is_main, say
from companion.errors import ArgumentError, ShapeError
from companion.metrics import History, Mean
from companion.repro import versions


class Log:
    """一次运行的记录；``folder`` 是 ``None`` 时只留在内存里。"""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._first = folder, True  # 新的运行，不是接着练的
        self._board: Any = None  # TensorBoard 的文件
        self.history, self._unwritten = History(), False  # 有没有还没写进文件的一行
        self._inside: dict[str, Any] = {}  # batches 的循环里记的：接着练时要接上
        self._outside: dict[str, Any] = {}  # 循环外面记的：那几行会重新执行，不存

    def add(self, n: int | Tensor, values: Mapping[str, Any], *, inside: bool) -> None:
        """记下一组值：标量按 n 加权平均，别的（矩阵、文字）留最后一个。见 ``Run.log``。"""
        weight = _scalar(n)
        if weight is None:
            raise ShapeError(f"run.log 的 n 应是标量，实际{_actual(n)}。请给样本（或词元）的个数。")
        entries = self._inside if inside else self._outside
        for name, given in values.items():
            value = _scalar(given)
            if value is not None:
                if not isinstance(entries.get(name), Mean):
                    entries[name] = Mean()
                entries[name].update(value, weight)
            elif inside and not isinstance(given, str | complex | None):
                raise ShapeError(
                    f"每一步里 run.log 的 {name} 应是标量，实际{_actual(given)}。"
                    "请先取 mean()；整轮算一次的矩阵、列表，在 batches 的循环外面记。"
                )
            else:
                entries[name] = self._kept(name, given)

    def close_epoch(self, epoch: int) -> None:
        """把这一轮的平均写成一条记录，留在内存里；``publish`` 才写给人看的文件。"""
        everyone = gather_objects(_together(self._inside, self._outside))
        names = dict.fromkeys(name for theirs in everyone for name in theirs)
        record = {n: _average([part[n] for part in everyone if n in part]) for n in names}
        record = {"epoch": epoch} | record | {"epoch": epoch}  # 排在最前，也不许改
        for older in self.history.records[-1:]:  # 大的矩阵只留最近一轮的，存档才不会越写越大
            self.history.records[-1] = {n: v for n, v in older.items() if _count(v) <= 256}
        self.history.records.append(record)
        self._inside, self._outside, self._unwritten = {}, {}, True

    def publish(self, config: Mapping[str, Any]) -> None:
        """刚存过：写给人看的文件，只有 0 号进程写。写不成只说一声，训练不停。

        ``run.json`` 是超参数 ``config``、版本、环境，一次运行写一次；每轮之后写 ``history.csv`` 和
        TensorBoard。
        """
        if not (self._folder and is_main()):
            return
        try:
            card = self._folder / "run.json"
            if self._first or not card.exists():
                content = json.dumps({"config": config} | versions(), ensure_ascii=False, indent=2)
                _write(card, content + "\n")
            self._first = False
            if self._unwritten:
                _write(self._folder / "history.csv", self.history.to_csv())
                self._draw(self._folder, self.history.records[-1])
            self._unwritten = False
        except Exception as error:  # TensorBoard 装坏了，什么错都会有
            say(f"给人看的记录没有写成，存档不受影响：{error}。")

    def state_dict(self) -> dict[str, Any]:
        """这个进程在这一轮里记下的和。"""
        means = {name: entry for name, entry in self._inside.items() if isinstance(entry, Mean)}
        return {name: mean.state_dict() for name, mean in means.items()}

    def load_state_dict(self, history: list[dict[str, Any]], sums: Sequence[Any]) -> None:
        """接上以前的记录；``sums`` 是归这个进程接的几份和。"""
        self._first, self.history.records[:] = False, [dict(record) for record in history]
        self._inside = {}
        for name in {name: None for part in sums for name in part}:
            self._inside[name] = Mean()
            self._inside[name].merge([part[name] for part in sums if name in part])

    def close(self) -> None:
        """关上 TensorBoard 的文件。"""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _kept(self, name: str, value: Any) -> Any:
        """原样留下的一份；要存的，存不下现在就说。"""
        if self._folder:
            plain(value, f"run.log 的 {name}")
        if isinstance(value, Tensor):
            return value.detach().clone()
        return value.copy() if isinstance(value, np.ndarray | list | dict) else value

    def _draw(self, folder: Path, record: Mapping[str, Any]) -> None:
        """TensorBoard 的曲线，横轴是轮次；没有装就什么也不做。断点之后的旧点由它隐去。"""
        if find_spec("tensorboard") is None:
            return
        if self._board is None:
            writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
            self._board = writer(str(folder / "tensorboard"), purge_step=record["epoch"])
        for name, value in record.items():
            if name != "epoch" and isinstance(value, int | float):
                self._board.add_scalar(name, value, record["epoch"])
        self._board.flush()


def json_only(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` 写成 JSON 再读回来的样子；NumPy 的标量成了 Python 的数。"""
    if not isinstance(config, Mapping):
        way = "请写 config=vars(args)。" if hasattr(config, "__dict__") else "请换成字典。"
        raise ArgumentError(f"config 应是字典，实际是 {type(config).__name__}。{way}")
    for name, value in config.items():
        try:
            json.dumps(value, default=np.generic.item)
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                f"config 的 {name} 应能写成 JSON，实际是 {type(value).__name__}。请换成名字或数值。"
            ) from error
    text = json.dumps(dict(config), default=np.generic.item)
    return dict(json.loads(text))  # 元组成了列表，与存下的一样


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode())


def _scalar(value: Any) -> float | Tensor | None:
    """一个数：张量还是张量，别的（只有一个数的数组、列表）成了 float；不是一个数就是 None。"""
    if isinstance(value, Tensor):
        return value if not value.ndim else value.reshape(()) if value.numel() == 1 else None
    if type(value) is int or type(value) is float:  # 多数时候；每一步都要快
        return float(value)
    with suppress(TypeError, ValueError):  # 长短不齐的列表
        array = np.asarray(value)
        if array.size == 1 and array.dtype.kind in "biuf":
            return float(array.item())
    return None


def _count(value: Any) -> int:
    """一共几个数；不是矩阵、列表的算一个。"""
    if isinstance(value, Tensor | np.ndarray):
        return math.prod(value.shape)
    items = value.values() if isinstance(value, Mapping) else value
    return sum(map(_count, items)) if isinstance(items, list | tuple | ValuesView) else 1


def _actual(value: Any) -> str:
    held = isinstance(value, Tensor | np.ndarray)
    return f"形状是 {tuple(value.shape)}" if held else f"是 {type(value).__name__}"


def _together(inside: Mapping[str, Any], outside: Mapping[str, Any]) -> dict[str, Any]:
    """循环里外记的合起来；两边都有的名字，是平均就合成一个。"""
    merged = dict(inside)
    for name, entry in outside.items():
        both = [merged[name], entry] if name in merged else [entry]
        means = [each for each in both if isinstance(each, Mean)]
        merged[name] = _merged(means) if means else both[0]
    return merged


def _average(entries: Sequence[Any]) -> Any:
    """各进程的平均合成一个；本来就相同的，一位也不改。不是平均的，先到的算。"""
    means = [entry for entry in entries if isinstance(entry, Mean)]
    if not means:
        return entries[0]
    own = {mean.compute() for mean in means if mean.state_dict()["weight"]}
    if len(own) <= 1:
        return own.pop() if own else float("nan")
    return _merged(means).compute()


def _merged(means: Sequence[Mean]) -> Mean:
    whole = Mean()
    whole.merge([mean.state_dict() for mean in means])
    return whole
