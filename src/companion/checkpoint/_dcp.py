"""张量的分片读写，建在 torch 的 DCP 上：每个进程一个文件，DCP 安排谁写、谁读哪一片。

DCP 读的时候用 pickle，能藏着代码；所以哪一片在哪里、里面是什么，都由 ``_chunks`` 读。
DCP 载入要半秒，所以在用到它的函数里才导入。
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.futures import Future

from companion.checkpoint._chunks import Chunk, Stored, read_chunk, write_stored
from companion.device import model_device
from companion.distributed import is_main

_PLACE = "companion.sharded"  # 切了片的张量拿走之后，原处是 {_PLACE: 名字}


def write_tensors(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """什么也不返回：各进程把自己的那些片写进 ``directory``，再由 0 号进程写 ``chunks.json``。"""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with _calling_dcp():
        save(dict(tensors), storage_writer=FileSystemWriter(directory))
    if is_main():
        write_stored(directory, _written(directory))


def read_tensors(
    directory: Path, stored: Mapping[str, Stored], targets: Mapping[str, Tensor]
) -> None:
    """什么也不返回：按名字把值读进 ``targets``；切了片的只读自己的那一片。每个进程都要调用。

    Raises:
        RuntimeError: 有一个进程没读成；``targets`` 里读了多少不一定。
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader: Any = FileSystemReader(directory)  # 它自己的读法不设防，换成我们的
    reader.read_metadata = lambda *_, **__: _metadata(stored)
    reader.read_data = lambda plan, planner: _read_data(directory, stored, plan, planner)
    with _calling_dcp():
        load(dict(targets), storage_reader=reader)


def empty_shard(saved: Tensor, model: nn.Module) -> Tensor:
    """装得下 ``saved`` 的空张量；模型切了片，它就照同样的切法，否则是普通的张量。"""
    from torch.distributed.tensor import DTensor, empty

    for parameter in model.parameters():
        if isinstance(parameter, DTensor):
            how: Any = {"device_mesh": parameter.device_mesh, "placements": parameter.placements}
            return empty(saved.shape, dtype=saved.dtype, **how)
    return torch.empty(saved.shape, dtype=saved.dtype, device=model_device(model))


def take_shards(value: Any, name: str, taken: dict[str, Tensor]) -> Any:
    """``value``，只是切了片的张量都移到 ``taken`` 里，原处留下名字。"""
    if hasattr(value, "device_mesh"):
        taken[name] = value
        return {_PLACE: name}
    if isinstance(value, Mapping):
        return {key: take_shards(item, f"{name}.{key}", taken) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [take_shards(item, f"{name}.{i}", taken) for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    return value


def put_shards(value: Any, make: Callable[[str], Tensor]) -> Any:
    """``take_shards`` 反过来：留着名字的地方换成 ``make(名字)``。"""
    if isinstance(value, dict):
        if value.keys() == {_PLACE}:
            return make(value[_PLACE])
        return {key: put_shards(item, make) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [put_shards(item, make) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def _written(directory: Path) -> dict[str, Stored]:
    """DCP 刚写下的各个张量。读的是 pickle，所以只能用在自己刚写的目录上。"""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    metadata: Any = FileSystemReader(directory).read_metadata()
    places = {(index.fqn, index.offset): place for index, place in metadata.storage_data.items()}
    stored = {}
    for name, entry in metadata.state_dict_metadata.items():
        chunks = [
            Chunk(each.offsets, each.sizes, place.relative_path, place.offset, place.length)
            for each in entry.chunks
            if each.sizes.numel()
            for place in [places[name, each.offsets]]
        ]
        stored[name] = Stored(entry.properties.dtype, entry.size, chunks)
    return stored


def _metadata(stored: Mapping[str, Stored]) -> Any:
    from torch.distributed.checkpoint import metadata as dcp

    described: Any = {
        name: dcp.TensorStorageMetadata(
            dcp.TensorProperties(dtype=entry.dtype),
            torch.Size(entry.shape),
            [
                dcp.ChunkStorageMetadata(torch.Size(chunk.offsets), torch.Size(chunk.sizes))
                for chunk in entry.chunks
            ],
        )
        for name, entry in stored.items()
    }
    return dcp.Metadata(described, storage_data={})


def _read_data(directory: Path, stored: Mapping[str, Stored], plan: Any, planner: Any) -> Any:
    for item in plan.items:
        entry = stored[item.storage_index.fqn]
        (chunk,) = [c for c in entry.chunks if c.offsets == item.storage_index.offset]
        saved = read_chunk(directory, entry, chunk)
        for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
            saved = saved.narrow(dim, start, length)
        planner.resolve_tensor(item).detach().copy_(saved)
    done: Future[None] = Future()
    done.set_result(None)
    return done


@contextmanager
def _calling_dcp() -> Iterator[None]:
    """有一个进程失败，DCP 让大家都抛出 ``CheckpointException``；它不是 ``Exception``，换成是的。"""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():  # 只有一个进程时它会警告「没有进程组」，那正是我们要的
            warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or un")
            yield
    except CheckpointException as error:
        reasons = [f"{rank} 号进程 {failed[0]!r}" for rank, failed in error.failures.items()]
        raise RuntimeError("；".join(reasons)) from error
