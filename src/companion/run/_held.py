"""加载器、采样器、数据集手里拿着什么：自带的随机数发生器，记着次序的列表和数组。"""

import json
import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SOURCES = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
_DEPTH, _WIDTH, _MOST = 8, 50, 2000  # 往里看几层，一处看几个，一共看几个
_LARGE = 2_000_000  # 元素比这还多的不抄


def reachable(roots: Iterable[Any], *, objects: bool) -> Iterator[Any]:
    """``roots`` 和它们的各层里装着的东西；``objects`` 说也看不看别的对象的属性。"""
    known, layer = dict[int, Any](), list(roots)
    for _ in range(_DEPTH):
        new = {id(thing): thing for thing in layer if id(thing) not in known}
        layer = list(islice(new.values(), max(0, _MOST - len(known))))
        known |= new
        yield from layer
        layer = [part for thing in layer for part in islice(_inside(thing, objects), _WIDTH)]


def sources(things: Iterable[Any]) -> list[Any]:
    """其中的随机数发生器，一个只算一次。"""
    return list({id(thing): thing for thing in things if isinstance(thing, _SOURCES)}.values())


def states(generators: Iterable[Any]) -> list[Any]:
    """各个发生器此刻的状态；普通的值，可以用 == 比较。"""
    return [_state(generator) for generator in generators]


def restore(generators: list[Any], saved: list[Any]) -> None:
    """什么也不返回：让各个发生器回到 ``states`` 记下的那一刻；个数变了就不动。"""
    if len(generators) != len(saved):
        return
    for generator, state in zip(generators, saved, strict=True):
        if isinstance(generator, torch.Generator):
            generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
        elif isinstance(generator, random.Random):
            generator.setstate((state[0], tuple(state[1]), state[2]))
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(json.loads(state))
        else:
            generator.bit_generator.state = json.loads(state)


class Contents:
    """几个列表、数组此刻的内容：以后看得出有没有就地改过。

    Args:
        things: 不是列表、数组的，空的，太大的，都不看。
        moved: 只看列表里原来的那些元素是不是换了先后，不抄元素。
    """

    def __init__(self, things: Iterable[Any], *, moved: bool = False) -> None:
        self._moved, left = moved, _LARGE
        self._kept = list[list[Any]]()  # 每一项：东西、它原来的内容
        for thing in things:
            if isinstance(thing, list | np.ndarray | Tensor) and 0 < _size(thing) <= left:
                self._kept.append([thing, self._copy(thing)])
                left -= _size(thing)

    def changed(self) -> bool:
        """从那时起，有没有就地改过。"""
        return any(self._differs(thing, before) for thing, before in self._kept)

    def release(self) -> None:
        """什么也不返回：除了这里再没有人拿着的，不替他留着。"""
        alone = [object()]
        count = sys.getrefcount(alone[0])
        self._kept = [kept for kept in self._kept if sys.getrefcount(kept[0]) > count]

    def _copy(self, thing: Any) -> Any:
        if isinstance(thing, list):
            return [id(part) for part in thing] if self._moved else list(thing)
        return thing.copy() if isinstance(thing, np.ndarray) else thing.detach().clone()

    def _differs(self, thing: Any, before: Any) -> bool:
        if self._moved:
            now = self._copy(thing)
            return bool(now != before and sorted(now) == sorted(before))
        if isinstance(thing, np.ndarray):
            return not np.array_equal(thing, before)
        if isinstance(thing, Tensor):
            return not torch.equal(thing, before)
        try:
            return bool(thing != before)
        except (TypeError, ValueError, RuntimeError):  # 换成了别的数组：比不出一个真假
            return True


def _inside(thing: Any, objects: bool) -> Iterator[Any]:
    """``thing`` 里一层的东西。"""
    if isinstance(thing, dict):
        yield from thing.values()
    elif isinstance(thing, list | tuple):
        yield from thing
    elif not objects or isinstance(thing, type | ModuleType | Tensor | np.ndarray):
        return
    elif isinstance(thing, FunctionType):
        for cell in thing.__closure__ or ():
            with suppress(ValueError):  # 还没有装东西
                yield cell.cell_contents
    elif isinstance(thing, MethodType | BuiltinMethodType):
        yield thing.__self__
    elif isinstance(thing, partial):
        yield from (thing.func, thing.args, thing.keywords)
    else:
        yield from getattr(thing, "__dict__", {}).values()


def _size(thing: Any) -> int:
    return len(thing) if isinstance(thing, list) else int(np.prod(thing.shape))


def _state(source: Any) -> Any:
    if isinstance(source, torch.Generator):
        return source.get_state().numpy().tobytes()
    if isinstance(source, random.Random):
        version, numbers, gauss = source.getstate()
        return [version, list(numbers), gauss]
    old = isinstance(source, np.random.RandomState)
    state: Any = source.get_state(legacy=False) if old else source.bit_generator.state
    return json.dumps(state, default=np.ndarray.tolist)
