"""计时：先热身，前后同步设备，报中位数和四分位距，不报单独一次的时间。"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from companion.device import synchronize
from companion.errors import ArgumentError

__all__ = ["Timing", "measure"]


@dataclass(frozen=True)
class Timing:
    """一段代码单次耗时的统计，单位毫秒。"""

    median_ms: float
    iqr_ms: float  # 四分位距：中间一半的测量散布多宽；它接近中位数时，这个数不可信
    repeats: int

    def __repr__(self) -> str:
        return f"{self.median_ms:.3g} ms（四分位距 {self.iqr_ms:.2g} ms，{self.repeats} 次）"


def measure(
    fn: Callable[[], object],
    *,
    device: torch.device | str = "cpu",
    warmup: int = 3,
    repeats: int = 20,
) -> Timing:
    """``fn()`` 单次耗时的中位数与四分位距，单位毫秒。

    Args:
        fn: 不带参数的函数；返回值不用。
        device: ``fn`` 在哪个设备上干活。每次计时前后都等它干完，否则 GPU 上只量到发令的时间。
        warmup: 先空跑几次，不计时；第一次常常要分配内存、挑选算法。
        repeats: 计时几次，至少 2。

    Raises:
        ArgumentError: ``repeats`` 小于 2，或 ``warmup`` 是负数。
    """
    if repeats < 2 or warmup < 0:
        raise ArgumentError(f"repeats 至少为 2，warmup 不能是负数；实际是 {repeats} 和 {warmup}。")
    device = torch.device(device)
    times_ms = []
    for _ in range(warmup):
        fn()
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        fn()
        synchronize(device)
        times_ms.append(1e3 * (time.perf_counter() - start))
    q1, median, q3 = statistics.quantiles(times_ms, n=4, method="inclusive")
    return Timing(median, q3 - q1, repeats)
