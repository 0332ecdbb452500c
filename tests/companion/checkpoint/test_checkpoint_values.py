import enum
from collections import Counter, OrderedDict, defaultdict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from companion.checkpoint import load_checkpoint, plain, save_checkpoint
from companion.errors import ArgumentError

Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 3


def round_trip(tmp_path, value):
    """存下再读回来的 ``value``。"""
    return load_checkpoint(save_checkpoint(tmp_path, {"value": value}, step=0))[0]["value"]


def size_of(tmp_path, value):
    """``value`` 存成的文件有多少字节。"""
    return (save_checkpoint(tmp_path, {"value": value}, step=0) / "state.pt").stat().st_size


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, {2: [3]}), {2: [3]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (MappingProxyType({None: True}), {None: True}),
        (Point(1, [2]), (1, [2])),
        (torch.Size([2, 3]), (2, 3)),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("名"), "名"),
        (np.complex128(1j), 1j),
        ({np.int64(1): 2}, {1: 2}),
        ({(1, "a"): 2}, {(1, "a"): 2}),
        (Colour.RED, 3),
        (torch.__version__, str(torch.__version__)),
        (b"\x00", b"\x00"),
        (float("-inf"), float("-inf")),
        (10**30, 10**30),
    ],
)
def test_a_value_becomes_its_plain_twin_and_survives_a_save(tmp_path, value, expected):
    for result in (plain(value), round_trip(tmp_path, value)):
        assert result == expected
        assert type(result) is type(expected)
        if isinstance(expected, dict):
            assert [type(key) for key in result] == [type(key) for key in expected]


def test_a_value_that_is_already_plain_comes_back_equal_but_as_a_new_container():
    value = {"a": [1, (2.0, "x", None)], "b": {"c": True}}
    result = plain(value)
    assert result == value
    assert result is not value and result["a"] is not value["a"]


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i8", "u1", "?", "c8", ">f4", ">i2", "u4"])
def test_a_numpy_array_becomes_a_tensor_with_the_same_numbers(tmp_path, dtype):
    array = (np.arange(6).reshape(2, 3) % 5).astype(dtype)[:, ::-1]
    array.flags.writeable = False
    tensor = round_trip(tmp_path, array)
    assert tensor.dtype == torch.from_numpy(np.zeros(1, array.dtype.newbyteorder("="))).dtype
    assert np.array_equal(tensor.numpy(), array)


def test_a_parameter_and_a_tensor_with_a_graph_become_bare_tensors(tmp_path):
    parameter = nn.Parameter(torch.ones(3))
    values = plain([parameter, parameter * 2, nn.Buffer(torch.zeros(1))])
    assert [type(value) for value in values] == [torch.Tensor] * 3
    assert not any(value.requires_grad for value in values)
    assert values[0].data_ptr() == parameter.data_ptr()  # 没有复制


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3).t(),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.ones(1).expand(5),
        torch.zeros(0, 3),
        torch.tensor(2.5),
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.tensor([1.5, -2]).to(torch.float8_e4m3fn),
        torch.tensor([1, 2], dtype=torch.uint16),
    ],
    ids=["t", "channels_last", "expanded", "empty", "scalar", "conj", "float8", "uint16"],
)
def test_shape_dtype_strides_and_numbers_of_a_tensor_survive(tmp_path, tensor):
    loaded = round_trip(tmp_path, tensor)
    assert (loaded.shape, loaded.dtype) == (tensor.shape, tensor.dtype)
    assert loaded.stride() == tensor.stride()
    assert torch.equal(loaded, tensor)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_a_sparse_tensor_survives(tmp_path):
    tensor = torch.eye(3).to_sparse()
    loaded = round_trip(tmp_path, tensor)
    assert loaded.layout == torch.sparse_coo
    assert torch.equal(loaded.to_dense(), tensor.to_dense())


# —— 共享的存储


def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path):
    weight = nn.Parameter(torch.randn(100, 100))
    loaded = round_trip(tmp_path, {"a": weight, "b": [weight], "c": weight.t()})
    loaded["a"][0, 1] = 77.0
    assert loaded["b"][0][0, 1] == 77.0
    assert loaded["c"][1, 0] == 77.0
    assert size_of(tmp_path, [weight, weight, weight.t()]) < 1.2 * size_of(tmp_path, weight)


def test_a_small_view_of_a_big_storage_writes_a_small_file(tmp_path):
    big = torch.randn(1 << 18)  # 1 MiB
    assert size_of(tmp_path, big) > 1 << 20
    for view in (big[5:15], big.reshape(512, 512)[:, 3], big[:0]):
        assert size_of(tmp_path, view) < 6000
        assert torch.equal(round_trip(tmp_path, view), view)


def test_a_view_used_twice_is_stored_once_and_stays_tied(tmp_path):
    flat = torch.randn(1 << 18)
    half = flat[: 1 << 17].reshape(256, 512)
    loaded = round_trip(tmp_path, {"a": half, "b": half, "c": flat[1 << 17 :]})
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr()
    assert torch.equal(loaded["a"], half) and torch.equal(loaded["c"], flat[1 << 17 :])
    assert size_of(tmp_path, [half, half]) < 1.01 * (1 << 19) + 4000


def test_two_dtypes_on_one_storage_are_both_stored(tmp_path):
    z = torch.randn(3, dtype=torch.complex64)
    one, two = round_trip(tmp_path, [z, torch.view_as_real(z)])
    assert torch.equal(one, z) and torch.equal(two, torch.view_as_real(z))


# —— 不收的


class Secret:
    pass


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"scheduler": {"foo": Secret()}}, r"state\.scheduler\.foo 应是.*实际是 .*\.Secret。"),
        ({"a": [1, (2, {3})]}, r"state\.a\[1\]\[1\] 应是.*builtins\.set"),
        ({"a": {5: print}}, r"state\.a\[5\] 应是"),
        ({"model": nn.Linear(1, 1)}, r"state\.model .*torch\.nn\.modules\.linear\.Linear。请存它"),
        ({"a": np.array(["x"])}, r"state\.a 应是.*numpy\.ndarray"),
        ({"a": np.array([None])}, r"state\.a 应是.*numpy\.ndarray"),
        ({"a": np.datetime64("2026-01-01")}, r"state\.a 应是.*datetime"),
        ({"o": {torch.ones(1): 1}}, r"state\.o 的键 应是.*torch\.Tensor"),
        ({"o": {(1, Secret()): 1}}, r"state\.o 的键\[1\] 应是.*Secret"),
        ({"a": torch.float32}, r"state\.a 应是.*torch\.dtype"),
        ({"a": nn.LazyLinear(2).weight}, r"state\.a 应是.*UninitializedParameter"),
    ],
)
def test_an_object_is_refused_with_its_path_and_nothing_is_written(tmp_path, state, message):
    with pytest.raises(ArgumentError, match=message):
        save_checkpoint(tmp_path, state, step=1)
    assert list(tmp_path.iterdir()) == []


def test_the_caller_names_the_root_of_the_path():
    with pytest.raises(ArgumentError, match=r"^model\.head 应是"):
        plain({"head": Secret()}, "model")


# —— torch 自己的状态都是普通的


@pytest.mark.parametrize(
    "name",
    ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "LBFGS", "Muon"],
)
def test_an_optimizer_goes_on_with_the_same_bits_after_a_save(tmp_path, name):
    def job():
        model = nn.Linear(3, 3, bias=False)
        nn.init.eye_(model.weight)
        return model, getattr(torch.optim, name)(model.parameters(), lr=0.1)

    def step(model, optimizer):
        def closure():
            optimizer.zero_grad()
            loss = model(torch.arange(6.0).reshape(2, 3)).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    model, optimizer = job()
    step(model, optimizer)
    other, resumed = job()
    other.load_state_dict(round_trip(tmp_path, model.state_dict()))
    resumed.load_state_dict(round_trip(tmp_path, optimizer.state_dict()))
    step(model, optimizer)
    step(other, resumed)
    assert torch.equal(model.weight, other.weight)


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, 10),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.StepLR(o, 2)], [2]
    ),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.2, step_size_up=2),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.5**step),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_goes_on_with_the_same_rates_after_a_save(tmp_path, name):
    def job():
        optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)
        return optimizer, SCHEDULERS[name](optimizer)

    def rates(optimizer, scheduler, steps):
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            yield optimizer.param_groups[0]["lr"]

    straight = list(rates(*job(), 6))
    optimizer, scheduler = job()
    assert list(rates(optimizer, scheduler, 3)) == straight[:3]
    state = round_trip(tmp_path, [optimizer.state_dict(), scheduler.state_dict()])
    optimizer, scheduler = job()
    optimizer.load_state_dict(state[0])
    scheduler.load_state_dict(state[1])
    assert list(rates(optimizer, scheduler, 3)) == straight[3:]
