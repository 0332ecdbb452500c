"""各章检查器共用的判断。"""

import math
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Checker = TypeVar("Checker", bound=Callable[..., Any])


class Wrong(Exception):
    """检查器用它拒绝一个答案：消息就是 ✗ 后面的那句话。"""


@dataclass(frozen=True)
class Rules:
    """一题对护栏放开了什么；没有声明的都按最严的算。"""

    mutates: tuple[int, ...] = ()  # 读者的函数可以改的参数，从 0 数
    may_be_nan: bool = False


def rules_of(checker: Callable[..., Any]) -> Rules:
    """检查器声明的规矩。"""
    rules = getattr(checker, "rules", Rules())
    assert isinstance(rules, Rules)
    return rules


def mutates(*positions: int) -> Callable[[Checker], Checker]:
    """写在检查器上：读者的函数可以改这几个参数，从 0 数，如 ``@mutates(0, 3)``。"""
    return lambda checker: _declare(checker, mutates=positions)


def may_be_nan(checker: Checker) -> Checker:
    """写在检查器上：结果里可以有 NaN。"""
    return _declare(checker, may_be_nan=True)


def _declare(checker: Checker, **changes: Any) -> Checker:
    vars(checker)["rules"] = replace(rules_of(checker), **changes)
    return checker


def require_tensor(value: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    """不是这个形状的张量，就判错；给了 `dtype`，还要是这个 dtype。"""
    if not isinstance(value, Tensor):
        raise Wrong(f"应返回张量，你返回的是 {type(value).__name__}。")
    if value.shape != shape:
        raise Wrong(f"形状应为 {shape}，你的是 {tuple(value.shape)}。")
    if dtype is not None and value.dtype != dtype:
        raise Wrong(f"结果的 dtype 应为 {_short(dtype)}，实际是 {_short(value.dtype)}。")


def require_integers(value: Any, shape: tuple[int, ...]) -> None:
    """不是这个形状的整数张量，就判错；8 位到 64 位都行。"""
    require_tensor(value, shape)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise Wrong(f"应是整数，你的 dtype 是 {_short(value.dtype)}。")


def require_number(value: Any, kind: type[int] | type[float] | type[bool]) -> None:
    """不是 Python 的 int、float 或 bool，就判错；True 不算整数。"""
    if type(value) is not kind:
        wanted = {int: "一个整数", float: "一个 float", bool: " True 或 False"}[kind]
        hint = "张量用 .item() 取成数。" if isinstance(value, Tensor) else ""
        raise Wrong(f"要{wanted}，你给的是 {type(value).__name__}。{hint}")


def require_numbers(answer: Any, count: str, what: str) -> tuple[float, ...]:
    """读者交的几个数；``count`` 是汉字写的个数，``what`` 说依次是哪几个。不是就判错。"""
    try:
        values = tuple(float(_not_text(value)) for value in in_sequence(answer))
    except (TypeError, ValueError):
        raise Wrong(f"要{count}个数：{what}。") from None
    if len(values) != "零一两三四五六七八九".index(count):
        raise Wrong(f"要{count}个数，你给了 {len(values)} 个。")
    return values


def in_sequence(answer: Any) -> Iterator[Any]:
    """逐项给出；文字、字典、集合不是有先后的一串，抛 TypeError。"""
    if isinstance(answer, str | bytes | Mapping | Set):
        raise TypeError
    return iter(answer)


def _not_text(value: Any) -> Any:
    if isinstance(value, str | bytes):
        raise TypeError
    return value


def close(value: float, truth: float) -> bool:
    """两个数差在 float32 的舍入之内。"""
    return math.isclose(value, truth, rel_tol=1e-5, abs_tol=1e-7)


def same_storage(a: Tensor, b: Tensor) -> bool:
    """两个张量看着同一块内存吗，起点可以不同。"""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def error_from(answer: Callable[..., Any], *args: Any) -> BaseException | None:
    """读者的函数这样叫时抛出的异常；没有抛就是 None。"""
    try:
        answer(*args)
    except Wrong as wrong:
        if wrong.__cause__ is None:  # 不是读者抛的，是护栏拦下的
            raise
        return wrong.__cause__
    return None


def require_error(what: str, kind: type[Exception], answer: Callable[..., Any], *args: Any) -> None:
    """读者的函数这样叫时不抛 `kind`，就判错；`what` 说这是什么样的输入。"""
    error = error_from(answer, *args)
    if error is None:
        raise Wrong(f"{what}，应当抛 {kind.__name__}，你的函数却算出了数。")
    if not isinstance(error, kind):
        raise Wrong(f"{what}时应抛 {kind.__name__}，你抛的是 {type(error).__name__}。")


def first_difference(result: Tensor, truth: Tensor) -> tuple[int, ...]:
    """两个同形状的张量，第一处不同的下标。"""
    return tuple((result != truth).nonzero()[0].tolist())


def numbered(*shape: int) -> Tensor:
    """每一格的数都是自己的编号，从 1 数，各不相同。"""
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
