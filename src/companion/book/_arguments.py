"""读者的函数收到的参数：叫什么名字，叫之前和叫之后各是什么样子，哪一件变了。"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from companion._common import same
from companion.book.exercises._common import Wrong


def name_arguments(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """参数连同读者起的名字，如 ``{"第 1 个参数 x ": …}``。"""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # 用 C++ 写的
        parameters = []
    named = [p.name for p in parameters if p.kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD]
    titles = [f"第 {i + 1} 个参数 {name} " for i, name in enumerate(named)]
    titles += [f"第 {i + 1} 个参数" for i in range(len(named), len(args))]
    return dict(zip(titles, args, strict=False)) | {f"参数 {k} ": v for k, v in kwargs.items()}


def photograph(arguments: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """参数此刻的样子：``{"第 1 个参数 x 里的数": (它的副本, 要改该怎么写)}``。"""
    facts = (fact for name, value in arguments.items() for fact in _facts(name, value))
    return {what: (value, instead) for what, value, instead in facts}


def _facts(name: str, value: Any, instead: str = "") -> Iterator[tuple[str, Any, str]]:
    """一个参数里不该变的事，逐件给出：什么，它的副本，要改该怎么写。"""
    if isinstance(value, nn.Module):
        back = "先记下 training，走之前用 train(记下的值) 拨回去"
        for where, module in value.named_modules():
            yield f"{name}{where and f'里 {where} '}的 training", module.training, back
        for key, tensor in (*value.named_parameters(), *value.named_buffers()):
            yield from _facts(f"{name}的 {key} ", tensor, "先 eval()，再放进 with torch.no_grad():")
    elif isinstance(value, Tensor):
        alone = instead or "先用 .detach().clone() 抄一份，在副本上做"  # 与求导断开
        yield f"{name}的 requires_grad", value.requires_grad, alone
        yield f"{name}的 .grad", None if value.grad is None else value.grad.clone(), alone
        instead = instead or "先用 .clone() 抄一份，在副本上做"
        yield f"{name}的形状", tuple(value.shape), instead
        if value.device.type != "meta":
            dense = value.detach() if value.layout == torch.strided else value.detach().to_dense()
            yield f"{name}里的数", dense.clone(), instead
    elif isinstance(value, np.ndarray):
        yield f"{name}里的数", value.copy(), "先用 .copy() 抄一份，在副本上做"
    elif isinstance(value, list | tuple | dict):
        instead = "先用 list(…) 或 dict(…) 抄一份，在副本上做"
        yield f"{name}的长度", len(value), instead
        items: Any = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _facts(f"{name}里的 [{key!r}] ", item, instead)
    elif isinstance(value, int | float | str):
        yield name, value, instead


def require_same_arguments(
    before: Mapping[str, tuple[Any, str]], after: Mapping[str, tuple[Any, str]]
) -> None:
    for what, (old, instead) in before.items():
        new = after[what][0] if what in after else None
        if type(old) is not type(new) or not _equal(old, new):
            short = not isinstance(old, Tensor | np.ndarray) and not isinstance(new, Tensor)
            change = f"：来时是 {old}，走时成了 {new}" if short else ""
            raise Wrong(f"你的函数改了{what.strip()}{change}。改法：{instead}。")


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor | np.ndarray):
        return old.shape == new.shape and old.dtype == new.dtype and same(old, new)
    return bool(old == new)
