"""人交给 Run 的东西存得了存不了；存不了的，说该怎样给。"""

import random
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from numpy.random import Generator, RandomState

from companion.errors import ArgumentError

_OPTIONS = ("resume", "keep", "best", "mode", "save_every", "config")  # Run 自己的参数


def check_stateful(name: str, part: Any) -> None:
    """``part`` 能存取状态就什么也不做，否则抛出 ``ArgumentError``。"""
    if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
        raise ArgumentError(
            f"交给 Run 的 {name} 应有 state_dict() 和 load_state_dict()，实际的 "
            f"{type(part).__name__} 没有。{_how_to_give(name, part)}"
        )


def _how_to_give(name: str, part: Any) -> str:
    """没有 ``state_dict()`` 的，该怎样交给 Run。"""
    if isinstance(part, torch.Generator | random.Random | Generator | RandomState):
        return "请包成有这两个方法的对象；或用 torch、random、np.random 全局的，它们 Run 自己会存。"
    inner = dict(enumerate(part)) if isinstance(part, list | tuple) else part
    if isinstance(inner, Mapping) and any(hasattr(p, "state_dict") for p in inner.values()):
        keys = [key if isinstance(key, str) else f"{name}_{key}" for key in inner]
        return f"请各给一个名字：Run(…, {', '.join(f'{key}=…' for key in keys)})。"
    close = get_close_matches(name, _OPTIONS, 1, 0.8)
    return (f"是不是想写 {close[0]}=？" if close else "") + "普通的数写进 config=。"
