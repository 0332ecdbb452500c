"""本章检查器共用的两件事：不许用现成的；换成 float64 再算一遍，数和斜率都要准。"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from companion.book.exercises._common import Wrong, require_tensor
from companion.book.exercises._watch import Watch

Answer = Callable[..., Any]
CUT = "不要 .detach()、.item()、.data，不要关记账"


class Asked(Watch):
    """和 `Watch` 一样，还记着半路出错的那一个函数。"""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.asked.append(getattr(func, "__name__", ""))
        return super().__torch_function__(func, types, args, kwargs)

    def used(self, *words: str) -> bool:
        """用过名字里有这些词的函数吗。"""
        return any(word in name for name in self.asked for word in words)


@contextlib.contextmanager
def by_hand(text: str, *words: str) -> Iterator[Asked]:
    """里面用了名字带 `words` 的 torch 函数，就判错，说 `text`；它自己先出了错也一样。"""
    seen = Asked()
    try:
        with seen:
            yield seen
    finally:
        if seen.used(*words):
            raise Wrong(text)


def require_exact(
    answer: Answer, truth: Callable[..., Any], leaves: Mapping[str, Tensor], *rest: Any
) -> None:
    """float64 的输入：dtype 不变，位数不在半路丢掉；`leaves`（排在最前）上的斜率也对。"""
    own, true = _doubled(leaves), _doubled(leaves)
    given = [_double(value) for value in rest]
    outs = _parts(called(answer, *own.values(), *given))
    right = _parts(truth(*true.values(), *given))
    for out, value in zip(outs, right, strict=True):
        require_tensor(out, tuple(value.shape))
        if out.dtype != torch.float64:
            short = str(out.dtype).removeprefix("torch.")
            raise Wrong(f"输入是 float64 时，结果的 dtype 应为 float64，实际是 {short}：别写死。")
        if not torch.allclose(out, value, rtol=1e-4, atol=1e-6):
            raise Wrong("输入是 float32 时对，是 float64 时不对：dtype 跟着输入走。")
        if not torch.allclose(out, value, rtol=1e-12, atol=1e-12):
            raise Wrong("输入是 float64 时只准到第七位：半路转成过 float32，dtype 跟着输入走。")
    _require_slopes(outs, right, own, true)


def _doubled(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _double(t.detach()).requires_grad_() for name, t in leaves.items()}


def _double(value: Any) -> Any:
    """除以 3，float32 就装不下原样。"""
    return value.double() / 3 if isinstance(value, Tensor) and value.is_floating_point() else value


def _parts(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def called(answer: Answer, *given: Any) -> Any:
    """输入要求斜率时叫读者的函数；为此走不通的，用中文说。"""
    try:
        return answer(*given)
    except Wrong as wrong:
        if "requires grad" in str(wrong.__cause__):
            text = "输入要求斜率时走不通：留在张量里算，别转成 NumPy 或 Python 的数。"
            raise Wrong(text) from wrong
        raise


def _require_slopes(
    outs: list[Any], right: list[Tensor], own: dict[str, Tensor], true: dict[str, Tensor]
) -> None:
    got, expected = _slopes(outs, own), _slopes(right, true)
    for name, g, truth in zip(own, got, expected, strict=True):
        if g is None:
            raise Wrong(f"数对了，可是和 {name} 断开了，斜率传不回去：{CUT}。")
        if not torch.allclose(g, truth, rtol=1e-9, atol=1e-10):
            raise Wrong(f"数对了，{name} 的斜率不对：半路有一截断开了，{CUT}。")


def _slopes(outs: list[Any], leaves: dict[str, Tensor]) -> list[Any]:
    """各个结果乘上一串不同的数加起来，对各个输入的斜率；断开的是 None。"""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for out in outs:
        total = total + (out * torch.randn(out.shape, generator=generator).double()).sum()
    if not total.requires_grad:
        return [None] * len(leaves)
    return list(torch.autograd.grad(total, list(leaves.values()), allow_unused=True))
