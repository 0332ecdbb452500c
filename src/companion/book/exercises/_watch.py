"""看着读者的函数怎么算：用了哪些 torch 函数，造过几维的张量，走了几步，停不停得下来。"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from companion.book.exercises._common import Wrong


class Watch(TorchFunctionMode):
    """``with Watch() as seen:`` 里面用到的 torch 函数：名字、次数，出现过的张量的形状。"""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.shapes: set[tuple[int, ...]] = set()

    @property
    def ndim(self) -> int:
        """张量最多有几维。"""
        return max(map(len, self.shapes), default=0)

    @property
    def left_torch(self) -> bool:
        """数据离开过 torch，后面做了什么就看不见了。"""
        return not {"numpy", "__array__", "tolist", "item"}.isdisjoint(self.names)

    @property
    def differentiated(self) -> bool:
        """用到了自动求导：反向的或前向的。"""
        return not {"backward", "grad", "_make_dual"}.isdisjoint(self.names)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not torch.device:  # 只是个名字
            self.names.append(getattr(func, "__name__", ""))
        parts = result if isinstance(result, tuple | list) else (result,)
        self.shapes |= {tuple(part.shape) for part in parts if isinstance(part, Tensor)}
        return result


def steps(answer: Callable[..., Any], *args: Any) -> int:
    """跑一遍要几步：执行的 Python 行数加 torch 调用的次数；随行数增长，就是循环。"""
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        own = frame.f_globals.get("__name__", "").startswith("companion.")
        lines += event == "line" and not own
        return trace

    before = sys.gettrace()
    with Watch() as seen:
        sys.settrace(trace)
        try:
            answer(*args)
        finally:
            sys.settrace(before)
    return lines + len(seen.names)


class TooLong(Exception):
    """走的步数、叫的次数远超所需：循环停不下来。"""


class Counted:
    """和 `f` 一样叫；叫到 `most` 次以上，抛 `TooLong`。"""

    def __init__(self, f: Callable[..., Any], most: int) -> None:
        self.f, self.left = f, most

    def __call__(self, *args: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise TooLong
        return self.f(*args)


def in_time(answer: Callable[..., Any], *args: Any, lines: int | None = None) -> Any:
    """读者的函数的结果；`Counted` 的函数叫得太多，或执行了 `lines` 行还没走完，就判错。"""
    before = sys.gettrace()
    if lines is not None:
        sys.settrace(_counting(lines))
    try:
        return answer(*args)
    except Wrong as wrong:
        if isinstance(wrong.__cause__, TooLong):
            raise Wrong("循环停不下来：每转一圈，总要有一样东西在变，最后让它不再转。") from None
        raise
    finally:
        sys.settrace(before)


def _counting(lines: int) -> Callable[[FrameType, str, object], Any]:
    left = lines

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if frame.f_globals.get("__name__", "").startswith("companion."):
            return None
        left -= event == "line"
        if left < 0:
            raise TooLong
        return trace

    return trace
