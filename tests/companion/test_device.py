from collections import namedtuple

import pytest
import torch
from torch import nn

from companion.device import (
    device_name,
    model_device,
    pick_device,
    synchronize,
    to_device,
    widest_float,
)

CPU, META = torch.device("cpu"), torch.device("meta")
Pair = namedtuple("Pair", "inputs targets")


def test_pick_device_agrees_with_torch_about_the_accelerator():
    if torch.accelerator.is_available():
        assert pick_device().type == torch.accelerator.current_accelerator().type
    else:
        assert pick_device() == CPU


def test_synchronize_waits_for_accelerators_only(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    synchronize(CPU)
    assert waited == []
    synchronize(torch.device("xpu", 0))
    assert waited == [torch.device("xpu", 0)]


def test_a_device_without_a_model_name_goes_by_its_type():
    assert device_name(CPU) == "cpu"


def test_model_device_looks_at_parameters_then_buffers_then_says_cpu():
    assert model_device(nn.Linear(2, 2, device=META)) == META
    assert model_device(nn.BatchNorm1d(2, affine=False, device=META)) == META
    assert model_device(nn.ReLU()) == CPU


def test_to_device_moves_every_tensor_and_keeps_the_structure():
    batch = {"x": [torch.ones(2)], "pair": Pair(torch.ones(3), 7), "name": "图.png", "t": (1, None)}
    moved = to_device(batch, META)
    assert moved["x"][0].device == META
    assert type(moved["pair"]) is Pair
    assert moved["pair"].inputs.device == META
    assert (moved["pair"].targets, moved["name"], moved["t"]) == (7, "图.png", (1, None))
    assert batch["x"][0].device == CPU


def test_to_device_returns_the_same_tensor_when_it_is_already_there():
    x = torch.ones(2)
    assert to_device(x, CPU) is x


@pytest.mark.parametrize(("name", "dtype"), [("cpu", torch.float64), ("mps", torch.float32)])
def test_widest_float_is_double_except_where_there_is_none(name, dtype):
    assert widest_float(torch.device(name)) == dtype
