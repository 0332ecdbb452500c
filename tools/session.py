"""不带内核的 IPython，和从任意一刻分出子进程的办法。分叉只在 Linux 上可靠。"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["CAN_FORK", "Session", "fork", "forked"]

CAN_FORK = sys.platform == "linux"
CHILD_TIMEOUT_S = 120


class Session:
    """按顺序跑单元，标准输出收起来。"""

    def __init__(self) -> None:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "NoColor"
        self.shell = InteractiveShell.instance(config=config)
        self.shell.showtraceback = self._note
        self._noted: BaseException | None = None

    def run(self, source: str) -> tuple[str, str]:
        """返回 ``(报错, 标准输出)``；没报错时前一项是空串。"""
        self._noted, output = None, io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            result = self.shell.run_cell(source, store_history=False)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
        error = result.error_before_exec or result.error_in_exec or self._noted
        return f"{type(error).__name__}: {error}"[:300] if error else "", output.getvalue()

    def _note(self, *_: Any, **__: Any) -> None:
        """代替 ``showtraceback``：没人看，排版它却最慢；显示对象时出的错只有这里知道。"""
        self._noted = sys.exc_info()[1]


def fork(limit_s: int = CHILD_TIMEOUT_S) -> str | Callable[[str], None]:
    """分出子进程：在父进程里等它，返回它的回答；在子进程里返回交回答的函数，交了就退出。"""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(limit_s)
        return functools.partial(_answer, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return answer if status == 0 else f"子进程没有跑完，状态 {status}"


def forked(job: Callable[[], str], limit_s: int = CHILD_TIMEOUT_S) -> str:
    """在子进程里做 ``job``，返回它的结果；父进程的状态不受影响。"""
    branch = fork(limit_s)
    if isinstance(branch, str):
        return branch
    try:
        branch(job())
    finally:
        os._exit(1)


def _answer(writer: int, text: str) -> None:
    with os.fdopen(writer, "wb") as stream:
        stream.write(text.encode())
    os._exit(0)
