"""读 ``torch.save`` 写的文件，不经过 ``torch.load``：只认得张量和普通的值，别的一概不造。

文件是不压缩的 zip：``data.pkl`` 记着结构，``data/编号`` 是一块块存储。存储有多大，看文件里真有
多少字节；张量须落在自己的存储里。所以占用的内存以文件的大小为限（至多两倍，另加 ``_SPARE``）。
"""

import struct
import sys
import zipfile
from collections.abc import Callable
from io import BufferedReader
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, UntypedStorage

from companion.checkpoint._pickled import MOST, SCALARS, Name, read_pickle

_SPARE = 64 << 20  # 展开（expand）的张量等比文件里的大；合起来至多是文件的大小加这么多字节
_MOST_DIMS = 64
_DEEPEST = 100  # 字典、列表、元组至多套这么多层
_HEADER = struct.Struct("<4s22xHH")  # zip 里每个文件前面的一小段
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
}
_DTYPES = {
    str(value): value
    for name, value in vars(torch).items()
    if isinstance(value, torch.dtype) and not name.startswith(("q", "bits"))
}
_LAYOUTS = {
    f"torch.sparse_{kind}": getattr(torch, f"sparse_{kind}")
    for kind in ("coo", "csr", "csc", "bsr", "bsc")
}


class _Storage(NamedTuple):
    bytes: UntypedStorage
    dtype: torch.dtype | None  # 没有自己的存储类的 dtype（如 float8），写在张量那里


def read_archive(file: BufferedReader, values: bool = True) -> Any:
    """``torch.save`` 写进 ``file`` 的值；张量都在 CPU 上，步长和共享关系同存的时候。

    Args:
        file: 打开的文件。
        values: 假就不读张量的值，张量都在 meta 上；只看文件对不对时用，很快（有稀疏的例外）。

    Raises:
        Exception: ``file`` 不是这样的文件，或者里面有别的东西；什么错都会有。
    """
    archive = _Archive(file, "cpu" if values else "meta")
    value = archive.load()
    if archive.sparse and not values:  # 稀疏张量的下标对不对，要看值
        value = _Archive(file, "cpu").load()
    _check_plain(value)
    return value


def dtype_named(name: str) -> torch.dtype:
    """如 ``torch.float32``；没有这个 dtype，或者是量化的，就抛出 ``KeyError``。"""
    return _DTYPES[name]


class _Archive:
    def __init__(self, file: BufferedReader, device: str) -> None:
        self._file, self._records, self._device = file, _records(file), device
        self._storages: dict[str, UntypedStorage] = {}
        self.sparse = False
        self._spare = file.seek(0, 2) + _SPARE
        self._makers: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_tensor_v3": self._tensor_v3,
            "torch._utils._rebuild_sparse_tensor": self._sparse_tensor,
            "torch.serialization._get_layout": _LAYOUTS.__getitem__,
            "torch.Size": _size,
            "collections.OrderedDict": _no_hooks,
            "_codecs.encode": self._bytes,
            "builtins.bytes": _no_bytes,
            "builtins.complex": _complex,
        }

    def load(self) -> Any:
        if "byteorder" in self._records and self._read("byteorder") != sys.byteorder.encode():
            raise ValueError(f"文件的字节序应是 {sys.byteorder}")
        return read_pickle(self._read("data.pkl"), self._make, self._load)

    def _read(self, name: str) -> bytes:
        start, size = self._records[name]
        self._file.seek(start)
        return self._file.read(min(size, MOST + 1))

    def _make(self, name: str, args: tuple[Any, ...]) -> Any:
        if name not in self._makers:
            raise ValueError(f"里面有 {name}")
        return self._makers[name](*args)

    def _load(self, pid: Any) -> _Storage:
        kind, storage, key, _, _ = pid
        if kind != "storage" or type(storage) is not Name or type(key) is not str:
            raise ValueError("另存的应都是张量的存储")
        if key not in self._storages:
            self._storages[key] = self._read_storage(f"data/{key}")
        if storage.text == "torch.storage.UntypedStorage":
            return _Storage(self._storages[key], None)
        return _Storage(self._storages[key], _STORAGES[storage.text.removeprefix("torch.")])

    def _read_storage(self, name: str) -> UntypedStorage:
        start, size = self._records[name]
        storage = UntypedStorage(size, device=self._device)
        if self._device == "meta":
            return storage
        block = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)
        self._file.seek(start)
        if self._file.readinto(block.numpy().data) != size:
            raise ValueError(f"{name} 应有 {size} 字节，实际不到")
        return storage

    def _tensor(self, storage: _Storage, *view: Any) -> Tensor:
        offset, size, stride, _, _, *metadata = view
        return self._view(storage.bytes, storage.dtype, (offset, size, stride), *metadata)

    def _tensor_v3(self, storage: _Storage, *view: Any) -> Tensor:
        offset, size, stride, _, _, dtype, *metadata = view
        return self._view(storage.bytes, _DTYPES[dtype.text], (offset, size, stride), *metadata)

    def _view(self, storage: Any, dtype: Any, view: Any, metadata: Any = None) -> Tensor:
        offset, size, stride = view
        if len(size) > _MOST_DIMS or len(stride) != len(size):
            raise ValueError(f"张量应不超过 {_MOST_DIMS} 维，每维一个步长")
        if not all(type(n) is int and 0 <= n < 1 << 60 for n in (offset, *size, *stride)):
            raise ValueError("张量的形状、步长应是 0 或更大的整数")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if prod(size) and (last + 1) * dtype.itemsize > storage.nbytes():
            raise ValueError("张量应在自己的存储里，实际伸到了外面")
        self._spend(max(prod(size) * dtype.itemsize - storage.nbytes(), 0))
        tensor = torch.empty(0, dtype=dtype, device=self._device).set_(
            storage, offset, size, stride
        )
        return _with_metadata(tensor, metadata or {})

    def _sparse_tensor(self, layout: torch.layout, data: tuple[Any, ...]) -> Tensor:
        tensors = [item for item in data if isinstance(item, Tensor)]
        self._spend(sum(tensor.nbytes for tensor in tensors))
        self.sparse = True
        if self._device == "meta":
            return tensors[0]
        checked: dict[str, Any] = {"check_invariants": True}
        if layout is torch.sparse_coo:
            indices, values, size, coalesced = data
            return torch.sparse_coo_tensor(
                indices, values, size, is_coalesced=bool(coalesced), **checked
            )
        return torch.sparse_compressed_tensor(*data, layout=layout, **checked)

    def _bytes(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1" or type(text) is not str:
            raise ValueError("bytes 应写成 latin1 的字符串")
        self._spend(len(text))
        return text.encode("latin1")

    def _spend(self, count: int) -> None:
        """记下要占的 ``count`` 字节；文件里的一份东西可以反复引用，加起来不能比它大得多。"""
        self._spare -= count
        if self._spare < 0:
            raise ValueError("里面的东西加起来比文件大得多")


def _with_metadata(tensor: Tensor, metadata: dict[str, Any]) -> Tensor:
    if not metadata.keys() <= {"conj", "neg"}:
        raise ValueError("张量带着不认得的标记")
    tensor = tensor.conj() if metadata.get("conj") else tensor
    negated: Tensor = torch._neg_view(tensor) if metadata.get("neg") else tensor
    return negated


def _size(numbers: Any) -> tuple[Any, ...]:
    if type(numbers) is not tuple or len(numbers) > _MOST_DIMS:
        raise ValueError(f"形状应不超过 {_MOST_DIMS} 维")
    return numbers


def _complex(real: Any, imaginary: Any) -> complex:
    if not type(real) is type(imaginary) is float:
        raise ValueError("复数应由两个浮点数组成")
    return complex(real, imaginary)


def _no_hooks() -> dict[str, Any]:
    return {}  # 张量的钩子，从来没有


def _no_bytes() -> bytes:
    return b""


def _records(file: BufferedReader) -> dict[str, tuple[int, int]]:
    """zip 里每个文件的 ``(起点, 字节数)``，名字去掉了共同的上级目录；没有压缩，互不重叠。"""
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    found: dict[str, tuple[int, int]] = {}
    for info in infos:
        file.seek(info.header_offset)
        signature, name_bytes, extra_bytes = _HEADER.unpack(file.read(_HEADER.size))
        stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        if signature != b"PK\3\4" or not stored or info.file_size != info.compress_size:
            raise ValueError(f"zip 里的 {info.filename} 应没有压缩，也没有加密")
        start = info.header_offset + _HEADER.size + name_bytes + extra_bytes
        found[info.filename.partition("/")[2]] = (start, info.file_size)
    ends = [(start, start + size) for start, size in sorted(found.values())]
    ends.append((file.seek(0, 2), 0))
    if len(found) != len(infos) or any(end > start for (_, end), (start, _) in pairwise(ends)):
        raise ValueError("zip 里的文件应名字不同，互不重叠，都在文件里")
    return found


def _check_plain(value: Any) -> None:
    """``value`` 里只有张量和普通的值，是一棵树，不太深；否则抛出 ``ValueError``。"""
    seen: set[int] = set()
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if type(item) is Tensor or type(item) in SCALARS:
            continue
        if type(item) not in (dict, list, tuple) or depth > _DEEPEST:
            raise ValueError(f"里面有 {type(item).__name__}，或者套得太深")
        if item and id(item) in seen:
            raise ValueError("同一个列表或字典应只出现一次")
        seen.add(id(item))
        waiting += [(x, depth + 1) for x in (item.values() if type(item) is dict else item)]
