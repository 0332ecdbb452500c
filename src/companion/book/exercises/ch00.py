"""第 0 章《开始之前》的检查器。每个都用几组不同的输入试，只试一组会放过碰巧对的答案。"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from companion.book.exercises._common import (
    close,
    require_integers,
    require_number,
    require_tensor,
)
from companion.book.exercises._watch import Watch

Answer = Callable[..., Any]


def first_tensor(answer: Any) -> str | None:
    if isinstance(answer, list):
        return "这是 Python 的列表，还不是张量：交给 torch.tensor 转一下。"
    require_tensor(answer, (3,))
    if answer.is_floating_point():
        return f"要整数，你的 dtype 是 {answer.dtype}。哪里写了小数点？"
    require_integers(answer, (3,))
    return None if answer.tolist() == [3, 1, 4] else f"里面的数不对：{answer.tolist()}。"


def count_parameters(answer: Answer) -> str | None:
    for sizes in ((64, 32, 10), (5, 1), (64, 64, 64, 10), (2, 3, 4), (7, 2, 5, 5, 3, 6)):
        layers = list(pairwise(sizes))
        got, weights = answer(sizes), sum(i * o for i, o in layers)
        require_number(got, int)
        if got == weights + sum(o for _, o in layers):
            continue
        if got == weights:
            return f"宽度 {sizes} 上少了 {sum(o for _, o in layers)} 个：只数了乘数。"
        if got == weights + sum(i for i, _ in layers):
            return f"宽度 {sizes} 上不对：加数是每个输出一个，不是每个输入一个。"
        if len(sizes) > 3:
            return f"短的算对了，宽度 {sizes} 得到 {got}，不对：每一层都要数到，一样的也各算各的。"
        return f"宽度 {sizes} 上得到 {got}，不对：先写出每一层有几个乘数、几个加数。"
    return None


def is_at_least(answer: Answer) -> str | None:
    cases = [
        ("2.15.0", "2.9.0", True, "逐字比了？15 比 9 大。"),
        ("2.9.0", "2.15.0", False, "9 比 15 小。"),
        ("2.11.0", "2.11.0", True, "相等也算“不早于”。"),
        ("2.11.1", "2.11.3", False, "第三段也要比。"),
        ("2.11.10", "2.11.9", True, "第三段也要当整数比：10 比 9 大。"),
        ("3.0.0", "2.15.0", True, "第一段大，后面就不用看了。"),
        ("1.15.3", "2.0.0", False, "第一段小，后面就不用看了。"),
        ("10.0.0", "9.15.0", True, "第一段也要当整数比：10 比 9 大。"),
        ("2.15.0+cu132", "2.15.0", True, "尾巴不参与比较。"),
        ("2.15.0+cu132", "2.15.1", False, "尾巴不参与比较。"),
        ("2.15.0+cpu", "2.15.0", True, "尾巴不参与比较，也不总是 cu132。"),
    ]
    for version, minimum, truth, why in cases:
        got = answer(version, minimum)
        require_number(got, bool)
        if got != truth:
            return f"{version!r} 和 {minimum!r} 上答了 {got}。{why}"
    return None


def slope(answer: Answer) -> str | None:
    for value in (2.0, -1.0, 0.5, 0.0):
        with Watch() as seen:
            got = answer(value)
        truth = 3 * value**2
        if isinstance(got, torch.Tensor):
            return "你返回的是张量，要 Python 的数：取 .item()。"
        require_number(got, float)
        if close(got, value**3) and not close(got, truth):
            return f"在 {value} 处得到 {got}：这是三次方本身，不是斜率。"
        if close(got, 2 * value) and not close(got, truth):
            return f"在 {value} 处得到 {got}：这是 x² 的斜率，题目是 x³。"
        if abs(got - truth) > 1e-4:
            return f"在 {value} 处得到 {got}，不对：求导之后看 .grad。"
        if not seen.differentiated:
            return "数都对，可是没有用自动求导：造一个 requires_grad=True 的张量，再 backward()。"
    return None
