import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks as HOOKS

from companion.optim import UpdateCounter


@pytest.fixture
def counter():
    counter = UpdateCounter()
    yield counter
    counter.close()
    assert not HOOKS


def stepped(model, times=1):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(times):
        optimizer.step()


def test_only_steps_over_the_watched_parameters_are_counted(counter):
    ours, theirs = nn.Linear(2, 2), nn.Linear(2, 2)
    counter.watch(ours.parameters())
    stepped(ours, 3)
    stepped(theirs, 5)
    assert counter.count == 3
    counter.watch(None)
    stepped(theirs)
    assert counter.count == 4


def test_a_scaled_step_that_overflowed_is_not_an_update(counter):
    model = nn.Linear(1, 1)
    counter.watch(model.parameters())
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    for value in (1.0, float("inf"), 1.0):
        scaler.scale(model(torch.ones(1, 1)).sum() * value).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert counter.count == 2


def test_an_optimizer_whose_first_group_is_empty_is_counted(counter):
    model = nn.Linear(1, 1)
    counter.watch(model.parameters())
    torch.optim.SGD([{"params": []}, {"params": list(model.parameters())}], lr=0.1).step()
    assert counter.count == 1


def test_nothing_is_counted_after_it_is_closed():
    counter, model = UpdateCounter(), nn.Linear(1, 1)
    counter.watch(model.parameters())
    counter.close()
    counter.close()
    stepped(model)
    assert counter.count == 0
