"""数据用的随机数：由几个整数定种，借用全局的发生器之后放回原处。"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from companion.repro import RandomSource, generator_state, restore_generator_state

_MASK = 2**64 - 1


def mix(*keys: int) -> int:
    """几个整数混成的一个种子，``0`` 到 ``2**64 - 1``；换一个数、换个次序，结果都大不相同。

    出处：splitmix64（Steele、Lea、Flood 2014），每个数走一遍。
    """
    state = 0
    for key in keys:
        state = (state + key + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def fold(seed: int) -> int:
    """64 位放得下的整数不变，放不下的混成一个；``mix`` 只看低 64 位，``2**70`` 会与 0 相同。"""
    return seed if -(2**63) <= seed < 2**63 else mix(seed, fold(seed >> 64))


def generator(*keys: int) -> torch.Generator:
    """由几个整数定下的、CPU 上的新发生器；与全局的那个无关。"""
    return torch.Generator().manual_seed(mix(*keys))


@contextmanager
def global_random_kept() -> Iterator[None]:
    """离开时，三个全局发生器（CPU 上的）的状态与进来时相同。"""
    ours, numpys, pythons = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(ours)
        np.random.set_state(numpys)
        random.setstate(pythons)


def seed_global(seed: int) -> None:
    """什么也不返回：给三个全局发生器（CPU 上的）定种。"""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed 还要管加速器，慢几十倍
    random.seed(seed)
    np.random.seed(seed % 2**32)  # NumPy 只收 32 位


@contextmanager
def seeded(owner: object, *keys: int) -> Iterator[None]:
    """里面，全局的和 ``owner`` 自带的发生器都由 ``keys`` 定种；离开时都恢复原状。"""
    own = list(_generators(owner, set()))
    before = [generator_state(source) for source in own]
    with global_random_kept():
        seed_global(mix(*keys))
        for k, source in enumerate(own):
            _seed(source, mix(*keys, k))
        try:
            yield
        finally:
            for source, state in zip(own, before, strict=True):
                restore_generator_state(source, state)


def _generators(owner: object, seen: set[int]) -> Iterator[RandomSource]:
    """``owner`` 和它里面的采样器、列表、字典带着的发生器，一个只给一次。"""
    for value in getattr(owner, "__dict__", {}).values():
        for part in value.values() if isinstance(value, dict) else _items(value):
            if id(part) in seen:
                continue
            seen.add(id(part))
            if isinstance(part, RandomSource):
                yield part
            elif isinstance(part, Sampler):
                yield from _generators(part, seen)


def _items(value: Any) -> Any:
    """短的列表和元组给出里面的各项；长的多半是数据，不翻。"""
    return value if isinstance(value, list | tuple) and len(value) < 100 else (value,)


def _seed(source: RandomSource, seed: int) -> None:
    if isinstance(source, torch.Generator):
        source.manual_seed(seed)
    elif isinstance(source, random.Random | np.random.RandomState):
        source.seed(seed % 2**32)
    else:
        kind: Any = type(source.bit_generator)
        source.bit_generator.state = kind(seed).state
