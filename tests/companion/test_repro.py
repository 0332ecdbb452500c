import dataclasses
import platform
import random

import numpy as np
import pytest
import torch

import companion
from companion.__main__ import report
from companion.checkpoint import load_checkpoint, save_checkpoint
from companion.errors import ArgumentError
from companion.repro import environment, random_state, restore_random_state, seed_everything


def draw():
    return random.random(), float(np.random.rand()), torch.rand(1).item()


def test_the_same_seed_gives_the_same_numbers_in_python_numpy_and_torch():
    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_seed_everything_gives_torch_the_stream_of_manual_seed():
    seed_everything(3)
    ours = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(ours, torch.rand(4))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "0"])
def test_a_seed_that_numpy_would_refuse_is_explained(seed):
    with pytest.raises(ArgumentError, match=r"seed 应为 0 到 2\*\*32 - 1 的整数"):
        seed_everything(seed)


def gaussian():
    """凑出高斯数的发生器会多抽一个留着，它也是状态。"""
    return random.gauss(), float(np.random.randn()), torch.randn(1).item()


@pytest.mark.parametrize("draw_once", [draw, gaussian])
def test_restoring_the_random_state_repeats_the_same_numbers(draw_once):
    seed_everything(5)
    draw_once()
    state = random_state()
    first = [draw_once() for _ in range(3)]
    restore_random_state(state)
    assert [draw_once() for _ in range(3)] == first


def test_the_random_state_survives_a_checkpoint(tmp_path):
    gaussian()
    path = save_checkpoint(tmp_path, {"rng": random_state()}, step=1)
    expected = draw(), gaussian()
    restore_random_state(load_checkpoint(path)[0]["rng"])
    assert (draw(), gaussian()) == expected


def test_the_random_state_is_a_copy_and_taking_it_draws_nothing():
    seed_everything(1)
    expected = draw()
    seed_everything(1)
    state = random_state()
    assert draw() == expected
    restore_random_state(state)
    assert draw() == expected


class FakeAccelerator:
    def __init__(self, count):
        self.states = [torch.tensor([i], dtype=torch.uint8) for i in range(count)]

    def get_rng_state(self, i=0):
        return self.states[i]

    def set_rng_state(self, state, i=0):
        self.states[i] = state


@pytest.mark.parametrize("count", [1, 2])
def test_every_accelerator_has_its_state_saved_and_restored(monkeypatch, count):
    fake = FakeAccelerator(count)
    monkeypatch.setattr("companion.repro._accelerators", lambda: (fake, count))
    state, before = random_state(), list(fake.states)
    fake.states = [torch.tensor([9], dtype=torch.uint8)] * count
    restore_random_state(state)
    assert fake.states == before
    assert len(state["accelerators"]) == count


def test_an_accelerator_that_is_not_in_use_is_not_started(monkeypatch):
    fake = FakeAccelerator(1)
    fake.is_initialized = lambda: False
    monkeypatch.setattr("companion.repro._accelerators", lambda: (fake, 1))
    assert random_state()["accelerators"] == []


def test_environment_is_one_line_naming_python_torch_cores_and_system():
    now = environment()
    release = torch.__version__.split("+")[0]
    assert repr(now).startswith(f"Python {platform.python_version()} · torch {release} ·")
    assert now.torch == torch.__version__
    assert f"CPU {now.cores} 核" in repr(now)
    assert repr(now).endswith(f"{platform.system()} {platform.machine()}")
    assert "\n" not in repr(now)


def test_environment_names_an_accelerator_only_when_there_is_one():
    now = environment()
    assert repr(dataclasses.replace(now, device="cpu")).count("·") == 3
    assert "· 某 GPU ·" in repr(dataclasses.replace(now, device="某 GPU"))


def test_environment_holds_plain_values_and_cannot_be_changed():
    now = environment()
    assert all(type(value) in (str, int) for value in dataclasses.asdict(now).values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        now.cores = 1


def test_the_report_for_bug_reports_holds_the_line_and_every_field():
    text = report()
    assert companion.__version__ in text.splitlines()[0]
    assert repr(environment()) in text
    assert f"numpy    {np.__version__}" in text
