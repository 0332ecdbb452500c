from collections import ChainMap, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from companion.device import (
    device_name,
    model_device,
    pick_device,
    synchronize,
    to_device,
    widest_float,
)
from companion.errors import DataError

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


@dataclass(frozen=True)
class Batch:
    inputs: torch.Tensor
    more: object = None
    twice: object = field(init=False, default=None)

    def __post_init__(self):
        object.__setattr__(self, "twice", self.inputs)


@dataclass(slots=True)
class Slots:
    inputs: torch.Tensor


class Named(list):
    def __init__(self, items, name):
        super().__init__(items)
        self.name = name


class Two(tuple):
    def __new__(cls, one, two):
        return super().__new__(cls, (one, two))


class Store(MutableMapping):
    def __init__(self, **items):
        self.items_of_mine = items

    def __getitem__(self, key):
        return self.items_of_mine[key]

    def __setitem__(self, key, value):
        self.items_of_mine[key] = value

    def __delitem__(self, key):
        del self.items_of_mine[key]

    def __iter__(self):
        return iter(self.items_of_mine)

    def __len__(self):
        return len(self.items_of_mine)


class ReadOnly(dict):
    def __setitem__(self, key, value):
        raise TypeError("read only")


class Old:
    def __init__(self):
        self.inputs = torch.ones(2)

    def to(self, device):
        self.inputs = self.inputs.to(device)  # 就地搬，什么也不返回


KEYED = [
    OrderedDict(b=torch.ones(2), a=torch.ones(2)),
    defaultdict(list, a=torch.ones(2)),
    UserDict(a=torch.ones(2)),
    ChainMap({"a": torch.ones(2)}, {"b": torch.ones(2)}),
    MappingProxyType({"a": torch.ones(2)}),
    Store(a=torch.ones(2)),
    ReadOnly(a=torch.ones(2)),
]
LISTED = [
    (torch.ones(2), 1),
    Named([torch.ones(2)], "train"),
    Two(torch.ones(2), 1),
    deque([torch.ones(2)], maxlen=3),
    UserList([torch.ones(2)]),
    torch.max(torch.ones(2, 2), dim=0),
]


@pytest.mark.parametrize("batch", KEYED, ids=lambda batch: type(batch).__name__)
def test_to_device_moves_what_any_mapping_holds_and_keeps_its_class(batch):
    moved = to_device(batch, META)
    assert type(moved) is type(batch)
    assert list(moved) == list(batch)
    assert {value.device for value in moved.values()} == {META}
    assert {value.device for value in batch.values()} == {CPU}
    assert getattr(moved, "default_factory", None) is getattr(batch, "default_factory", None)


@pytest.mark.parametrize("batch", LISTED, ids=lambda batch: type(batch).__name__)
def test_to_device_moves_what_any_sequence_holds_and_keeps_its_class(batch):
    moved = to_device(batch, META)
    assert type(moved) is type(batch)
    assert moved[0].device == META
    assert batch[0].device == CPU
    assert len(moved) == len(batch)
    assert getattr(moved, "maxlen", None) == getattr(batch, "maxlen", None)
    assert getattr(moved, "name", None) == getattr(batch, "name", None)


def test_to_device_moves_the_fields_of_frozen_nested_and_slotted_dataclasses():
    batch = Batch(torch.ones(2), {"inner": [Slots(torch.ones(3))]})
    moved = to_device(batch, META)
    assert type(moved) is Batch
    assert moved.inputs.device == META
    assert moved.twice is moved.inputs  # 共用的仍共用
    assert moved.more["inner"][0].inputs.device == META
    assert batch.inputs.device == CPU


def test_to_device_looks_into_sets_namespaces_and_packed_sequences():
    (moved,) = to_device({torch.ones(2)}, META)
    assert moved.device == META
    assert to_device(SimpleNamespace(inputs=torch.ones(2)), META).inputs.device == META
    packed = to_device(pack_sequence([torch.ones(2)]), META)
    assert (type(packed), packed.data.device) == (PackedSequence, META)


def test_to_device_calls_a_to_without_non_blocking_and_one_that_moves_in_place():
    old = Old()
    assert to_device([old], META)[0] is old
    assert old.inputs.device == META


def test_to_device_reads_a_field_that_is_called_to_as_a_field():
    edge = namedtuple("Edge", "source to")
    assert to_device(edge(1, torch.ones(2)), META).to.device == META


def test_to_device_leaves_arrays_classes_and_shapes_as_they_are():
    batch = (np.ones(2), torch.Tensor, torch.Size([2]), torch.float32, "图.png")
    assert all(new is old for new, old in zip(to_device(batch, META), batch, strict=True))


def test_to_device_refuses_a_batch_that_it_cannot_rebuild():
    class Stuck(SimpleNamespace):
        def __reduce_ex__(self, protocol):
            raise TypeError

    with pytest.raises(DataError, match="一批数据里的 Stuck 应能"):
        to_device(Stuck(inputs=torch.ones(2)), META)


@pytest.mark.parametrize("batch", [[torch.ones(2)], {"a": torch.ones(2)}, UserDict(a=1)])
def test_to_device_gives_a_container_of_its_own_even_when_nothing_moves(batch):
    moved = to_device(batch, CPU)  # 不然 step 里 pop 一下，下一次就没有了
    assert moved == batch
    assert moved is not batch
