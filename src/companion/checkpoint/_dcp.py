"""张量的分片读写，建在 torch 的 DCP 上：每个进程一个文件，``.metadata`` 记着哪一片在哪里。

``.metadata`` 是 pickle，能藏着代码；这里读它时只认得 DCP 自己的几个类，别的一概拒绝。
DCP 载入要半秒，所以在用到它的函数里才导入。
"""

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor, nn

from companion.device import model_device
from companion.errors import CheckpointError

_PLACE = "companion.sharded"  # 切了片的张量拿走之后，原处是 {_PLACE: 名字}
_METADATA = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    *(("torch", "Size"), ("torch.serialization", "_get_layout")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    *((_METADATA, name) for name in ("Metadata", "MetadataIndex", "StorageMeta")),
    *((_METADATA, name) for name in ("TensorStorageMetadata", "TensorProperties")),
    *((_METADATA, name) for name in ("ChunkStorageMetadata", "_MEM_FORMAT_ENCODING")),
}


def write_tensors(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """什么也不返回：各进程把自己的那些片写进 ``directory``；每个进程都要调用。"""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    with _calling_dcp():
        save(dict(tensors), storage_writer=FileSystemWriter(directory))


def read_shapes(directory: Path) -> dict[str, Tensor]:
    """里面有哪些张量：名字到形状、dtype 相同的 ``meta`` 张量，不占内存。

    Raises:
        CheckpointError: ``.metadata`` 里有 DCP 的几个类之外的东西；什么也没有执行。
    """
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
        for name, entry in _read_metadata(directory).state_dict_metadata.items()
    }


def read_tensors(directory: Path, targets: Mapping[str, Tensor]) -> None:
    """什么也不返回：按名字把值读进 ``targets``；切了片的只读自己的那一片。每个进程都要调用。"""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader: Any = FileSystemReader(directory)
    reader.read_metadata = lambda *_, **__: _read_metadata(directory)  # 它自己的不设防
    with _calling_dcp():
        load(dict(targets), storage_reader=reader)


def empty_shard(saved: Tensor, model: nn.Module) -> Tensor:
    """装得下 ``saved`` 的空张量；模型切了片，它就照同样的切法，否则是普通的张量。"""
    from torch.distributed.tensor import DTensor, empty

    for parameter in model.parameters():
        if isinstance(parameter, DTensor):
            how: Any = {"device_mesh": parameter.device_mesh, "placements": parameter.placements}
            return empty(saved.shape, dtype=saved.dtype, **how)
    return torch.empty_like(saved, device=model_device(model))


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


def _read_metadata(directory: Path) -> Any:
    with (directory / ".metadata").open("rb") as file:
        return _Unpickler(file).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "pathlib" and name in ("PosixPath", "WindowsPath"):
            return PurePath  # 别的系统上存的，也读得了
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise CheckpointError(
            f"分片存档的 .metadata 里应只有 DCP 的几个类，实际有 {module}.{name}，"
            "已拒绝加载，什么也没有执行。只用信得过的存档。"
        )


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
