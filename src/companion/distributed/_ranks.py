"""我是第几个进程，大家对一句话。没有初始化进程组时，就是只有自己一个的情形。"""

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed as dist

from companion._common import say as say_safely
from companion.errors import CompanionError


def is_distributed() -> bool:
    """进程组是否已经初始化；只有一个进程的组也算。"""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """本进程的编号，从 0 数；没有进程组时是 0。"""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """一共几个进程；没有进程组时是 1。"""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """是不是 0 号进程：只有它写文件、印进度。"""
    return rank() == 0


def barrier() -> None:
    """等全部进程都走到这里；只有一个进程时什么也不做。"""
    if world_size() > 1:
        dist.barrier()


def gather_objects(value: Any) -> list[Any]:
    """各进程的 ``value``，按编号排；每个进程都得到同一个列表。只用来传小东西。"""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def on_main(action: Callable[[], Any]) -> Any:
    """0 号进程做 ``action``，每个进程都得到同一个结果，或同一个 ``CompanionError``。"""
    result: Any = None
    problem: CompanionError | None = None
    if is_main():
        try:
            result = action()
        except CompanionError as error:
            problem = error
    result, problem = gather_objects((result, problem))[0]
    if problem is not None:
        raise problem
    return result


def say(text: str) -> None:
    """0 号进程印一行，别的不印；空串也不印。"""
    if text and is_main():
        say_safely(text)


def any_rank(flag: bool) -> bool:
    """有没有一个进程说了 ``True``；每个进程都得到同一个回答。"""
    if world_size() == 1:
        return flag
    answer = torch.tensor(int(flag))
    dist.all_reduce(answer, op=dist.ReduceOp.MAX)
    return bool(answer.item())
