import errno
import itertools
import json
import os

import pytest
import torch
from torch import nn

from companion.checkpoint import (
    check_matches,
    export_weights,
    import_weights,
    save_checkpoint,
)
from companion.errors import ArgumentError, CheckpointError, CorruptCheckpointError, MismatchError

safetensors = pytest.importorskip("safetensors.torch", reason="没有安装 safetensors")


class Tied(nn.Module):
    """词嵌入和输出层共用一个权重，像 GPT。"""

    def __init__(self, tie=True):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7, bias=False)
        if tie:
            self.head.weight = self.embed.weight


def equal(one, two):
    one, two = one.state_dict(), two.state_dict()
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


def header(path):
    """safetensors 文件头：前 8 字节是长度，后面是 JSON。"""
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
def test_imported_weights_equal_the_exported_ones(tmp_path, tie):
    model = Tied(tie)
    model.norm(torch.randn(8, 4))
    path = export_weights(model, tmp_path / "new" / "w.safetensors")
    assert path == tmp_path / "new" / "w.safetensors"
    assert [entry.name for entry in path.parent.iterdir()] == ["w.safetensors"]
    other = Tied(tie)
    assert not equal(other, model)
    import_weights(other, path)
    assert equal(other, model)
    assert (other.head.weight is other.embed.weight) == tie


def test_the_file_is_what_safetensors_itself_reads(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    loaded = safetensors.load_file(export_weights(model, tmp_path / "w.safetensors"))
    expected = model.state_dict()
    assert set(loaded) == set(expected)
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert all(loaded[name].dtype == expected[name].dtype for name in expected)


def test_a_tied_weight_is_written_once_and_its_other_name_is_noted(tmp_path):
    path = export_weights(Tied(), tmp_path / "w.safetensors")
    content = header(path)
    assert content["__metadata__"] == {"format": "pt", "head.weight": "embed.weight"}
    assert "head.weight" not in content and "embed.weight" in content


def test_a_tied_file_fills_both_names_of_an_untied_model(tmp_path):
    tied, untied = Tied(), Tied(tie=False)
    import_weights(untied, export_weights(tied, tmp_path / "w.safetensors"))
    assert torch.equal(untied.head.weight, tied.embed.weight)
    assert untied.head.weight is not untied.embed.weight


@pytest.mark.parametrize("kept", ["head.weight", "embed.weight"])
def test_either_name_of_a_tied_weight_is_enough_in_a_foreign_file(tmp_path, kept):
    model, other = Tied(), Tied()
    state = {name: value for name, value in model.state_dict().items() if name != "head.weight"}
    state[kept] = state.pop("embed.weight")
    safetensors.save_file(state, tmp_path / "w.safetensors")
    import_weights(other, tmp_path / "w.safetensors")
    assert equal(other, model)


class Views(nn.Module):
    """几个缓冲区看着同一块存储的不同部分。"""

    def __init__(self, base):
        super().__init__()
        views = {"a": base, "b": base.t(), "c": base[0], "d": base[:, 1:], "e": base.flatten()}
        for name, view in views.items():
            self.register_buffer(name, view)
        self.register_buffer("empty", base[:0])
        self.register_buffer("same", base)


def test_views_of_one_storage_and_transposed_tensors_are_exported_with_their_numbers(tmp_path):
    model, other = Views(torch.randn(3, 4)), Views(torch.zeros(3, 4))
    path = export_weights(model, tmp_path / "w.safetensors")
    loaded = safetensors.load_file(path)
    assert all(torch.equal(loaded[name], getattr(model, name)) for name in "abcde")
    import_weights(other, path)
    assert equal(other, model)


def test_weights_of_another_model_are_refused_by_name_and_the_model_stays(tmp_path):
    path = export_weights(nn.Sequential(nn.Linear(3, 2)), tmp_path / "w.safetensors")
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(MismatchError) as caught:
        import_weights(model, path)
    assert str(caught.value) == (
        "权重应与 Sequential 的 4 个名字和形状相符，实际缺 1.weight、1.bias；"
        "形状不同：0.weight 应为 (2, 4)，实际是 (2, 3)。"
        "请用存它时的参数重建模型，或换成这个模型的存档。"
    )
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_mismatch_names_at_most_three_of_each_kind():
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(4)])
    with pytest.raises(MismatchError, match=r"缺 0\.weight、0\.bias、1\.weight 等 8 个；多出 x。"):
        check_matches(model, {"x": torch.ones(1)})
    state = {name: torch.ones(2, 2) for name in model.state_dict()}
    with pytest.raises(MismatchError, match=r"0\.bias 应为 \(1,\)，实际是 \(2, 2\).* 等 8 个。"):
        check_matches(model, state)
    check_matches(model, model.state_dict())


def test_a_cut_missing_or_foreign_file_is_refused(tmp_path):
    path = export_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")
    raw = path.read_bytes()
    for content in (b"", raw[:20], raw[:-1], b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(CorruptCheckpointError, match=r"w\.safetensors 应是完整的"):
            import_weights(nn.Linear(3, 2), path)
    with pytest.raises(CorruptCheckpointError, match="读不出来"):
        import_weights(nn.Linear(3, 2), tmp_path / "none.safetensors")


def test_an_export_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = export_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")
    before = path.read_bytes()

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("companion._common.sync_file", full)
    with pytest.raises(CheckpointError, match=r"实际没有写成.*原来的文件没有动"):
        export_weights(nn.Linear(3, 2), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        pass


def test_a_state_that_is_no_tensor_cannot_be_exported(tmp_path):
    with pytest.raises(ArgumentError, match="safetensors 只装张量，实际 _extra_state 是 dict"):
        export_weights(Extra(1, 1), tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


# —— 装不进去的种类


def strange_weights():
    value = torch.ones(2, 3)
    yield "meta", value.to("meta")
    yield "sparse", value.to_sparse()
    yield "csr", value.to_sparse_csr()
    yield "quantized", torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)
    for dtype in (torch.bool, torch.int64, torch.uint8, torch.complex64, torch.complex32):
        yield str(dtype), value.to(dtype)
    yield "a number", 5
    yield "nothing", None
    yield "a list", [[1.0] * 3] * 2
    yield "an array", value.numpy()


@pytest.mark.filterwarnings("ignore:torch.quantize_per", "ignore:Sparse", "ignore:Complex")
def test_a_weight_that_cannot_be_cast_safely_is_refused_by_name():
    model = nn.Linear(3, 2)
    for kind, value in strange_weights():
        with pytest.raises(MismatchError, match="weight 应为") as caught:
            check_matches(model, {"weight": value, "bias": torch.ones(2)})
        assert "bias" not in str(caught.value), kind


def test_a_weight_of_another_precision_is_accepted():
    for ours, theirs in itertools.product(
        (torch.float64, torch.float32, torch.bfloat16, torch.float8_e5m2), repeat=2
    ):
        check_matches(
            nn.Linear(3, 2).to(ours),
            {"weight": torch.ones(2, 3).to(theirs), "bias": torch.ones(2).to(theirs)},
        )
    counter = nn.BatchNorm1d(2)
    state = counter.state_dict() | {"num_batches_tracked": torch.tensor(3, dtype=torch.int32)}
    check_matches(counter, state)
    for wrong in (3.0, True, 3j):
        with pytest.raises(MismatchError, match="num_batches_tracked 应为"):
            check_matches(counter, state | {"num_batches_tracked": torch.tensor(wrong)})


def test_weights_that_are_no_dictionary_of_names_are_refused():
    for weights in (None, 5, [("weight", 1)], "weight", torch.ones(2)):
        with pytest.raises(MismatchError, match="权重应是名字到张量的字典"):
            check_matches(nn.Linear(3, 2), weights)
    with pytest.raises(MismatchError, match="多出"):
        check_matches(nn.Linear(3, 2), nn.Linear(3, 2).state_dict() | {5: 1, (1, 2): 2})


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_a_file_with_weights_of_another_kind_leaves_the_model_as_it_is(tmp_path, dtype):
    from safetensors.torch import save_file

    model = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {"weight": torch.ones(2, 3, dtype=dtype), "bias": torch.zeros(2)}
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(MismatchError, match="weight 应为"):
        import_weights(model, tmp_path / "w.safetensors")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="这个系统没有管道")
def test_a_pipe_or_a_folder_is_no_weights_file_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(CorruptCheckpointError, match="应是 safetensors 文件"):
            import_weights(nn.Linear(3, 2), path)


# —— 什么样的张量都原样回来，或者不写


class Holds(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.register_buffer("value", value)


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
Z = torch.complex(X[:2], X[2:])
EXPORTED = {
    "conjugate": Z.conj(),
    "negative": Z.conj().imag,
    "both": Z.mH.imag,
    "conjugate transposed": Z.mH,
    "expanded": X[:, :1].expand(4, 5),
    "transposed": X.t(),
    "sliced": X[:, 1:3],
    "strided": X[::2, ::3],
    "channels last": X.view(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "no dimensions": torch.tensor(2.5),
    "one conjugate": torch.tensor(1 + 2j).conj(),
    "empty": torch.empty(0, 3),
    "bool": X > 0,
    "uint16": torch.tensor([1, 65535]).to(torch.uint16),
    "uint64": torch.tensor([-1]).to(torch.uint64),
    "bfloat16": X.bfloat16(),
    "float8": X.to(torch.float8_e4m3fn),
    "float8 of powers": X.abs().to(torch.float8_e8m0fnu),
    "float4": torch.arange(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    "nan and -0": torch.tensor([float("nan"), -0.0, float("-inf")]),
}


def bits(value):
    value = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    return value.resolve_neg().contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("kind", EXPORTED)
def test_every_dense_tensor_comes_back_bit_for_bit(tmp_path, kind):
    value = EXPORTED[kind]
    model, other = Holds(value), Holds(torch.empty_like(value).contiguous())
    path = export_weights(model, tmp_path / "w.safetensors")
    for found in (
        safetensors.load_file(path)["value"],
        (import_weights(other, path), other.value)[1],
    ):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert torch.equal(bits(found), bits(value))


def test_a_tensor_and_its_conjugate_are_two_tensors_though_they_share_their_bytes(tmp_path):
    model, other = nn.Module(), nn.Module()
    for module, base in ((model, Z.clone()), (other, torch.zeros_like(Z))):
        module.register_buffer("one", base)
        module.register_buffer("two", base.conj() if module is model else base.clone())
    import_weights(other, export_weights(model, tmp_path / "w.safetensors"))
    assert torch.equal(other.one, Z) and torch.equal(other.two, Z.conj())


REFUSED = {
    "strided nested": lambda: torch.nested.nested_tensor([X[0], X[1, :3]]),
    "jagged nested": lambda: torch.nested.nested_tensor([X, X[:2]], layout=torch.jagged),
    "meta": lambda: X.to("meta"),
    "sparse": X.to_sparse,
    "csr": X.to_sparse_csr,
    "mkldnn": X.to_mkldnn,
    "quantized": lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8),
    "complex32": lambda: Z.to(torch.complex32),
    "complex128": lambda: Z.to(torch.complex128),
    "uint1": lambda: torch.zeros(2, dtype=torch.uint8).view(torch.uint1),
}
QUIET = ("The PyTorch API of nested", "Sparse CSR", "torch.quantize_per", "ComplexHalf", "Complex")


@pytest.mark.filterwarnings(*(f"ignore:{start}" for start in QUIET))
@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_not_come_back_is_refused_in_one_line_before_anything_is_written(tmp_path, kind):
    if kind == "mkldnn" and not torch.backends.mkldnn.is_available():
        pytest.skip("没有 mkldnn")
    with pytest.raises(ArgumentError, match=r"safetensors 只装.*实际 value .*请") as caught:
        export_weights(Holds(REFUSED[kind]()), tmp_path / "new" / "w.safetensors")
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings(*(f"ignore:{start}" for start in QUIET))
@pytest.mark.parametrize("kind", ["strided nested", "jagged nested", "meta", "quantized", "uint1"])
def test_a_save_refuses_what_it_could_not_read_back(tmp_path, kind):
    with pytest.raises(ArgumentError, match=r"state\.value 应是"):
        save_checkpoint(tmp_path / "new", {"value": REFUSED[kind]()}, step=1)
    assert list(tmp_path.iterdir()) == []


# —— 装进窄一些的 dtype

TOO_WIDE = {
    "int64 to uint8": (torch.tensor([300]), torch.uint8),
    "negative to unsigned": (torch.tensor([-1], dtype=torch.int8), torch.uint8),
    "uint64 to int64": (torch.tensor([-1]).to(torch.uint64), torch.int64),
    "float32 to float16": (torch.tensor([1e6]), torch.float16),
    "float64 to float32": (torch.tensor([1e300], dtype=torch.float64), torch.float32),
    "float32 to float8": (torch.tensor([1e6]), torch.float8_e5m2),
    "float8 that saturates": (torch.tensor([1e6]), torch.float8_e4m3fn),
    "infinity to float8": (torch.tensor([float("inf")]), torch.float8_e4m3fn),
    "a sign to powers": (torch.tensor([-1.0]), torch.float8_e8m0fnu),
    "complex": (torch.tensor([1e300j], dtype=torch.complex128), torch.complex64),
}
ROUNDED = {
    "float64 to float32": (torch.tensor([1 / 3, 1e-300], dtype=torch.float64), torch.float32),
    "float32 to bfloat16": (torch.tensor([1 / 3, 3e38]), torch.bfloat16),
    "float32 to float8": (torch.tensor([1 / 3, 400.0, 1e-9]), torch.float8_e4m3fn),
    "inf and nan": (torch.tensor([float("-inf"), float("nan")]), torch.float16),
    "int64 to uint8": (torch.tensor([0, 255]), torch.uint8),
    "int8 to int64": (torch.tensor([-128, 127], dtype=torch.int8), torch.int64),
}


@pytest.mark.parametrize("kind", TOO_WIDE)
def test_a_number_out_of_the_range_of_the_model_is_refused_by_name(kind):
    value, dtype = TOO_WIDE[kind]
    model = Holds(torch.ones(1).to(dtype))
    wanted = rf"装不下：value 应为 {dtype}，实际是 {value.dtype}，有的数超出了范围。"
    with pytest.raises(MismatchError, match=wanted):
        check_matches(model, {"value": value})
    assert torch.equal(bits(model.value), bits(torch.ones(1).to(dtype)))


@pytest.mark.parametrize("kind", ROUNDED)
def test_rounding_is_allowed(kind):
    value, dtype = ROUNDED[kind]
    check_matches(Holds(torch.empty(value.shape, dtype=dtype)), {"value": value})


def test_a_file_out_of_range_leaves_the_model_alone(tmp_path):
    model = Holds(torch.ones(1, dtype=torch.uint8))
    path = export_weights(Holds(torch.tensor([300])), tmp_path / "w.safetensors")
    with pytest.raises(MismatchError, match="有的数超出了范围"):
        import_weights(model, path)
    assert model.value.item() == 1
