"""优化器的配件，与 ``torch.optim`` 的任何优化器、调度器一起用。

- ``_ema``       ``EMA``：权重的滑动平均
- ``_lamb``      ``LAMB``：大批量用的优化器
- ``_groups``    ``decay_groups``：哪些参数不做权重衰减
- ``_schedule``  学习率怎么随步数变
- ``_updates``   ``UpdateCounter``：数更新了几次
"""

from companion.optim._ema import EMA
from companion.optim._groups import decay_groups
from companion.optim._lamb import LAMB
from companion.optim._schedule import (
    PerStep,
    check_scheduler,
    constant,
    one_cycle,
    schedule_kind,
    schedule_total,
    step_decay,
    warmup_cosine,
    warmup_linear,
)
from companion.optim._updates import UpdateCounter

__all__ = [
    "EMA",
    "LAMB",
    "PerStep",
    "UpdateCounter",
    "check_scheduler",
    "constant",
    "decay_groups",
    "one_cycle",
    "schedule_kind",
    "schedule_total",
    "step_decay",
    "warmup_cosine",
    "warmup_linear",
]
