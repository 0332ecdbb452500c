"""SIGTERM 和 Ctrl-C：第一次只记下，由训练循环在一步的边界上存好再走；第二次立即停。"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from companion._common import say

NAMES: dict[int, str] = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Signals:
    """从 ``install()`` 到 ``restore()``，收到的信号记在 ``received`` 里。"""

    def __init__(self) -> None:
        self._near_a_step: Callable[[], bool] = lambda: False
        self._old: dict[int, Any] = {}
        self._owner = os.getpid()
        self.received: int | None = None

    def install(self, near_a_step: Callable[[], bool]) -> None:
        """接管两个信号；不在主线程、或别人已经让它忽略（如 nohup），就不接管。

        ``near_a_step()`` 说最近的边界是一步之末，还是一轮之末；收到信号时要照实说。
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in NAMES:
            old = signal.getsignal(number)
            if old not in (None, signal.SIG_IGN):
                self._old[number] = old
                signal.signal(number, self._receive)
                self._near_a_step = near_a_step

    def restore(self) -> None:
        """还给原来的主人；收到过、还没有照办的 SIGTERM 再发一次给它，Ctrl-C 只说一声。"""
        for taken, old in self._old.items():
            signal.signal(taken, old)
        self._old, self._near_a_step = {}, lambda: False  # 不再拿着循环：没人用了就该放开目录的锁
        number, self.received = self.received, None
        if number == signal.SIGTERM:
            signal.raise_signal(number)
        elif number:  # 循环已经断开，人就在跟前
            say("收到过的 Ctrl-C 没有照办：循环先断开了。要停，请再来一次。")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # 取数据的子进程是复制来的，也带着这个函数
            if number == signal.SIGTERM:  # 照常结束它；Ctrl-C 归主进程管
                _die(number)
        elif self.received is None:
            self.received = number
            with suppress(RuntimeError):  # 正好打断了另一个 print
                near = self._near_a_step()
                where = "练完这一步，存好就停" if near else "这一轮收尾（验证等）之后，存好就停"
                say(f"收到 {NAMES[number]}：{where}；再来一次，立即停。")
        elif number == signal.SIGINT:
            self.received = None
            raise KeyboardInterrupt
        else:
            _die(number)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
