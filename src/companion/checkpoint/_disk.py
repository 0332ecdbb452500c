"""校验和：边写边算，或读一遍；目录建好就落盘。"""

import hashlib
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple

from companion._common import sync_directory


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


def hash_file(file: BufferedReader | BufferedRandom) -> FileRecord:
    """一个以二进制方式打开的文件的字节数和 sha256；从头读到尾。"""
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(file.tell(), digest)


def make_folder(path: Path) -> None:
    """返回时目录 ``path`` 已经存在；缺的上级目录一并建好，名字都已落盘。"""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)
