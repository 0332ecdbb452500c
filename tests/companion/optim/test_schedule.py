import io

import pytest
import torch
from torch.optim import SGD
from torch.optim import lr_scheduler as torch_schedules
from torch.optim.lr_scheduler import LambdaLR

from companion.errors import ArgumentError
from companion.optim import PerStep, constant, one_cycle, step_decay, warmup_cosine, warmup_linear


def optimizer(lr=1.0):
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(scheduler, steps):
    """前 ``steps`` 次更新各用的学习率。"""
    used = []
    for _ in range(steps):
        used.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return used


@pytest.mark.parametrize("schedule", [warmup_linear(4, 10), warmup_cosine(4, 10), constant(4)])
def test_the_first_step_already_learns_and_warmup_ends_at_the_peak(schedule):
    assert [schedule(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_and_cosine_have_the_values_computed_by_hand():
    linear, cosine = warmup_linear(2, 10, floor=0.2), warmup_cosine(2, 10, floor=0.2)
    assert linear(6) == pytest.approx(0.6) == pytest.approx(cosine(6))  # 一半的路，一半的高
    assert linear(4) == pytest.approx(0.8)
    assert cosine(4) == pytest.approx(0.2 + 0.8 * (1 + 2**-0.5) / 2)  # cos 45°
    assert [linear(step) for step in (10, 11, 10**6)] == pytest.approx([0.2] * 3)
    assert [cosine(step) for step in (10, 11, 10**6)] == pytest.approx([0.2] * 3)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (warmup_cosine(0, 12), lambda o: torch_schedules.CosineAnnealingLR(o, T_max=12)),
        (
            warmup_linear(0, 12, floor=0.1),
            lambda o: torch_schedules.LinearLR(o, 1.0, 0.1, total_iters=12),
        ),
        (step_decay(5, 0.3), lambda o: torch_schedules.StepLR(o, 5, 0.3)),
        (one_cycle(12), lambda o: torch_schedules.OneCycleLR(o, 1.0, 12, cycle_momentum=False)),
        (constant(), lambda o: torch_schedules.ConstantLR(o, 1.0)),
    ],
    ids=["cosine", "linear", "step", "one-cycle", "constant"],
)
def test_a_schedule_equals_the_one_of_torch(ours, theirs):
    used = rates(LambdaLR(optimizer(), ours), 12)
    torch.testing.assert_close(used, rates(theirs(optimizer()), 12))


def test_one_cycle_may_start_at_its_peak():
    assert one_cycle(3, rise=1 / 3, floor=0.0)(0) == 1.0  # OneCycleLR 在这里除以零
    assert one_cycle(3, rise=0.0, floor=0.0)(2) == 0.0


def test_one_cycle_stays_at_its_floor_when_training_goes_on():
    schedule = one_cycle(10, floor=0.01)
    assert schedule(9) == pytest.approx(0.01) == pytest.approx(schedule(500))


def test_lambda_lr_resumes_from_a_state_of_plain_types():
    straight = rates(LambdaLR(optimizer(), warmup_cosine(3, 12)), 12)
    first = PerStep(LambdaLR(optimizer(), warmup_cosine(3, 12)))
    rates(first.scheduler, 5)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert state["lr_lambdas"] == [None]  # 函数不进存档，代码里有
    second = PerStep(LambdaLR(optimizer(), warmup_cosine(3, 12)))
    second.load_state_dict(state)
    assert second.get_last_lr() == [straight[5]]
    second.scheduler.optimizer.param_groups[0]["lr"] = straight[5]  # 优化器的存档里有它
    assert rates(second.scheduler, 7) == straight[5:]


def test_per_step_marks_a_scheduler_and_steps_it():
    scheduler = PerStep(LambdaLR(optimizer(0.5), warmup_linear(2, 4)))
    assert scheduler.per_step
    assert scheduler.get_last_lr() == [0.25]
    scheduler.scheduler.optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5]


def test_per_step_refuses_a_scheduler_that_needs_the_result_of_an_epoch():
    with pytest.raises(ArgumentError, match="ReduceLROnPlateau"):
        PerStep(torch_schedules.ReduceLROnPlateau(optimizer()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: warmup_cosine(10, 10), "total 应大于 warmup，实际是 10 和 10"),
        (lambda: warmup_linear(-1, 10), "warmup 不能是负数"),
        (lambda: warmup_linear(1, 10, floor=1.5), "floor 应在 0 到 1 之间，实际是 1.5"),
        (lambda: step_decay(0), "every 至少为 1"),
        (lambda: one_cycle(1), "total 至少为 2"),
        (lambda: one_cycle(10, rise=1.0), "rise 应小于 1"),
    ],
)
def test_impossible_settings_are_explained(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
