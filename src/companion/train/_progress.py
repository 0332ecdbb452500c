"""进度：终端和笔记本里是一行会动的进度条，别处是每轮一行。

进度条按时钟重画，每秒最多 10 次，只在重画时读一次损失。笔记本里，一次训练只占一个输出，重画是把它
换掉，练完留下的是每轮一行。不认得的输出、重定向到文件的输出，以及环境变量
``COMPANION_PROGRESS=plain`` 时，只在一轮结束印一行，没有回车符。
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from importlib import import_module
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
        self.screen = _screen(stream or sys.stdout)
        self.live = shown and self.screen.live
        self._next = self.clock() + self.screen.rest

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
        if not self.live:
            return batches
        self.screen.open(self._title(epoch))
        return self._watch(batches, epoch, size(sized), means)

    def close(self, epoch: int, record: Mapping[str, Any]) -> None:
        """一轮结束，印这一轮的一行。"""
        self.line(f"{self._title(epoch)}  {numbers(record)}")

    def line(self, text: str) -> None:
        """擦掉进度条，印一行。"""
        if self.shown:
            due = self.clock() >= self._next
            self.screen.line(text, due=due)
            if due:
                self._next = self.clock() + self.screen.rest

    def clear(self) -> None:
        """擦掉进度条；没有画过就什么也不做。"""
        self.screen.draw("")

    def _title(self, epoch: int) -> str:
        return f"第 {epoch}/{self.epochs} 轮"

    def _watch(
        self, batches: Iterable[Any], epoch: int, total: int | None, means: Counted | None
    ) -> Iterator[Any]:
        title = f"{self._title(epoch)}  {'训练' if means else '验证'}"
        first, began = means.batches if means else 0, self.clock()
        for done, batch in enumerate(batches, first + 1):
            yield batch
            now = self.clock()
            if now >= self._next:
                pace = (now - began) / (done - first)
                loss = f"loss {means.mean():<7.4g}" if means else ""
                self.screen.draw(f"{title}  {_amount(done, total, pace)}  {loss}".rstrip())
                self._next = self.clock() + self.screen.rest  # 重画也要时间，从画完算起


class _Plain:
    """文件：每轮一行，不画进度条。"""

    live = False
    rest = _EVERY_S  # 画一次，歇几秒

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def open(self, text: str) -> None:
        """一轮开始了。"""

    def draw(self, bar: str) -> None:
        """画进度条，换掉上一次画的；空串是擦掉。"""

    def line(self, text: str, *, due: bool) -> None:
        """留下一行；``due`` 是歇够了没有，会刷屏的才管。"""
        emit(text + "\n", self.stream)


class _Terminal(_Plain):
    """终端：用回车符回到行首，盖掉上一次画的。"""

    live = True
    _drawn = 0  # 画着的那一条有几列

    def draw(self, bar: str) -> None:
        if bar or self._drawn:
            columns = width(bar)
            emit("\r" + bar + " " * (self._drawn - columns), self.stream, flush=True)
            self._drawn = columns
            if not bar:
                emit("\r", self.stream)

    def line(self, text: str, *, due: bool) -> None:
        self.draw("")
        emit(text + "\n", self.stream, flush=True)


class _Cell(_Plain):
    """笔记本：整次训练是一个输出，里面是印过的各行和进度条，每次整个换掉。

    写进 stdout 的话，执行笔记本的程序会把每次重画都存成一个输出。
    """

    live = True

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._handle: Any = None

    def open(self, text: str) -> None:
        if self._handle is None:  # 先占住位置：它在各个输出里排第几，不看快慢
            self.draw(text)

    def draw(self, bar: str) -> None:
        if not (bar or self._lines or self._handle):
            return
        data = {"text/plain": "\n".join([*self._lines, bar] if bar else self._lines)}
        with suppress(Exception):  # 前端断了、不认得它：没有进度，训练照练
            if self._handle is None:
                show = import_module("IPython.display").display  # 已经在它里面了，见 _screen
                self._handle = show(data, raw=True, display_id=True)
            else:
                self._handle.update(data, raw=True)
        self.rest = _EVERY_S * (1 + len(self._lines) / 100)  # 越长，换一次越费事

    def line(self, text: str, *, due: bool) -> None:
        self._lines.append(text)
        if due:
            self.draw("")


def size(batches: object) -> int | None:
    """一共几批；说不出来（例如 ``IterableDataset`` 的加载器）就是 ``None``。"""
    try:
        return len(batches) if isinstance(batches, Sized) else None
    except TypeError:
        return None


def _screen(stream: TextIO) -> _Plain:
    if os.environ.get("COMPANION_PROGRESS") == "plain":
        return _Plain(stream)
    if type(stream).__module__.startswith("ipykernel."):
        # Spyder 的控制台也是 ipykernel，但不会换掉旧的输出
        return _Terminal(stream) if "spyder_kernels" in sys.modules else _Cell(stream)
    with suppress(ValueError, AttributeError):  # 关上的流，没有 isatty 的流
        return _Terminal(stream) if stream.isatty() else _Plain(stream)
    return _Plain(stream)


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
