import pickle
import struct
import sys
import zipfile

import pytest
import torch
from torch import nn

from companion.checkpoint import load_checkpoint, newest_good, save_checkpoint, verify
from companion.errors import ArgumentError, CheckpointError
from tests.companion.checkpoint.hostile import (
    attributes,
    name,
    number,
    numbers,
    reseal,
    state,
    storage,
    tensor,
    text,
    write_zip,
)

SETS = (
    b"(" + b"N}" + text("owned") + b"K\x01s" + b"t"
)  # (None, {"owned": 1})，交给 BUILD 就是 setattr
GOOD = tensor((2, 2), (2, 1))


def refused(tmp_path, write):
    """``write`` 写了第二个存档的 ``state.pt``：拒绝，什么也没有变，用的是前一个。"""
    good = save_checkpoint(tmp_path, {"w": torch.ones(2)}, step=1)
    bad = save_checkpoint(tmp_path, {"w": torch.ones(2)}, step=2)
    write(bad / "state.pt")
    reseal(bad)
    assert verify(bad) == {"step": 2}
    before = attributes()
    with pytest.raises(CheckpointError):
        load_checkpoint(bad)
    lines = []
    assert newest_good(tmp_path, lines.append).path == good
    assert attributes() == before
    assert len(lines) == 1 and lines[0].isprintable() and bad.name in lines[0]


def test_a_hand_written_archive_of_a_plain_tensor_is_loaded(tmp_path):
    path = save_checkpoint(tmp_path, {}, step=1)
    write_zip(path / "state.pt", state(GOOD), [struct.pack("<4f", 1, 2, 3, 4)])
    reseal(path)
    assert load_checkpoint(path)[0]["w"].tolist() == [[1, 2], [3, 4]]


def test_an_archive_of_a_machine_with_the_other_byte_order_is_loaded(tmp_path):
    path = save_checkpoint(tmp_path, {}, step=1)
    order = "<" if sys.byteorder == "big" else ">"
    write_zip(path / "state.pt", state(GOOD), [struct.pack(f"{order}4f", 1, 2, 3, 4)])
    with zipfile.ZipFile(path / "state.pt", "a") as archive:
        archive.writestr("archive/byteorder", "big" if order == ">" else "little")
    reseal(path)
    assert load_checkpoint(path)[0]["w"].tolist() == [[1, 2], [3, 4]]


NAMES = [
    *("collections.OrderedDict", "collections.Counter", "torch.Tensor", "torch.Size"),
    *("torch.FloatStorage", "torch.storage.UntypedStorage", "torch.nn.parameter.Parameter"),
    *("torch._utils._rebuild_tensor_v2", "torch.serialization._get_layout", "torch.float32"),
    *("_codecs.encode", "builtins.complex", "__builtin__.object", "builtins.type"),
    *("torch.load", "os.system", "companion.checkpoint._archive._Thing", "__main__.x"),
    *("companion.checkpoint._archive.read_archive", "pathlib.Path"),
]  # fmt: skip


@pytest.mark.parametrize("full", NAMES)
@pytest.mark.parametrize(
    "state_of_it", [SETS, b"}" + text("owned") + b"K\x01s"], ids=["slots", "dict"]
)
def test_a_state_is_never_set_on_a_class_or_function(tmp_path, full, state_of_it):
    for made in (name(full), name(full) + b")R", name(full) + b")\x81"):
        folder = tmp_path / str(len(made)) / str(made[-1])
        refused(folder, lambda path, made=made: write_zip(path, state(made + state_of_it + b"b")))


@pytest.mark.parametrize("full", NAMES)
def test_a_class_or_function_itself_is_never_handed_out(tmp_path, full):
    refused(tmp_path, lambda path: write_zip(path, state(name(full))))


LAYOUT = name("torch.serialization._get_layout") + b"(" + text("torch.sparse_coo") + b"tR"

CALLS = {
    "torch.Tensor": numbers(10**12),
    "torch.HalfTensor": numbers(10**12),
    "torch.sparse.FloatTensor": b")",
    "builtins.bytearray": numbers(10**12),
    "builtins.bytes": numbers(10**12),
    "builtins.set": b"(" + b"]" + b"t",
    "builtins.complex": b"(" + text("1" * 1000) + b"t",
    "torch.device": b"(" + text("cuda:0") + b"t",
    "torch.Size": numbers(1),
    "_codecs.encode": b"(" + text("x") + text("rot13") + b"t",
    "torch.storage.UntypedStorage": numbers(10**6),
    "torch._utils._rebuild_device_tensor_from_numpy": b"(" + b"N" * 4 + b"t",
    "collections.OrderedDict": b"(" + b"]" + b"t",
    "torch.nn.parameter.Parameter": b"(" + GOOD + b"t",
    "torch._utils._rebuild_parameter": b"(" + GOOD + b"\x89N" + b"t",
    "torch._utils._rebuild_meta_tensor_no_storage": (
        b"(" + name("torch.float32") + numbers(2) + numbers(1) + b"\x89" + b"t"
    ),
    "torch._utils._rebuild_wrapper_subclass": b"(" + name("torch.Tensor") + b"t",
    "torch._utils._rebuild_qtensor": b"(" + storage("QInt8Storage") + b"t",
    "torch._tensor._rebuild_from_type_v2": (
        b"(" + name("torch.serialization._get_layout") + name("torch.Tensor")
        + b"(" + text("torch.strided") + b"t" + SETS + b"t"
    ),
    "torch.serialization._get_layout": b"(" + text("torch.strided") + b"t",
    "torch._utils._rebuild_sparse_tensor": (
        b"(" + name("torch.serialization._get_layout") + b"(" + text("torch.sparse_coo") + b"tR"
        + b"(" + GOOD + GOOD + numbers(10**9) + b"\x88" + b"t" + b"t"
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize("full", CALLS)
def test_a_call_that_makes_no_plain_value_is_refused(tmp_path, full):
    refused(tmp_path, lambda path: write_zip(path, state(name(full) + CALLS[full] + b"R")))


SPARSE = (
    name("torch._utils._rebuild_sparse_tensor") + b"(" + LAYOUT
    + b"(%b%b" + name("torch.Size") + b"(" + numbers(10**9) + b"tR" + b"\x88" + b"t" + b"tR"
)  # fmt: skip
VIEWS = {
    "past the end": tensor((5,), (1,)),
    "offset past the end": tensor((4,), (1,), offset=1),
    "far offset": tensor((1,), (1,), offset=2**59),
    "stride past the end": tensor((2,), (4,)),
    "a huge expanded": tensor((10**6, 10**6), (0, 0)),
    "a huge unfolded": tensor((10**8, 2, 2), (0, 1, 1)),
    "negative stride": tensor((2,), (-1,), offset=1),
    "negative size": tensor((-2,), (1,)),
    "negative offset": tensor((1,), (1,), offset=-1),
    "sizes and strides differ": tensor((2, 2), (1,)),
    "too many dimensions": tensor((1,) * 1000, (1,) * 1000),
    "beyond int64": tensor((0, 2**70), (1, 1)),
    "a claimed big storage": tensor((100,), (1,), store=storage(count=100)),
    "no such storage": tensor((1,), (1,), store=storage(key="7")),
    "a path as key": tensor((1,), (1,), store=storage(key="../version")),
    "no such dtype": tensor((1,), (1,), store=storage("QInt8Storage")),
    "untyped": tensor((1,), (1,), store=storage("storage.UntypedStorage")),
    "no storage": tensor((1,), (1,), store=b"N"),
    "a storage alone": storage(),
    "with a hook": tensor((1,), (1,)).replace(
        name("collections.OrderedDict") + b")R", b"}K\x00" + name("torch.Size") + b"s"
    ),
    "with a gradient": tensor((1,), (1,)).replace(b"\x89", b"\x88"),
    "a huge sparse": SPARSE % (tensor((1, 10**12), (0, 0)), tensor((10**12,), (0,))),
    "a sparse with wrong places": SPARSE % (tensor((1, 4), (4, 1)), tensor((4,), (1,))),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, kind):
    refused(tmp_path, lambda path: write_zip(path, state(VIEWS[kind])))


def laughs(levels, pair=b"\x86"):
    """一层层的 ``(x, x)``：文件很短，展开来有 2 的 ``levels`` 次方。"""
    return b"K\x01" + b"".join(b"q\x00h\x00" + pair for _ in range(levels))


LONG = 1 << 20
BOMBS = {
    "deep lists": state(b"]" * 200_000 + b"a" * 199_999),
    "deep tuples": state(b")" + b"\x85" * 200_000),
    "a deep key": b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
    "a wide key": b"\x80\x02}" + laughs(60) + b"K\x01s.",
    "billion laughs": state(laughs(60)),
    "itself": state(b"]q\x00h\x00a"),
    "colliding keys": b"\x80\x02}" + b"".join(
        number(i * (2**61 - 1)) + b"Ns" for i in range(1, 9)) + b".",
    "long names": b"\x80\x02]" + text("x" * LONG) + b"q\x00a" + b"h\x00h\x00\x93a" * 1000 + b".",
    "long bytes": b"\x80\x02]q\x01" + b"h\x01" + text("x" * LONG) + b"q\x00a"
    + (b"h\x01" + name("_codecs.encode") + b"h\x00" + text("latin1") + b"\x86Raa") * 200 + b".",
    "a big declared string": b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"x.",
    "a big declared bytearray": b"\x80\x05\x96" + (2**60).to_bytes(8, "little") + b"x.",
    "a far memo": state(b"]r\xff\xff\xff\xff" + b"j\xfe\xff\xff\xffa"),
    "a slow key": state(b")" + b"K\x01\x86" * 200_000 + b"q\x00}h\x00K\x01sK\x02\x86"),
    "a shared tuple": state(b"K\x01K\x02\x86q\x00h\x00\x86"),
    "a slow codec": state(name("_codecs.encode") + text("é" * LONG) + text("punycode") + b"\x86R"),
    "an empty stack": b"\x80\x02.",
    "two values": b"\x80\x02NN.",
    "no end": b"\x80\x02N",
    "a missing mark": b"\x80\x02t.",
    "an extension": b"\x80\x02\x82\x01.",
    "an instance": b"(ios\nsystem\n.",
    "an out-of-band buffer": b"\x80\x05\x97.",
    "a list as key": b"\x80\x02}]Ns.",
    "appending to a tuple": state(b")K\x01a"),
    "a persistent name": state(name("os.system") + b"Q"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_pickle_that_would_grow_or_is_malformed_is_refused_in_little_memory(tmp_path, kind):
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path, lambda path: write_zip(path, BOMBS[kind]))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 << 10  # KB


def overlapping(path):
    """两块存储指着文件里的同一段。"""
    write_zip(path, state(GOOD), [b"\0" * 16, b"\0" * 16])
    raw = bytearray(path.read_bytes())
    first, second = (
        raw.find(b"PK\1\2", raw.find(b"archive/data/0", raw.find(b"PK\1\2")) - 46),
    ) * 2
    second = raw.find(b"PK\1\2", first + 4)
    raw[second + 42 : second + 46] = raw[first + 42 : first + 46]
    path.write_bytes(raw)


def twice(path):
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", state(GOOD))
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", b"\0" * 16)


def patched(field, value):
    """中央目录里每一项从第 ``field`` 个字节起改成 ``value``。"""

    def write(path):
        write_zip(path, state(GOOD))
        raw, at = bytearray(path.read_bytes()), -1
        while (at := raw.find(b"PK\1\2", at + 1)) >= 0:
            raw[at + field : at + field + len(value)] = value
        path.write_bytes(raw)

    return write


def prefixed(path):
    """前面多出一段；有的读法把位置都往后挪，有的不挪。"""
    write_zip(path, state(GOOD))
    path.write_bytes(b"\0" * 100 + path.read_bytes())


def two_directories(path):
    """末尾有两个目录，各说各的。"""
    write_zip(path, b"\x80\x02}.")
    first = path.read_bytes()
    write_zip(path, state(GOOD))
    path.write_bytes(first + path.read_bytes())


def zip64_elsewhere(path):
    """zip64 的末尾指着别处。"""
    torch.save({"w": torch.ones(2)}, path)
    raw = bytearray(path.read_bytes())
    raw[-34:-26] = (0).to_bytes(8, "little")
    path.write_bytes(raw)


def other_case(path):
    write_zip(path, state(GOOD))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/DATA.PKL", b"\x80\x02}.")


def script(path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


ARCHIVES = {
    "deflated": lambda path: write_zip(path, state(GOOD), method=zipfile.ZIP_DEFLATED),
    "a deflated bomb": lambda path: write_zip(
        path, state(GOOD), [b"\0" * (64 << 20)], method=zipfile.ZIP_DEFLATED),
    "bzip2": lambda path: write_zip(path, state(GOOD), method=zipfile.ZIP_BZIP2),
    "lzma": lambda path: write_zip(path, state(GOOD), method=zipfile.ZIP_LZMA),
    "overlapping": overlapping,
    "two of one name": twice,
    "two of one name in another case": other_case,
    "something before": prefixed,
    "two directories": two_directories,
    "zip64 elsewhere": zip64_elsewhere,
    "a comment": lambda path: (write_zip(path, state(GOOD)), path.write_bytes(
        path.read_bytes()[:-2] + b"\1\0x")),
    "encrypted": patched(8, b"\1\0"),
    "a lying size": patched(24, b"\xff\xff\xff\x7f"),
    "lying sizes": patched(20, b"\xff\xff\xff\x7f\xff\xff\xff\x7f"),
    "zip64 without its fields": patched(20, b"\xff" * 8),
    "a far header": patched(42, b"\xff\xff\xff\x7f"),
    "legacy": lambda path: torch.save(
        {"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False),
    "TorchScript": script,
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"w": 1})),
    "nothing": lambda path: path.write_bytes(b""),
    "a zip without data.pkl": lambda path: zipfile.ZipFile(path, "w").close(),
    "a parameter": lambda path: torch.save({"w": nn.Parameter(torch.ones(2))}, path),
    "a module": lambda path: torch.save({"w": nn.Linear(2, 2)}, path),
    "a dtype": lambda path: torch.save({"w": torch.float32}, path),
    "meta": lambda path: torch.save({"w": torch.empty(2, device="meta")}, path),
    "a list outside": lambda path: torch.save([torch.ones(2)], path),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_file_that_is_no_uncompressed_archive_of_plain_values_is_refused(tmp_path, kind):
    refused(tmp_path, ARCHIVES[kind])


def test_every_kind_of_plain_value_comes_back(tmp_path):
    value = {
        "a": [1, -1, 255, 256, 70000, 2**40, -(2**100), True, False, None, 1.5, "字\ud800", ""],
        (1, "b"): ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[], {}]),
        "bytes": [b"", b"x", b"x", b"\xff" * 99, bytes(range(256)), [b"", b"y"]],
        "long": list(range(3000)),
        **{f"k{i}": {i: i, None: 1j, True: "long" * 99, 0.5: "long" * 99} for i in range(2000)},
    }
    assert load_checkpoint(save_checkpoint(tmp_path, value, step=1))[0] == value


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", ["meta", "quantized"])
def test_a_tensor_that_could_not_be_loaded_is_refused_when_saving(tmp_path, kind):
    value = torch.ones(2, device="meta")
    if kind == "quantized":
        value = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(ArgumentError, match=r"state\.w 应是有数值"):
        save_checkpoint(tmp_path, {"w": value}, step=1)


def test_a_key_that_could_not_be_loaded_is_refused_when_saving(tmp_path):
    for key in (2**61, ((1, 2), 3), tuple(range(9))):
        with pytest.raises(ArgumentError, match="的键应是"):
            save_checkpoint(tmp_path, {"w": {key: 1}}, step=1)


def test_a_big_expanded_tensor_is_written_in_full_and_comes_back(tmp_path):
    tensor = torch.arange(3.0)[:, None].expand(3, 10**6)
    path = save_checkpoint(tmp_path, {"w": tensor}, step=1)
    assert torch.equal(load_checkpoint(path)[0]["w"], tensor)
