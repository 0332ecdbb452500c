"""剖析：一段代码花多少时间、时间花在哪些运算上、占多少内存。

计时先热身，前后同步设备，报中位数和四分位距，不报单独一次的时间。
"""

import os
import statistics
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parameter import is_lazy
from torch.profiler import ProfilerActivity, profile

from companion._common import stored
from companion.device import synchronize
from companion.errors import ArgumentError


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


class Op(NamedTuple):
    """一种运算在一次调用里的合计。"""

    name: str  # 如 "aten::addmm"
    calls: int
    self_ms: float  # 它自己用的时间，不含它调用的别的运算
    share: float  # 占全部运算的几分之几


@dataclass(frozen=True)
class OpTable:
    """各种运算用的时间，从多到少；打印出来是一张表，``rows`` 是数据。"""

    rows: list[Op]
    kinds: int  # 一共有几种运算；表里可能只列了前几种
    total_ms: float  # 全部运算的时间
    where: str  # 时间是哪里的："cpu" 或加速器的类型

    def __repr__(self) -> str:
        lines = ["  占比  自身时间（ms）  次数  运算"]
        lines += [f"{op.share:6.1%}{op.self_ms:16.3f}{op.calls:6d}  {op.name}" for op in self.rows]
        return "\n".join([*lines, f"{self.where} 上共 {self.kinds} 种，{self.total_ms:.3f} ms"])


def op_table(
    fn: Callable[[], object], *, device: torch.device | str = "cpu", rows: int = 10
) -> OpTable:
    """``fn()`` 一次调用里各种运算的次数和时间，最费时的 ``rows`` 种，``OpTable``。

    先空跑一次。``device`` 是加速器时，记的是它上面核函数的时间，算在发起它的运算头上；后端不报
    这个时间，就记 CPU 的。开着剖析器，每个运算都慢几微秒：绝对时间用 ``measure`` 量，这里看比例。

    Raises:
        ArgumentError: ``rows`` 小于 1。

    出处：``torch.profiler.profile`` 的 ``key_averages()``。
    """
    if rows < 1:
        raise ArgumentError(f"rows 至少为 1，实际是 {rows}。")
    device = torch.device(device)
    fn()
    synchronize(device)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # 没有显卡时，它也会往终端上报一堆错
    activities = [ProfilerActivity.CPU] if device.type == "cpu" else None  # None 是能记的都记
    with profile(activities=activities) as profiler:
        fn()
        synchronize(device)
    return _table(profiler.key_averages(), device, rows)


def _table(events: Iterable[Any], device: torch.device, rows: int) -> OpTable:
    """剖析器的事件排成表。核函数自己的事件不要，它的时间已经算在发起它的运算里。"""
    ops = [event for event in events if event.device_type.name == "CPU"]
    times_us = [event.self_device_time_total for event in ops]
    on_device = device.type != "cpu" and sum(times_us) > 0
    if not on_device:
        times_us = [event.self_cpu_time_total for event in ops]
    total_us = sum(times_us) or 1.0
    table = [
        Op(event.key, event.count, time_us / 1e3, time_us / total_us)
        for event, time_us in zip(ops, times_us, strict=True)
        if time_us > 0
    ]
    table.sort(key=lambda op: op.self_ms, reverse=True)
    return OpTable(table[:rows], len(table), total_us / 1e3, device.type if on_device else "cpu")


@dataclass(frozen=True)
class Memory:
    """一段代码用的内存，单位字节；量不到的是 ``None``。"""

    saved_bytes: int  # 为反向传播留着的张量，同时在的最多是多少
    peak_bytes: int | None  # 加速器上已分配内存的最高点，模型等原来就在的也算；CPU 上量不到

    def __repr__(self) -> str:
        peak = "量不到" if self.peak_bytes is None else _size(self.peak_bytes)
        return f"为反向留着 {_size(self.saved_bytes)}；设备内存的最高点 {peak}"


def memory(
    fn: Callable[[], object],
    device: torch.device | str = "cpu",
    *,
    exclude: Iterable[Tensor] = (),
) -> Memory:
    """``fn()`` 期间为反向传播留着多少字节，和加速器内存的最高点。

    Args:
        fn: 不带参数的函数，里面做前向，也可以做反向。
        device: 在哪个设备上干活；加速器才有最高点。
        exclude: 不算在内的张量，通常是 ``model.parameters()``：反向也要用，但它们原来就在。

    几个张量共用一块内存，只算一次；只用其中一小片，整块也都留着。``torch.utils.checkpoint`` 省下的
    那些不会留着，也就不算。``meta`` 上的照样算：真的要占多少。

    Raises:
        ArgumentError: ``exclude`` 里有还没有形状的张量（惰性层）。

    出处：``torch.autograd.graph.saved_tensors_hooks``，``torch.accelerator.max_memory_allocated``。
    """
    device, exclude = torch.device(device), list(exclude)
    if any(map(is_lazy, exclude)):
        raise ArgumentError(
            "exclude 里的应已有形状，实际有惰性层的参数。请先用一批数据走一遍前向。"
        )
    kept = _Kept({_pointer(part) for tensor in exclude for part in stored(tensor)})
    synchronize(device)
    can_measure = _reset_peak(device)
    with saved_tensors_hooks(kept.pack, _Held.unpack):
        result = fn()  # 留住返回值：损失一丢，计算图就跟着放掉了
    synchronize(device)
    del result
    peak = torch.accelerator.max_memory_allocated(device) if can_measure else None
    return Memory(kept.most_bytes, peak)


class _Held:
    """计算图手里的一个张量；图放掉它，就从账上减去。"""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def unpack(self) -> Tensor:
        return self.tensor


class _Kept:
    """一本账：哪些内存正被计算图留着。"""

    def __init__(self, excluded: set[int]) -> None:
        self.excluded, self.holders = excluded, Counter[int]()
        self.now_bytes, self.most_bytes = 0, 0

    def pack(self, tensor: Tensor) -> _Held:
        held = _Held(tensor)
        for part in stored(tensor):
            key, n_bytes = _pointer(part), part.untyped_storage().nbytes()
            if key not in self.excluded:
                self._count(key, n_bytes, 1)
                weakref.finalize(held, self._count, key, n_bytes, -1)
        return held

    def _count(self, key: int, n_bytes: int, change: int) -> None:
        before = self.holders[key] > 0
        self.holders[key] += change
        self.now_bytes += n_bytes * ((self.holders[key] > 0) - before)
        self.most_bytes = max(self.most_bytes, self.now_bytes)


def _pointer(tensor: Tensor) -> int:
    """``tensor`` 用的是哪一块内存；``meta`` 上的没有地址，看是哪个存储对象。"""
    storage = tensor.untyped_storage()
    return storage.data_ptr() or storage._cdata


def _reset_peak(device: torch.device) -> bool:
    """清掉设备内存最高点的记录；后端不记这个，就是 ``False``。"""
    if device.type in ("cpu", "meta"):
        return False
    try:
        torch.accelerator.reset_peak_memory_stats(device)
    except (NotImplementedError, RuntimeError):
        return False
    return True


def _size(n_bytes: int) -> str:
    if n_bytes < 2**20:
        return f"{n_bytes / 2**10:.3g} KiB"
    return f"{n_bytes / 2**20:.4g} MiB"
