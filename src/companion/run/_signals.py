"""SIGTERM 和 Ctrl-C：第一次只记下，由训练循环在一步的边界上存好再走；第二次立即停。"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from companion.run import _words as words

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Signals:
    """从 ``install()`` 到 ``restore()``，收到的信号记在 ``received`` 里。"""

    def __init__(self) -> None:
        self._near_a_step: Callable[[], bool] = bool
        self._old: dict[int, Any] = {}
        self._owner = os.getpid()
        self.received: int | None = None

    def install(self, near_a_step: Callable[[], bool]) -> None:
        """接管两个信号；不在主线程、或别人已经让它忽略（如 nohup），就不接管。

        ``near_a_step()`` 说最近的边界是一步之末，还是一轮之末；收到信号时要照实说。
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _NAMES:
            old = signal.getsignal(number)
            if old not in (None, signal.SIG_IGN):
                self._old[number] = old
                signal.signal(number, self._receive)
                self._near_a_step = near_a_step

    def restore(self) -> None:
        """还给原来的主人。"""
        for number, old in self._old.items():
            signal.signal(number, old)
        self._old, self._near_a_step = {}, bool  # 不再拿着循环：没人用了就该放开目录的锁

    @staticmethod
    def name(number: int) -> str:
        """信号的名字，如 ``"SIGTERM"``；SIGINT 叫 ``"Ctrl-C"``。"""
        return _NAMES.get(signal.Signals(number), signal.Signals(number).name)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            self._in_child(number)
        elif self.received is None:
            self.received = number
            with suppress(RuntimeError):  # 正好打断了另一个 print
                print(words.received(self.name(number), self._near_a_step()))
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            _die(number)

    def _in_child(self, number: int) -> None:
        """取数据的子进程是复制来的，也带着这个函数：Ctrl-C 归主进程管，SIGTERM 照常结束它。"""
        if number == signal.SIGTERM:
            _die(number)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
