"""用户给的 ``sampler`` 每一轮抽出哪些编号：只由种子和轮次决定，抽的时候不动别人的随机数。"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from companion.data._random import seeded
from companion.errors import ArgumentError, DataError


def count(sampler: Any) -> int:
    """``sampler`` 一轮给出几个编号；不能当 ``sampler`` 的报错。"""
    if isinstance(sampler, type):
        raise ArgumentError(
            f"sampler 应是对象，实际是类 {sampler.__name__}。请加括号：{sampler.__name__}(…)。"
        )
    if getattr(sampler, "num_replicas", 1) != 1:
        raise ArgumentError(
            f"sampler 应给出全部进程合起来的编号，实际的 {type(sampler).__name__} 只给其中一个"
            "进程的。请去掉它：torchrun 之下 loaders() 自己把每一批分给各个进程。"
        )
    try:
        size = len(sampler)
    except TypeError:
        size = None
    walks = hasattr(sampler, "__iter__") or hasattr(sampler, "__getitem__")  # 不真去遍历：那就抽了
    if size is None or not walks:
        raise ArgumentError(
            "sampler 应有 len()，并且每轮能从头遍历，实际的 "
            f"{type(sampler).__name__} 不行。请给 torch 的 Sampler（如 RandomSampler(data)），"
            "或一列编号。"
        )
    return size


def drawn(sampler: Any, n: int, most: int, seed: int, epoch: int) -> Tensor:
    """``sampler`` 第 ``epoch`` 轮抽出的 ``most`` 个编号，``int64``，在 CPU 上。"""
    if hasattr(sampler, "tolist"):
        sampler = sampler.tolist()
    with seeded(sampler, seed, epoch, 2):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        try:
            picked = list(islice(sampler, most + 1))  # 没有尽头的，多抽一个就停
        except Exception as error:  # 多半是 torch 的，如权重里有 nan
            name = type(sampler).__name__
            raise ArgumentError(
                f"sampler 应能抽出编号，实际的 {name} 出错：{error}。请检查给它的权重和编号。"
            ) from error
    if len(picked) != most:
        more = "更多" if len(picked) > most else f" {len(picked)} 个"
        raise DataError(
            f"sampler 一轮给出的编号应与 len(sampler) 一样多，是 {most} 个，实际有{more}。"
            "请改它的 __len__ 或 __iter__。"
        )
    return indices(picked, 0, n, "sampler")


def indices(picked: Iterable[Any], low: int, high: int, owner: str) -> Tensor:
    """一列编号成为 ``int64`` 的张量，形状 ``(k,)``，在 CPU 上；每个都在 ``[low, high)`` 里。

    Raises:
        ArgumentError: 有一个不是整数。
        DataError: 有一个超出范围。
    """
    numbers = picked.tolist() if hasattr(picked, "tolist") else list(picked)
    if set(map(type, numbers)) - {int}:
        numbers = [_number(value, owner) for value in numbers]
    for value in (min(numbers), max(numbers)) if numbers else ():
        if not low <= value < high:
            raise DataError(
                f"{owner} 的编号应在 {low} 到 {high - 1} 之间（数据有 {high} 个样本），实际有 "
                f"{value}。请检查它是不是照这个数据集做的。"
            )
    return torch.tensor(numbers, dtype=torch.int64)


def _number(value: Any, owner: str) -> int:
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, bool) or not isinstance(plain, int):
        shown = repr(plain) if isinstance(plain, int | float | str) else type(value).__name__
        advice = "请逐个给出整数。"
        if isinstance(plain, bool):
            advice = "布尔的掩码请先变成编号：mask.nonzero().flatten().tolist()。"
        elif isinstance(plain, Sequence) and not isinstance(plain, str):
            advice = "一批一批的（BatchSampler）不行，请给它里面的 sampler；批由 batch_size 来切。"
        raise ArgumentError(f"{owner} 应逐个给出整数编号，实际给出 {shown:.100}。{advice}")
    return plain


def check_repeatable(one: Tensor, two: Tensor, sampler: Any) -> None:
    """同样定种的两次抽签应当一样，否则接着练就对不上了。"""
    if not torch.equal(one, two):
        raise ArgumentError(
            "sampler 的次序应只由随机数和 set_epoch 的轮次决定，实际的 "
            f"{type(sampler).__name__} 定了同样的种，两次还是不同。请让它用全局的（CPU 上的）随机数"
            "，或 self.generator，别用计数器、系统时间。"
        )
