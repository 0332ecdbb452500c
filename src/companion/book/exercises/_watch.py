"""看着读者的函数怎么算：用了哪些 torch 函数，造过几维的张量，走了几步。"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


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
