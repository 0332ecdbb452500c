"""分片存档里有哪些张量，每一片在哪个文件的哪一段：我们自己的 ``chunks.json``，逐条核对。

DCP 的 ``.metadata`` 是 pickle，读它不设防；只在刚写完、它确实是我们自己的时候读一次，从此不碰。
各片须不重不漏地拼成整个张量，须在清单里的文件中，互不重叠；所以没有一个数是没读过的内存。
"""

import json
from collections.abc import Mapping
from io import BytesIO
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from companion.checkpoint._archive import read_archive
from companion.checkpoint._disk import FileRecord, open_regular
from companion.checkpoint._values import is_shape

CHUNKS = "chunks.json"
_MOST = 64 << 20  # 它至多这么多字节
_OVERHEAD = 1 << 20  # 一片在文件里，比它的数多出的字节不到这么多
_DTYPES = {
    str(value): value
    for name, value in vars(torch).items()
    if isinstance(value, torch.dtype) and not name.startswith(("q", "bits"))
}
_Sizes = tuple[int, ...]


class Chunk(NamedTuple):
    """张量的一片，和它在哪里。"""

    offsets: _Sizes
    sizes: _Sizes
    file: str
    start: int
    length: int


class Stored(NamedTuple):
    """一个存着的张量；空的片不在内。"""

    dtype: torch.dtype
    shape: _Sizes
    chunks: list[Chunk]

    def like(self) -> Tensor:
        """形状、dtype 相同的张量，只占一个数的内存；用来比较，别往里写。"""
        return torch.zeros((), dtype=self.dtype, device="cpu").expand(self.shape)


def write_stored(directory: Path, stored: Mapping[str, Stored]) -> None:
    """什么也不返回：把 ``stored`` 写进 ``directory`` 的 ``chunks.json``。"""
    listed = {name: entry._asdict() for name, entry in stored.items()}
    for entry in listed.values():
        entry |= {"dtype": str(entry["dtype"]), "chunks": [c._asdict() for c in entry["chunks"]]}
    (directory / CHUNKS).write_text(json.dumps(listed), encoding="utf-8")


def read_stored(directory: Path, files: Mapping[str, FileRecord]) -> dict[str, Stored]:
    """名字到存着的张量；``files`` 是存档的清单。

    Raises:
        Exception: ``chunks.json`` 没有、不是我们写的，或者与文件对不上；什么错都会有。
    """
    with open_regular(directory / CHUNKS) as file:
        raw = file.read(_MOST + 1)
    if len(raw) > _MOST:
        raise ValueError(f"{CHUNKS} 应不超过 {_MOST} 字节，实际更大")
    stored = {name: _stored(name, **entry) for name, entry in json.loads(raw).items()}
    _check_places([chunk for entry in stored.values() for chunk in entry.chunks], files)
    return stored


def read_chunk(directory: Path, entry: Stored, chunk: Chunk) -> Tensor:
    """``entry`` 的一片的值。

    Raises:
        Exception: 那一段里不是这样的一片；什么错都会有。
    """
    with open_regular(directory / chunk.file) as file:
        file.seek(chunk.start)
        tensor = read_archive(BytesIO(file.read(chunk.length)))
    actual = (tensor.dtype, tuple(tensor.shape), tensor.layout)
    if actual != (entry.dtype, chunk.sizes, torch.strided):
        raise ValueError(
            f"{chunk.file} 里应是 {entry.dtype}、{chunk.sizes} 的一片，实际是 {actual}"
        )
    checked: Tensor = tensor
    return checked


def _stored(name: str, dtype: str, shape: list[int], chunks: list[dict[str, Any]]) -> Stored:
    listed = [_chunk(**chunk) for chunk in chunks]
    entry = Stored(_DTYPES[dtype], _sizes(shape), listed)
    for _, sizes, file, *place in listed:
        if type(file) is not str or not is_shape(place):
            raise ValueError(f"{name} 的位置应是文件名和 0 或更大的整数")
        extra = place[1] - prod(sizes) * entry.dtype.itemsize
        if not prod(sizes) or not 0 <= extra < _OVERHEAD:
            raise ValueError(f"{name} 的一片应有 {prod(sizes)} 个数，文件里不是这么多")
    _check_tiles(name, entry.shape, listed)
    return entry


def _chunk(offsets: Any, sizes: Any, **place: Any) -> Chunk:
    return Chunk(_sizes(offsets), _sizes(sizes), **place)


def _sizes(numbers: Any) -> _Sizes:
    if type(numbers) is not list or not is_shape(numbers):
        raise ValueError("形状应是 0 或更大的整数的列表，不超过 64 维")
    return tuple(numbers)


def _check_tiles(name: str, shape: _Sizes, chunks: list[Chunk]) -> None:
    """各片是一张网格的格子，每格一片：不重、不漏、不出界；否则抛出 ``ValueError``。"""
    columns = zip(*(chunk.offsets for chunk in chunks), strict=True)
    ends = [
        dict(pairwise([*sorted({*starts}), end]))
        for starts, end in zip(columns, shape, strict=False)
    ]
    fit = all(
        start + size == end[start]
        for chunk in chunks
        for start, size, end, _ in zip(chunk.offsets, chunk.sizes, ends, shape, strict=True)
    )
    total = sum(prod(chunk.sizes) for chunk in chunks)
    if not fit or total != prod(shape) or len({c.offsets for c in chunks}) != len(chunks):
        raise ValueError(f"{name} 的各片应不重不漏地拼成 {shape}，实际不是")


def _check_places(chunks: list[Chunk], files: Mapping[str, FileRecord]) -> None:
    """各片都在清单里的文件中，互不重叠；否则抛出 ``ValueError``。"""
    places = sorted((chunk.file, chunk.start, chunk.start + chunk.length) for chunk in chunks)
    for file, _, end in places:
        if file not in files or end > files[file].bytes:
            raise ValueError(f"各片应在清单里的文件中，实际有一片在 {file!r} 的 {end} 字节处")
    for (file, _, end), (other, start, _) in pairwise(places):
        if file == other and start < end:
            raise ValueError(f"各片应互不重叠，实际 {file!r} 里有重叠的")
