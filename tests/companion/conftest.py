"""companion 测试共用的裁判。"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

READING = {"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"}


class _Reads(TorchFunctionMode):
    """数一数有几次把张量的数值读回 Python；在 GPU 上，每读一次都要停下来等。"""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") in READING
        return func(*args, **(kwargs or {}))


@pytest.fixture
def count_reads() -> Callable[[Callable[[], Any]], int]:
    """``count_reads(fn)``：调用 ``fn()`` 时读了几次数值。"""

    def count(fn: Callable[[], Any]) -> int:
        with _Reads() as reads:
            fn()
        return reads.count

    one = torch.ones(())
    for read in (one.item, lambda: float(one), lambda: bool(one == 1), lambda: range(one.int())):
        assert count(read) == 1
    return count
