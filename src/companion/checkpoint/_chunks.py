"""分片存档里有哪些张量，每一片在哪个文件的哪一段：读 DCP 的 ``.metadata``，逐条核对。

``.metadata`` 可能是任何人写的。各片须不重不漏地拼成整个张量，须在清单里的文件中，互不重叠；
所以张量再大也大不过文件，没有一个数是没读过的内存。
"""

from io import BufferedReader
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from companion.checkpoint._archive import dtype_named, read_archive
from companion.checkpoint._disk import FilePart, FileRecord, open_regular
from companion.checkpoint._pickled import MOST, Made, Name, read_pickle
from companion.errors import CheckpointError

_DCP = "torch.distributed.checkpoint."
_PLACE = f"{_DCP}filesystem._StorageInfo"
_OVERHEAD = 1 << 20  # 一片在文件里，比它的数多出的字节不到这么多
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
        return torch.empty((), dtype=self.dtype, device="cpu").expand(self.shape)


def read_stored(directory: Path, files: dict[str, FileRecord]) -> dict[str, Stored]:
    """名字到存着的张量。

    Args:
        directory: 一个分片存档。
        files: 它的清单。

    Raises:
        CheckpointError: ``.metadata`` 不是 DCP 写的，或者与文件对不上；什么也没有执行。
    """
    try:
        with open_regular(directory / ".metadata") as file:
            described, places = _fields(
                read_pickle(file.read(MOST + 1)),
                f"{_DCP}metadata.Metadata",
                *("state_dict_metadata", "storage_data"),
            )
        lists = {id(entry.state["chunks"]) for entry in described.values()}
        if len(lists) != len(described):  # 一份很长的，可以反复引用
            raise ValueError("每个张量应各有一份 chunks")
        found = {_index(key): _file_place(place) for key, place in places.items()}
        stored = {name: _stored(name, entry, found) for name, entry in described.items()}
        _check_places([chunk for entry in stored.values() for chunk in entry.chunks], files)
    except Exception as error:  # 文件可能是任何人写的，什么错都会有
        raise CheckpointError(
            f"存档 {directory.name} 的 .metadata 里应是各个张量在哪里，实际不是：{error!s:.200}。"
            "已拒绝加载，什么也没有执行。它与清单相符，所以是被人改写过；只用信得过的存档。"
        ) from error
    return stored


def check_chunks(directory: Path, stored: dict[str, Stored]) -> None:
    """每一片都是 ``stored`` 里写的样子，就什么也不做；不读值，所以很快。

    Raises:
        CheckpointError: 有一片不是。
    """
    try:
        for entry in stored.values():
            for chunk in entry.chunks:
                read_chunk(directory, entry, chunk, values=False)
    except Exception as error:  # 文件可能是任何人写的，什么错都会有
        raise CheckpointError(
            f"存档 {directory.name} 里应是 .metadata 写着的各片，实际不是：{error!s:.200}。"
            "它与清单相符，所以是被人改写过；只用信得过的存档。"
        ) from error


def read_chunk(directory: Path, entry: Stored, chunk: Chunk, values: bool = True) -> Tensor:
    """``entry`` 的一片的值；``values`` 为假就不读值，只看文件里是不是这样的一片。

    Raises:
        ValueError: 那一段里不是这样的一片。
    """
    with open_regular(directory / chunk.file) as file:
        part: Any = FilePart(file, chunk.start, chunk.length)
        tensor = read_archive(BufferedReader(part), values)
    if type(tensor) is not Tensor or tensor.layout is not torch.strided:
        raise ValueError(f"{chunk.file} 里应是张量的一片，实际是别的东西")
    if tensor.dtype != entry.dtype or tensor.shape != chunk.sizes:
        raise ValueError(
            f"{chunk.file} 里的一片应是 {entry.dtype}、{chunk.sizes}，"
            f"实际是 {tensor.dtype}、{tuple(tensor.shape)}"
        )
    return tensor


def _fields(value: Any, name: str, *wanted: str) -> list[Any]:
    if type(value) is not Made or value.name != name or type(value.state) is not dict:
        raise ValueError(f"应有 {name}")
    return [value.state[key] for key in wanted]


def _file_place(value: Any) -> tuple[str, int, int]:
    file, start, length = _fields(value, _PLACE, "relative_path", "offset", "length")
    if value.state.get("transform_descriptors") or type(file) is not str:
        raise ValueError("每一片应原样存在一个文件里")
    start, length = _naturals((start, length))
    return file, start, length


def _index(value: Any) -> tuple[str, _Sizes]:
    name, offsets = _fields(value, f"{_DCP}metadata.MetadataIndex", "fqn", "offset")
    return _text(name), _size(offsets)


def _stored(name: str, value: Any, found: dict[Any, Any]) -> Stored:
    properties, size, listed = _fields(
        value, f"{_DCP}metadata.TensorStorageMetadata", "properties", "size", "chunks"
    )
    if type(properties) is not Made or type(properties.state[0]) is not Name:
        raise ValueError(f"{name} 应有 dtype")
    dtype, shape = dtype_named(properties.state[0].text), _size(size)
    chunks = []
    for each in listed:
        offsets, sizes = map(
            _size, _fields(each, f"{_DCP}metadata.ChunkStorageMetadata", "offsets", "sizes")
        )
        if prod(sizes):
            chunks.append(Chunk(offsets, sizes, *found[name, offsets]))
            if not 0 <= chunks[-1].length - prod(sizes) * dtype.itemsize < _OVERHEAD:
                raise ValueError(f"{name} 的一片应有 {prod(sizes)} 个数，文件里不是这么多")
    _check_tiles(_text(name), shape, chunks)
    return Stored(dtype, shape, chunks)


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


def _check_places(chunks: list[Chunk], files: dict[str, FileRecord]) -> None:
    """各片都在清单里的文件中，互不重叠；否则抛出 ``ValueError``。"""
    places = sorted((chunk.file, chunk.start, chunk.start + chunk.length) for chunk in chunks)
    for file, _, end in places:
        if file not in files or end > files[file].bytes:
            raise ValueError(f"各片应在清单里的文件中，实际有一片在 {file!r} 的 {end} 字节处")
    for (file, _, end), (other, start, _) in pairwise(places):
        if file == other and start < end:
            raise ValueError(f"各片应互不重叠，实际 {file!r} 里有重叠的")


def _size(value: Any) -> _Sizes:
    if type(value) is not Made or value.name != "torch.Size":
        raise ValueError("应有 torch.Size")
    (numbers,) = value.args
    return _naturals(numbers)


def _naturals(numbers: Any) -> _Sizes:
    if type(numbers) is not tuple or len(numbers) > 64:
        raise ValueError("形状应是不超过 64 维的元组")
    if not all(type(n) is int and 0 <= n < 1 << 60 for n in numbers):
        raise ValueError("应是 0 或更大的整数")
    checked: _Sizes = numbers
    return checked


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("名字应是字符串")
    text: str = value
    return text
