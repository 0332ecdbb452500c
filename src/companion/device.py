"""设备：全库只有这个文件写出加速器的名字，别处都拿 ``torch.device`` 用。"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableSequence
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from companion.errors import DataError

__all__ = ["device_name", "model_device", "pick_device", "synchronize", "to_device", "widest_float"]


def pick_device() -> torch.device:
    """这台机器上最快的设备：有加速器（GPU 等）就用它，没有就用 CPU。"""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def synchronize(device: torch.device) -> None:
    """等 ``device`` 把已经交给它的活干完；CPU 本来就是干完才返回，``meta`` 不干活，什么也不做。"""
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)


def device_name(device: torch.device) -> str:
    """设备的型号，如 ``"NVIDIA H200"``；后端说不出型号时是设备的类型，如 ``"cpu"``。"""
    if device.type == "cpu":
        return "cpu"
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return device.type if name is None else str(name(device))


def model_device(model: nn.Module) -> torch.device:
    """模型第一个参数所在的设备；没有参数看缓冲区，都没有就是 CPU。"""
    for tensors in (model.parameters(), model.buffers()):
        for tensor in tensors:
            return tensor.device
    return torch.device("cpu")


def to_device(batch: Any, device: torch.device) -> Any:
    """同样结构的一批数据，里面的张量都搬到 ``device`` 上；已经在那里的张量原样返回。

    列表、元组、集合、字典和别的 ``Mapping``、dataclass、attrs 类逐层往里找，类和其余内容不变；几处
    共用的仍共用。自己有 ``.to`` 方法的对象就调用它；其余（如文件名、NumPy 数组）原样留下。

    Raises:
        DataError: 里面有这样的一个类，装着要搬的东西，却不能照样再造一个。
    """
    if isinstance(batch, Tensor):
        return batch if batch.device == device else batch.to(device, non_blocking=True)
    kind = type(batch)
    if kind is list or kind is tuple or kind is dict:  # 默认的 collate 给的，最常见
        for value in batch.values() if kind is dict else batch:
            if not isinstance(value, Tensor) or value.device != device:
                break
        else:
            return kind(batch)
    return _moved(batch, device, {})


def widest_float(device: torch.device) -> torch.dtype:
    """``device`` 上最宽的浮点 dtype，用来累加：``float64``，苹果芯片的 mps 只有 ``float32``。"""
    return torch.float32 if device.type == "mps" else torch.float64


def _moved(value: Any, device: torch.device, seen: dict[int, Any]) -> Any:
    """搬好的 ``value``；``seen`` 是搬过的，几处共用的只搬一次。"""

    if isinstance(value, Tensor) and value.device == device:
        return value
    if id(value) not in seen:
        seen[id(value)] = _rebuilt(value, device, lambda inner: _moved(inner, device, seen))
    return seen[id(value)]


def _rebuilt(value: Any, device: torch.device, move: Callable[[Any], Any]) -> Any:
    if type(value) is list:
        return [move(inner) for inner in value]
    if type(value) is dict:
        return {key: move(inner) for key, inner in value.items()}
    if callable(getattr(value, "to", None)) and not isinstance(value, type):
        return _to(value, device)
    if isinstance(value, tuple):
        items = [move(inner) for inner in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same and not hasattr(value, "__dict__") else _tuple(value, items, move)
    if isinstance(value, set | frozenset):
        return type(value)(map(move, value))
    known = (Mapping, MutableSequence, SimpleNamespace)
    return _copied(value, move) if isinstance(value, known) or _field_names(value) else value


def _to(value: Any, device: torch.device) -> Any:
    try:
        moved = value.to(device, non_blocking=True)
    except TypeError:  # 自己写的 to，常常不认得 non_blocking
        moved = value.to(device)
    return value if moved is None else moved  # 没有返回值的，是就地搬了自己


def _tuple(value: tuple[Any, ...], items: list[Any], move: Callable[[Any], Any]) -> Any:
    """与 ``value`` 同类的元组；不经过它的构造函数，参数多半不是一串值。"""
    if hasattr(value, "n_sequence_fields"):  # torch.max(x, dim=0) 等返回的，只能这样造
        return type(value)(items)
    new = tuple.__new__(type(value), items)
    for name, inner in getattr(value, "__dict__", {}).items():
        setattr(new, name, move(inner))
    return new


def _copied(value: Any, move: Callable[[Any], Any]) -> Any:
    """浅复制一份，再把里面的逐个换成搬好的；类和别的属性都不变，也不经过构造函数。"""
    try:
        new = copy.copy(value)
    except Exception:  # 有的类不许复制
        new = value
    names = [*getattr(value, "__dict__", {}), *_field_names(value)]
    if isinstance(value, Mapping) and (new is value or not (names or isinstance(value, dict))):
        return type(value)({key: move(inner) for key, inner in value.items()})  # type: ignore[call-arg]
    if new is value:
        raise DataError(
            f"一批数据里的 {type(value).__name__} 应能用 copy.copy() 复制，好换上搬到设备上的张量，"
            "实际不能。请给它写 to(device) 方法，或换成字典。"
        )
    for name in names:
        if hasattr(value, name):
            object.__setattr__(new, name, move(getattr(value, name)))
    if isinstance(value, dict):
        for key, inner in dict.items(value):
            dict.__setitem__(new, key, move(inner))
    elif isinstance(value, list | deque):
        for i, inner in enumerate(value):
            new[i] = move(inner)
    return new


def _field_names(value: Any) -> list[str]:
    """dataclass、attrs 类的各个字段；别的对象没有。"""
    attrs: Iterable[Any] = getattr(type(value), "__attrs_attrs__", ())
    plain = fields(value) if is_dataclass(value) and not isinstance(value, type) else ()
    return [field.name for field in (*plain, *attrs)]
