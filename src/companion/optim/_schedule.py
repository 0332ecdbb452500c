"""学习率怎么随步数变：纯函数，第几步进、倍率出。可以画出来，也可以交给 ``LambdaLR``。

步数从 0 数：第 0 步就是第一次更新。预热从 ``1 / warmup`` 起，不从 0 起（学习率是 0 的一步，算了
也白算）。过了 ``total`` 倍率不再变。``total`` 数的是更新，不是批；攒 k 批更新一次的，一轮的更新
次数是 ``ceil(len(train) / k)``::

    updates = epochs * math.ceil(len(train) / accumulate)
    PerStep(LambdaLR(optimizer, warmup_cosine(warmup=100, total=updates)))
"""

import math
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
)

from companion.errors import ArgumentError

Schedule = Callable[[int], float]
_TOTALS: dict[type, str] = {
    OneCycleLR: "total_steps",
    CosineAnnealingLR: "T_max",
    PolynomialLR: "total_iters",
}


def constant(warmup: int = 0) -> Schedule:
    """步数 → 倍率：预热 ``warmup`` 步，之后一直是 1。"""
    _check(warmup=warmup)
    return lambda step: min(1.0, (step + 1) / max(warmup, 1))


def warmup_linear(warmup: int, total: int, floor: float = 0.0) -> Schedule:
    """步数 → 倍率：预热 ``warmup`` 步升到 1，再沿直线降，第 ``total`` 步起是 ``floor``。

    Raises:
        ArgumentError: 不是 ``0 <= warmup < total``，或 ``floor`` 不在 0 到 1 之间。
    """
    return _warm_then(lambda progress: 1 - progress, warmup, total, floor)


def warmup_cosine(warmup: int, total: int, floor: float = 0.0) -> Schedule:
    """步数 → 倍率：预热 ``warmup`` 步升到 1，再沿半个余弦降，第 ``total`` 步起是 ``floor``。

    ``warmup=0`` 时与 ``torch.optim.lr_scheduler.CosineAnnealingLR(T_max=total)`` 相同。

    Raises:
        ArgumentError: 不是 ``0 <= warmup < total``，或 ``floor`` 不在 0 到 1 之间。

    出处：Loshchilov、Hutter，《SGDR》（arXiv 1608.03983）式 (5)，不重启。
    """
    return _warm_then(_cosine, warmup, total, floor)


def step_decay(every: int, ratio: float = 0.1) -> Schedule:
    """步数 → 倍率：从 1 起，每 ``every`` 步乘一次 ``ratio``；同 ``StepLR``。

    Raises:
        ArgumentError: ``every`` 小于 1，或 ``ratio`` 不在 0 到 1 之间。
    """
    _check(every=every, ratio=ratio)
    return lambda step: ratio ** (step // every)


def one_cycle(
    total: int, rise: float = 0.3, start: float = 1 / 25, floor: float = 1 / 25e4
) -> Schedule:
    """步数 → 倍率：前一段从 ``start`` 沿余弦升到 1，余下的沿余弦降，最后一步是 ``floor``。

    学习率与 ``OneCycleLR`` 的默认设置逐步相同；它还会改动量，这里不改。

    Args:
        total: 一共几步，至少 2。
        rise: 上升占的比例，不到 1。
        start, floor: 第一步和最后一步的倍率。

    Raises:
        ArgumentError: 取值不在上面的范围里。

    出处：Smith、Topin，《Super-Convergence》（arXiv 1708.07120）。
    """
    _check(rise=rise, start=start, floor=floor)
    if total < 2 or rise == 1:
        raise ArgumentError(
            f"total 至少为 2，rise 应小于 1，实际是 {total} 和 {rise}。total 是全部的更新次数。"
        )
    peak, last = rise * total - 1, total - 1

    def factor(step: int) -> float:
        if step < peak:
            return 1 + (start - 1) * _cosine(step / peak)
        return floor + (1 - floor) * _cosine(min(1.0, (step - peak) / (last - peak)))

    return _with_total(factor, total)


class PerStep:
    """同一个调度器，标明每次更新之后 ``step()`` 一次，而不是每轮一次。

    Raises:
        ArgumentError: ``ReduceLROnPlateau`` 要看验证集的结果，一轮才有一个，不能逐步走；或给的不是
            调度器。
    """

    per_step = True

    def __init__(self, scheduler: LRScheduler) -> None:
        check_scheduler(scheduler)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ArgumentError(
                "PerStep 里的调度器应只看步数，实际是 ReduceLROnPlateau。请把它直接交给 fit。"
            )
        self.scheduler = scheduler

    def step(self) -> None:
        """走一步：把下一步的学习率写进优化器。"""
        self.scheduler.step()

    def get_last_lr(self) -> list[float]:
        """优化器每个参数组现在的学习率。"""
        return [float(lr) for lr in self.scheduler.get_last_lr()]

    def state_dict(self) -> dict[str, Any]:
        """走到第几步；与里面那个调度器的相同。"""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """接着 ``state`` 那一步走。"""
        self.scheduler.load_state_dict(state)


def check_scheduler(scheduler: Any) -> None:
    """是调度器就什么也不做：torch 的，或别的有 ``step``、能存能取的对象。"""
    needed = ("step", "state_dict", "load_state_dict")
    if isinstance(scheduler, type) or not all(hasattr(scheduler, name) for name in needed):
        name = (
            f"类 {scheduler.__name__}" if isinstance(scheduler, type) else type(scheduler).__name__
        )
        raise ArgumentError(
            f"scheduler 应是一个调度器，如 StepLR(optimizer, 10)，实际是 {name}。warmup_cosine(…) "
            "等曲线是函数，先包成 PerStep(LambdaLR(optimizer, 曲线))；几个的用 SequentialLR。"
        )


def schedule_kind(scheduler: Any) -> str:
    """调度器的种类，里面的也写出来，如 ``"PerStep(SequentialLR(LinearLR, StepLR))"``。"""
    inner = getattr(scheduler, "scheduler", None) if isinstance(scheduler, PerStep) else None
    parts = [inner] if inner is not None else getattr(scheduler, "_schedulers", [])
    inside = ", ".join(schedule_kind(part) for part in parts)
    return type(scheduler).__name__ + (f"({inside})" if inside else "")


def schedule_total(scheduler: Any) -> int | None:
    """调度器走完全程要几步；说不出来的（如 ``StepLR``）是 ``None``。

    认得 ``OneCycleLR``、``CosineAnnealingLR``、``PolynomialLR``，和本文件的曲线做的 ``LambdaLR``。
    """
    inner = scheduler.scheduler if isinstance(scheduler, PerStep) else scheduler
    if isinstance(inner, LambdaLR):
        totals = [getattr(curve, "total", None) for curve in inner.lr_lambdas]
        return max((total for total in totals if total is not None), default=None)
    name = _TOTALS.get(type(inner))
    return None if name is None else int(getattr(inner, name))


def _cosine(progress: float) -> float:
    """半个余弦：``progress`` 从 0 到 1，值从 1 到 0。"""
    return (1 + math.cos(math.pi * progress)) / 2


def _warm_then(shape: Callable[[float], float], warmup: int, total: int, floor: float) -> Schedule:
    """预热之后按 ``shape`` 降；``shape`` 把 0 到 1 的进度变成 1 到 0 的高度。"""
    _check(warmup=warmup, floor=floor)
    if total <= warmup:
        raise ArgumentError(
            f"total 应大于 warmup，实际是 {total} 和 {warmup}。total 是全部的更新次数："
            "轮数 × 每轮更新几次；攒 k 批更新一次的，每轮 ceil(批数 / k) 次。"
        )

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return floor + (1 - floor) * shape(min(1.0, (step - warmup) / (total - warmup)))

    return _with_total(factor, total)


def _with_total(factor: Schedule, total: int) -> Schedule:
    """记住总步数，好核对；仍是函数：``LambdaLR`` 会把别的可调用对象的属性写进存档。"""
    factor.total = total  # type: ignore[attr-defined]
    return factor


def _check(*, warmup: int = 0, every: int = 1, **ratios: float) -> None:
    if warmup < 0 or every < 1:
        raise ArgumentError(f"步数 warmup 不能是负数，every 至少为 1；实际是 {warmup} 和 {every}。")
    for name, value in ratios.items():
        if not 0 <= value <= 1:
            raise ArgumentError(f"{name} 应在 0 到 1 之间，实际是 {value}。它是峰值的几分之几。")
