"""校验和：边写边算，或读一遍；只碰普通文件；目录建好就落盘。"""

import hashlib
import os
import stat
import sys
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple

from companion._common import sync_directory

DEEPEST = 8  # 存档里的目录至多套这么多层
_FLAGS = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")  # 有的系统没有其中几个


class FileRecord(NamedTuple):
    """一个文件应有的样子。"""

    bytes: int
    sha256: str  # 64 个十六进制数字


class HashingFile:
    """边写边算：写进 ``file`` 的字节同时计数、算 sha256。``torch.save`` 可以直接写它。

    校验和来自内存里的字节，不是写完再读回来的，所以磁盘写错了也查得出。
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self._bytes = file, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> int:
        """写下全部 ``data``，返回字节数。"""
        self._hash.update(data)
        self._bytes += memoryview(data).nbytes
        return self._file.write(data)

    def flush(self) -> None:
        """把缓冲里的字节交给操作系统。"""
        self._file.flush()

    def record(self) -> FileRecord:
        """到现在为止写下的字节数和它们的 sha256。"""
        return FileRecord(self._bytes, self._hash.hexdigest())


def hash_file(file: BufferedReader | BufferedRandom, most: int = sys.maxsize - 1) -> FileRecord:
    """一个以二进制方式打开的文件的字节数和 sha256；从头读到尾，多于 ``most`` 字节就不再读。"""
    digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(1 << 18))
    while count := file.readinto(buffer[: most + 1 - size]):
        digest.update(buffer[:count])
        size += count
    return FileRecord(size, digest.hexdigest())


def is_regular(path: Path) -> bool:
    """``path`` 是不是普通文件；链接、管道、设备、目录都不是。"""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def open_regular(path: Path) -> BufferedReader:
    """打开来读的普通文件 ``path``；是链接、管道、设备，就抛出 ``OSError``，不打开，也不等待。"""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _not_regular(path.name)
    flags = sum(getattr(os, name, 0) for name in _FLAGS)
    file = os.fdopen(os.open(path, os.O_RDONLY | flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # 刚刚被人换掉了
        file.close()
        raise _not_regular(path.name)
    return file


def file_sizes(directory: Path) -> dict[str, int]:
    """目录里每个文件的字节数，名字相对它，用 ``/`` 分隔；有链接、管道等就抛出 ``OSError``。"""
    sizes, folders = {}, [""]
    for folder in folders:  # 边走边加
        with os.scandir(directory / folder) as entries:
            for entry in entries:
                name, found = folder + entry.name, entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    sizes[name] = found.st_size
                elif not stat.S_ISDIR(found.st_mode):
                    raise _not_regular(name)
                elif name.count("/") >= DEEPEST:
                    raise OSError(f"{name} 套得太深，应不超过 {DEEPEST} 层")
                else:
                    folders.append(name + "/")
    return sizes


def _not_regular(name: str) -> OSError:
    return OSError(f"{name} 应是普通文件，实际是链接、管道、设备或目录")


def make_folder(path: Path) -> None:
    """返回时目录 ``path`` 已经存在；缺的上级目录一并建好，名字都已落盘。"""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)
