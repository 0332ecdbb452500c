"""目录的锁：一个目录同一时刻只有一个进程在写。进程怎么死，锁都由系统放开。"""

import errno
import os
import platform
import sys
from pathlib import Path

from companion.errors import RunError

_BUSY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_FAR = 1 << 30  # Windows 上锁住的字节别人读不了，所以锁远处的一个，不锁进程号


class Lock:
    """锁住 ``folder``，写下自己的进程号；``release()`` 放开。

    用的是 POSIX 的记录锁，子进程不继承：训练被 ``kill -9``，取数据的子进程还活着，也不占着它。
    同一个进程里不要锁两次：关上任何一个，两个就都放开了。

    Raises:
        RunError: 另一个进程正占着它；消息里有进程号。
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "lock"
        self._file: int | None = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _try_lock(self._file):
            self.release()
            raise RunError(_busy(folder, self._path.read_text(encoding="utf-8").strip()))
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, f"{os.getpid()} {platform.node()}\n".encode())

    def is_gone(self) -> bool:
        """锁文件没有了，多半是整个目录被删掉了。"""
        return not self._path.exists()

    def release(self) -> None:
        """放开；再调用一次也没关系。"""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self.release()


def _try_lock(file: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, _FAR, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # 别的错误是这个文件系统没有锁，那就没法防，照常训练
        return error.errno not in _BUSY
    return True


def _busy(folder: Path, owner: str) -> str:
    pid, _, host = owner.partition(" ")
    where = f"{host} 上的" if host != platform.node() else ""
    return (
        f"一个目录同时只能有一个进程写，{folder} 实际正被{where}进程 {pid or '（号码未知）'} 写。"
        f"等它练完，或换一个目录；它要是该停了：kill {pid}，它会存好再走。"
    )
