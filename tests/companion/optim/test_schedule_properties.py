"""学习率曲线对任意的步数、预热、下限都成立的事；标准答案是 torch 自己的调度器。"""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torchs
from torch.optim.lr_scheduler import LambdaLR

from companion.optim import constant, one_cycle, step_decay, warmup_cosine, warmup_linear
from tests.companion.optim.test_schedule import optimizer, rates

few = settings(derandomize=True, deadline=None, database=None, max_examples=40)
totals, warmups, fractions = st.integers(2, 150), st.integers(0, 40), st.floats(0, 1)


def warmed(after, warmup):
    """torch 的写法：先 ``warmup`` 步直线升到 1，再接 ``after``。"""
    opt = optimizer()
    if not warmup:
        return after(opt)
    first = torchs.LinearLR(opt, 1 / warmup, 1.0, total_iters=max(warmup - 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 的 SequentialLR 自己用了过时的 epoch 参数
        return torchs.SequentialLR(opt, [first, after(opt)], milestones=[warmup])


def check(ours, theirs, steps):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = rates(theirs, steps)
    assert rates(LambdaLR(optimizer(), ours), steps) == pytest.approx(expected, abs=1e-9)


@few
@given(totals, warmups, fractions)
def test_cosine_after_a_warmup_is_that_of_torch(total, warmup, floor):
    left = total  # 预热之后还有这么多步
    after = lambda opt: torchs.CosineAnnealingLR(opt, T_max=left, eta_min=floor)  # noqa: E731
    check(warmup_cosine(warmup, warmup + left, floor), warmed(after, warmup), warmup + left)


@few
@given(totals, warmups, fractions)
def test_linear_after_a_warmup_is_that_of_torch_to_the_end_and_beyond(total, warmup, floor):
    after = lambda opt: torchs.LinearLR(opt, 1.0, floor, total_iters=total)  # noqa: E731
    check(warmup_linear(warmup, warmup + total, floor), warmed(after, warmup), warmup + total + 5)


@few
@given(st.integers(1, 40), fractions, totals)
def test_steps_are_those_of_torch(every, ratio, steps):
    check(step_decay(every, ratio), torchs.StepLR(optimizer(), every, ratio), steps)


@few
@given(totals, st.floats(0.05, 0.95), st.floats(0.01, 1), st.floats(1e-6, 1))
def test_one_cycle_is_that_of_torch(total, rise, start, floor):
    if abs(rise * total - 1) < 1e-6 or abs((1 - rise) * total) < 1e-6:
        return  # OneCycleLR 在这里除以零
    theirs = torchs.OneCycleLR(
        optimizer(),
        1.0,
        total,
        pct_start=rise,
        div_factor=1 / start,
        final_div_factor=start / floor,
        cycle_momentum=False,
    )
    check(one_cycle(total, rise, start, floor), theirs, total)


@few
@given(warmups, totals)
def test_a_constant_after_a_warmup_is_that_of_torch(warmup, steps):
    check(constant(warmup), warmed(lambda opt: torchs.ConstantLR(opt, 1.0), warmup), steps)


@few
@given(totals, warmups, fractions, st.integers(0, 400))
def test_a_factor_stays_between_the_floor_and_one_and_falls_after_the_warmup(
    total, warmup, floor, step
):
    for shape in (warmup_linear, warmup_cosine):
        schedule = shape(warmup, warmup + total, floor)
        assert 0 < schedule(step) <= 1 or floor == 0 == schedule(step)
        if step >= warmup:
            assert floor - 1e-12 <= schedule(step + 1) <= schedule(step) + 1e-12
        else:
            assert schedule(step + 1) >= schedule(step)
