import dataclasses
import platform
import random

import numpy as np
import pytest
import torch

import companion
from companion.__main__ import report
from companion.errors import ArgumentError
from companion.repro import environment, seed_everything


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
