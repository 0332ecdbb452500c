"""从已经导入 torch 的父进程分出子进程：起一个只要几毫秒，可以杀它一百次。"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable


def run_child(action: Callable[[], object]) -> int:
    """在子进程里执行 ``action()``，返回退出码；被信号杀死时是信号的负值，如 -9。"""
    pid = start_child(action)
    return wait_child(pid)


LIMIT_S = 120  # 子进程卡住的话，到时候由 SIGALRM 结束它，测试会看到 -14


def start_child(action: Callable[[], object]) -> int:
    """在子进程里开始执行 ``action()``，返回它的进程号；用 ``wait_child`` 等它。"""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(LIMIT_S)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        action()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_child(pid: int) -> int:
    """等子进程结束，返回退出码；被信号杀死时是信号的负值。"""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
