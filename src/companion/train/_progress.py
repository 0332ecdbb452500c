"""进度：终端和笔记本里是一行会动的进度条，别处是每轮一行。

进度条按时钟重画，每秒最多 10 次，只在重画时读一次损失；不认得的输出、重定向到文件的输出，以及
环境变量 ``COMPANION_PROGRESS=plain`` 时，只在一轮结束印一行，没有回车符。
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from typing import Any, Protocol, TextIO

from companion._common import emit, numbers, width

_EVERY_S = 0.1  # 两次重画至少隔这么久
_WIDTH = 20  # 条有几格


class Counted(Protocol):
    """数着批的东西；``step.EpochMeans`` 就是。"""

    batches: int  # 做了几批

    def mean(self) -> float:
        """到现在为止的平均损失。"""


class Progress:
    """训练的进度，印到 ``stream``。

    Args:
        epochs: 一共几轮。
        shown: ``False`` 时什么也不印。
        stream: 默认是标准输出。
        clock: 秒表，测试里换成假的。
    """

    def __init__(
        self,
        epochs: int,
        shown: bool = True,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epochs, self.shown, self.clock = epochs, shown, clock
        self.stream = stream or sys.stdout
        self.live = shown and _is_live(self.stream)
        self._next, self._drawn = self.clock() + _EVERY_S, 0

    def watch(
        self, batches: Iterable[Any], epoch: int, sized: object, means: Counted | None = None
    ) -> Iterable[Any]:
        """同样的批；会动时，一边给出一边重画。

        Args:
            batches: 一批一批的数据。
            epoch: 第几轮。
            sized: ``len(sized)`` 是一共几批；没有长度就不画条，只写做了几批。
            means: 训练时给：前面已经做了几批，现在的平均损失。不给就是在验证。
        """
        return self._watch(batches, epoch, size(sized), means) if self.live else batches

    def close(self, epoch: int, record: Mapping[str, Any]) -> None:
        """一轮结束，印这一轮的一行。"""
        self.line(f"第 {epoch}/{self.epochs} 轮  {numbers(record)}")

    def line(self, text: str) -> None:
        """擦掉进度条，印一行。"""
        self.clear()
        if self.shown:
            emit(text + "\n", self.stream, flush=self.live)

    def clear(self) -> None:
        """擦掉进度条；没有画过就什么也不做。"""
        if self._drawn:
            self._write("")
            emit("\r", self.stream)
            self._drawn = 0

    def _watch(
        self, batches: Iterable[Any], epoch: int, total: int | None, means: Counted | None
    ) -> Iterator[Any]:
        title = f"第 {epoch}/{self.epochs} 轮  {'训练' if means else '验证'}"
        first, began = means.batches if means else 0, self.clock()
        for done, batch in enumerate(batches, first + 1):
            yield batch
            now = self.clock()
            if now >= self._next:
                pace = (now - began) / (done - first)
                loss = f"loss {means.mean():<7.4g}" if means else ""
                self._write(f"{title}  {_amount(done, total, pace)}  {loss}".rstrip())
                self._next = self.clock() + _EVERY_S  # 重画也要时间，从画完算起

    def _write(self, text: str) -> None:
        columns = width(text)
        emit("\r" + text + " " * (self._drawn - columns), self.stream, flush=True)
        self._drawn = columns


def size(batches: object) -> int | None:
    """一共几批；说不出来（例如 ``IterableDataset`` 的加载器）就是 ``None``。"""
    try:
        return len(batches) if isinstance(batches, Sized) else None
    except TypeError:
        return None


def _is_live(stream: TextIO) -> bool:
    if os.environ.get("COMPANION_PROGRESS") == "plain":
        return False
    notebook = type(stream).__module__.startswith("ipykernel.")
    with suppress(ValueError, AttributeError):  # 关上的流，没有 isatty 的流
        return notebook or stream.isatty()
    return False


def _amount(done: int, total: int | None, pace: float) -> str:
    """做了多少、还要多久；``pace`` 是一批几秒。"""
    if total is None:
        return f"{done} 批"
    full = min(_WIDTH * done // max(total, 1), _WIDTH)
    bar = "━" * full + "─" * (_WIDTH - full)
    return f"{bar}  {done}/{total}  剩 {_duration(pace * (total - done))}"


def _duration(seconds: float) -> str:
    """人读的时长：``8 秒``、``3 分 20 秒``、``2 小时 5 分``。"""
    s = round(max(seconds, 0))
    if s < 60:
        return f"{s} 秒"
    if s < 3600:
        return f"{s // 60} 分 {s % 60} 秒"
    return f"{s // 3600} 小时 {s % 3600 // 60} 分"
