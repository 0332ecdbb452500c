"""把状态换成普通的值：只剩张量、数、字符串和它们的容器，``weights_only=True`` 才读得回来。"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from companion._common import unlike_numbers
from companion.errors import ArgumentError

_NUMBERS: tuple[type[Any], ...] = (bool, int, float, complex, bytes)  # bool 在前：它是 int 的子类
_KEYS = (str, int, float, bool, type(None), tuple)
_BIG = 1 << 60  # 更大的整数做键，能凑出成片相同的散列值，字典就慢得不动了
SCALARS = (str, int, float, bool, complex, bytes, type(None))
_SHELL = re.compile(r"torch\.(u?int[1-7]|bits.*)$")  # 只有名字的 dtype，torch.save 也不认得
SPARE = 4096  # 展开（expand）的张量比它的存储多出这么多字节，就照实写成一块


def plain(value: Any, where: str = "state") -> Any:
    """与 ``value`` 内容相同的普通值：dict、list、tuple、数、字符串、bytes、None 和张量。

    ``OrderedDict`` 等成了 dict，具名元组成了 tuple，NumPy 的标量和数组成了 Python 的数和张量，
    ``Parameter`` 成了不带梯度的张量。张量不复制，除非它只是一大块存储里的一小片（不然整块都会
    写进文件）；绑在一起的仍绑在一起。

    Args:
        value: 要存的东西，通常是几个 ``state_dict()`` 的字典。
        where: 消息里怎么称呼它。

    Raises:
        ArgumentError: 有别的对象；消息里是它的位置，如 ``state.scheduler.foo``。
    """
    return _plain(value, where, {})


def is_simple_key(key: Any) -> bool:
    """``key`` 可以做键：数、字符串、只有它们的短元组；算散列值要不了多久。"""
    items = key if type(key) is tuple else (key,)
    small = all(abs(item) <= _BIG for item in items if type(item) is int)
    return small and len(items) <= 8 and all(type(item) in _KEYS[:-1] for item in items)


def is_shape(sizes: Any) -> bool:
    """``sizes`` 是不超过 64 个 0 或更大的整数。"""
    return len(sizes) <= 64 and all(type(n) is int and 0 <= n < 1 << 60 for n in sizes)


def _plain(value: Any, where: str, seen: dict[Any, Any]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()  # 先换：np.float64 也是 float 的子类
    if type(value) in SCALARS:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    for kind in _NUMBERS:
        if isinstance(value, kind):
            return kind(value)
    if type(value) in (Tensor, nn.Parameter):
        return _plain_tensor(value, where, seen)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return _plain_array(value)
    if isinstance(value, Mapping):
        return {
            _plain_key(key, where): _plain(item, _inside(where, key), seen)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{where}[{i}]", seen) for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise _not_plain(value, where)


def _plain_tensor(value: Tensor, where: str, seen: dict[Any, Any]) -> Tensor:
    tensor = value.detach()
    problem = unlike_numbers(value, sparse=True)
    if not problem and (tensor.is_quantized or _SHELL.match(str(tensor.dtype))):
        problem = f"是 {tensor.dtype}，请换成普通的 dtype（量化的先 dequantize()）"
    if problem:
        raise ArgumentError(f"{where} 应是有数值的普通张量，实际{problem}。")
    if tensor.layout != torch.strided:
        return tensor
    storage = tensor.untyped_storage()
    start = storage.data_ptr()
    wanted = tensor.numel() * tensor.element_size()
    covers = storage.nbytes() <= wanted <= storage.nbytes() + SPARE
    if covers and seen.setdefault(start, tensor.dtype) == tensor.dtype:
        return tensor
    view = (start, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
    if view not in seen:  # 同一片被引用两次，也只复制一次
        seen[view] = tensor.to("cpu", copy=True)
    copy: Tensor = seen[view]
    return copy


def _plain_array(value: NDArray[Any]) -> Tensor:
    return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))  # astype 总是复制


def _plain_key(key: Any, where: str) -> Any:
    if type(key) is str:
        return key
    if isinstance(key, np.generic):
        key = key.item()
    if not isinstance(key, _KEYS):
        raise _not_plain(key, f"{where} 的键")
    plain_key = _plain(key, f"{where} 的键", {})
    if not is_simple_key(plain_key):
        raise ArgumentError(
            f"{where} 的键应是数、字符串，或至多 8 个它们的元组，实际是 {plain_key!r:.60}。"
            "请换成字符串。"
        )
    return plain_key


def _inside(where: str, key: Any) -> str:
    return f"{where}.{key}" if isinstance(key, str) else f"{where}[{key!r}]"


def _not_plain(value: Any, where: str) -> ArgumentError:
    kind = type(value)
    return ArgumentError(
        f"{where} 应是张量、数、字符串，或它们的列表、元组、字典，实际是 "
        f"{kind.__module__}.{kind.__qualname__}。请存它的 state_dict()，或先换成这些类型。"
    )
