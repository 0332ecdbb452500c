import io
import itertools
import pickle
import random
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    MetadataIndex,
)

from companion.checkpoint import (
    is_sharded,
    load_sharded,
    load_sharded_weights,
    newest_good,
    save_sharded,
    verify,
)
from companion.checkpoint._chunks import Chunk, _check_tiles
from companion.errors import CheckpointError, MismatchError
from tests.companion.checkpoint.hostile import attributes, name, reseal, text

FIXTURE = Path(__file__).parent / "fixtures" / "format-1-sharded" / "save-00001-step-3"
WEIGHT = "model.weight"


def make(seed=0, steps=1):
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


def everything(model, optimizer):
    """全部的数，写成字节。"""
    buffer = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], buffer)
    return buffer.getvalue()


def refused(tmp_path, damage):
    """``damage`` 改了第二个存档：拒绝，什么也没有变，用的是前一个。"""
    good = save_sharded(tmp_path / "saves", *make(), {"epoch": 1}, step=1)
    bad = save_sharded(tmp_path / "saves", *make(1), {"epoch": 2}, step=2)
    damage(bad)
    reseal(bad)
    assert verify(bad) == {"step": 2}
    model, optimizer = make(2)
    before, numbers = attributes(), everything(model, optimizer)
    for load in (
        lambda: load_sharded(bad, model, optimizer),
        lambda: load_sharded_weights(bad, model),
    ):
        with pytest.raises(CheckpointError):
            load()
        assert everything(model, optimizer) == numbers
    lines = []
    assert newest_good(tmp_path / "saves", lines.append).path == good
    assert attributes() == before
    assert len(lines) == 1 and lines[0].isprintable() and bad.name in lines[0]


def change(edit):
    """照 ``edit`` 改 ``.metadata``；它是我们自己刚写的，可以放心用 pickle 读。"""

    def damage(save):
        path = save / ".metadata"
        metadata = pickle.loads(path.read_bytes())
        edit(metadata)
        path.write_bytes(pickle.dumps(metadata))

    return damage


def place(metadata, key=WEIGHT):
    (found,) = [place for index, place in metadata.storage_data.items() if index.fqn == key]
    return found


def entry(metadata, key=WEIGHT):
    return metadata.state_dict_metadata[key]


def replaced(metadata, *chunks, size=None):
    """权重换成这些片，每片都有自己的位置（都指着原来的那一段）。"""
    where = place(metadata)
    entry(metadata).size = torch.Size(size or (2, 3))
    entry(metadata).chunks = []
    metadata.storage_data = {
        index: found for index, found in metadata.storage_data.items() if index.fqn != WEIGHT
    }
    for offsets, sizes in chunks:
        entry(metadata).chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
        metadata.storage_data[MetadataIndex(WEIGHT, offsets)] = where


def tuples(chunk, offsets, sizes):
    chunk.offsets, chunk.sizes = offsets, sizes


EDITS = {
    "no chunks": lambda m: [v.chunks.clear() for v in m.state_dict_metadata.values()],
    "one chunk less": lambda m: entry(m, "model.bias").chunks.clear(),
    "the same chunk twice": lambda m: replaced(m, ((0, 0), (2, 3)), ((0, 0), (2, 3))),
    "half": lambda m: replaced(m, ((0, 0), (1, 3))),
    "overlapping": lambda m: replaced(m, ((0, 0), (2, 3)), ((1, 0), (1, 3))),
    "shared bytes": lambda m: replaced(m, ((0, 0), (1, 3)), ((1, 0), (1, 3))),
    "outside": lambda m: replaced(m, ((1, 0), (2, 3))),
    "too big": lambda m: replaced(m, ((0, 0), (3, 3))),
    "a hole in the corner": lambda m: replaced(m, ((0, 0), (1, 3)), ((1, 0), (1, 2))),
    "negative": lambda m: tuples(entry(m).chunks[0], (-1, 0), (2, 3)),
    "not a size": lambda m: tuples(entry(m).chunks[0], [0, 0], [2, 3]),
    "true as a number": lambda m: tuples(entry(m).chunks[0], (False, 0), (2, 3)),
    "other dimensions": lambda m: replaced(m, ((0,), (6,))),
    "a huge shape": lambda m: replaced(m, ((0, 0), (10**8, 10**7)), size=(10**8, 10**7)),
    "a huge extra": lambda m: m.state_dict_metadata.update(
        {"model.extra": type(entry(m))(entry(m).properties, torch.Size([10**15]), [])}),
    "another shape": lambda m: replaced(m, ((0, 0), (3, 2)), size=(3, 2)),
    "another dtype": lambda m: setattr(entry(m).properties, "dtype", torch.int32),
    "a complex dtype": lambda m: setattr(entry(m).properties, "dtype", torch.complex64),
    "a quantized dtype": lambda m: setattr(entry(m).properties, "dtype", torch.qint8),
    "a bytes entry": lambda m: m.state_dict_metadata.update({WEIGHT: BytesStorageMetadata()}),
    "a missing moment": lambda m: m.state_dict_metadata.pop("optimizer.weight:exp_avg"),
    "no place": lambda m: m.storage_data.clear(),
    "no places": lambda m: setattr(m, "storage_data", None),
    "two tensors with one list": lambda m: setattr(
        entry(m), "chunks", entry(m, "optimizer.weight:exp_avg").chunks),
    "a parent folder": lambda m: setattr(place(m), "relative_path", "../outside.distcp"),
    "a detour": lambda m: setattr(place(m), "relative_path", "./__0_0.distcp"),
    "a number as path": lambda m: setattr(place(m), "relative_path", 0),
    "the manifest": lambda m: setattr(place(m), "relative_path", "manifest.json"),
    "rest.pt": lambda m: setattr(place(m), "relative_path", "rest.pt"),
    "backwards": lambda m: setattr(place(m), "offset", -1),
    "far": lambda m: setattr(place(m), "offset", 2**50),
    "shorter": lambda m: setattr(place(m), "length", 8),
    "nothing long": lambda m: setattr(place(m), "length", 0),
    "longer": lambda m: setattr(place(m), "length", 2**50),
    "infinite": lambda m: setattr(place(m), "length", float("inf")),
    "shifted": lambda m: setattr(place(m), "offset", place(m).offset + 64),
    "transformed": lambda m: setattr(place(m), "transform_descriptors", ["zstd"]),
    "the place of another": lambda m: vars(place(m)).update(vars(place(m, "model.bias"))),
}  # fmt: skip


@pytest.mark.parametrize("kind", EDITS)
def test_a_description_that_does_not_fit_the_files_is_refused(tmp_path, kind):
    refused(tmp_path, change(EDITS[kind]))


def test_a_save_without_one_of_the_tensors_is_of_another_model(tmp_path):
    save = save_sharded(tmp_path, *make(), {}, step=1)
    change(lambda m: m.state_dict_metadata.pop(WEIGHT))(save)
    reseal(save)
    with pytest.raises(MismatchError, match="缺 weight"):
        load_sharded(save, *make(1))


def test_a_shard_outside_the_save_is_never_read(tmp_path):
    outside = tmp_path / "saves" / "outside.distcp"
    for path in ("../outside.distcp", str(outside)):

        def damage(save, path=path):
            change(lambda m: setattr(place(m), "relative_path", path))(save)
            outside.write_bytes((save / "__0_0.distcp").read_bytes())

        refused(tmp_path, damage)


CONTENTS = {
    "empty": b"",
    "a number": b"\x80\x02K\x01.",
    "a dictionary": pickle.dumps({"state_dict_metadata": {}, "storage_data": {}}),
    "a class": b"\x80\x02" + name("torch.distributed.checkpoint.metadata.Metadata") + b".",
    "a deep list": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "text": b"\xff\xfe hello",
}


@pytest.mark.parametrize("file", [".metadata", "rest.pt", "__0_0.distcp"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_with_something_else_is_refused(tmp_path, file, kind):
    refused(tmp_path, lambda save: (save / file).write_bytes(CONTENTS[kind]))


@pytest.mark.parametrize("file", [".metadata", "rest.pt", "__0_0.distcp"])
def test_a_missing_file_is_refused(tmp_path, file):
    def damage(save):
        (save / file).unlink()
        (save / "rest.pt").touch()

    refused(tmp_path, damage)


METADATA = "torch.distributed.checkpoint.metadata."
SETTABLE = [
    *(METADATA + x for x in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *(METADATA + x for x in ("TensorStorageMetadata", "ChunkStorageMetadata")),
    *(METADATA + "_MEM_FORMAT_ENCODING", "torch.distributed.checkpoint.filesystem._StorageInfo"),
    *("torch.serialization._get_layout", "torch.Size", "torch.float32", "pathlib.PosixPath"),
    *("pathlib.WindowsPath", "pathlib.PurePath", "torch.distributed.checkpoint.metadata.os"),
    *("companion.checkpoint._pickled.Made", "companion.checkpoint._chunks.Stored"),
]
STATES = {
    "slots": b"(N}" + text("x") + b"K\x01st",
    "dict": b"}" + text("x") + b"K\x01s",
    "both": b"(}" + text("x") + b"K\x01s}" + text("y") + b"K\x01st",
    "setstate": b"(}" + text("__setstate__") + name("builtins.print") + b"s}" + text("x")
    + b"K\x01st",
}  # fmt: skip


@pytest.mark.parametrize("full", SETTABLE)
@pytest.mark.parametrize("kind", STATES)
def test_no_attribute_of_a_class_or_function_is_set_by_a_description(tmp_path, full, kind):
    def damage(save):
        path = save / ".metadata"
        path.write_bytes(b"\x80\x04" + name(full) + STATES[kind] + b"b" + path.read_bytes())

    refused(tmp_path, damage)


def test_a_description_with_states_on_its_own_objects_changes_only_them(tmp_path):
    """就算不用 POP，把多余的状态夹在正当的对象之间，也只影响这一份描述。"""
    save = save_sharded(tmp_path, *make(), {}, step=1)
    extra = name(METADATA + "Metadata") + b")\x81" + STATES["slots"] + b"b"
    path = save / ".metadata"
    raw = pickle.dumps(pickle.loads(path.read_bytes()), 2)
    path.write_bytes(raw[:2] + b"(" + extra + raw[2:-1] + b"t.")
    reseal(save)
    before = attributes()
    with pytest.raises(CheckpointError):
        load_sharded(save, *make())
    assert attributes() == before


def change_rest(edit):
    def damage(save):
        content = torch.load(save / "rest.pt")
        content = edit(content) or content
        torch.save(content, save / "rest.pt")

    return damage


RESTS = {
    **{f"without {k}": (lambda c, k=k: c.pop(k) and None)
       for k in ("names", "keys", "optimizer", "rest")},
    "without a model": lambda c: {k: v for k, v in c.items() if k != "model"},
    "one more": lambda c: c.update(more=1),
    "a list": lambda c: [c],
    "nothing": lambda c: {"x": 1},
    "names as text": lambda c: c.update(names="ab"),
    "names as numbers": lambda c: c.update(names=[1, 2]),
    "keys of nobody": lambda c: c["keys"].update({7: ["step"]}),
    "keys as text": lambda c: c["keys"].update({0: "abc"}),
    "a key of nothing": lambda c: c["keys"][0].append("nothing"),
    "a key as list": lambda c: c["keys"][0].append(["step"]),
    "a state of nobody": lambda c: c["optimizer"]["state"].update({9: {}}),
    "a state as number": lambda c: c["optimizer"]["state"].update({0: 1}),
    "no groups": lambda c: c["optimizer"].pop("param_groups") and None,
    "empty groups": lambda c: c["optimizer"].update(param_groups=[]),
    "groups as numbers": lambda c: c["optimizer"].update(param_groups=[1]),
    "a group without parameters": lambda c: c["optimizer"].update(param_groups=[{"lr": 0.1}]),
    "a group with more parameters": lambda c: c["optimizer"]["param_groups"][0].update(params=[0]),
    "a model tensor": lambda c: c["model"].update(weight=torch.ones(2, 3)),
    "a model number": lambda c: c["model"].update(weight=5),
    "a shard that is not there": lambda c: c["rest"].update(e={"companion.sharded": "nowhere"}),
    "a shard named by a list": lambda c: c["rest"].update(e={"companion.sharded": [1]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", RESTS)
def test_a_rest_that_save_sharded_never_writes_is_refused(tmp_path, kind):
    good = save_sharded(tmp_path, *make(), {"epoch": 1}, step=1)
    bad = save_sharded(tmp_path, *make(1), {"epoch": 2}, step=2)
    change_rest(RESTS[kind])(bad)
    reseal(bad)
    model, optimizer = make(2)
    before, numbers = attributes(), everything(model, optimizer)
    with pytest.raises(CheckpointError):
        load_sharded(bad, model, optimizer)
    assert everything(model, optimizer) == numbers and attributes() == before
    found = newest_good(tmp_path, [].append)
    assert found.path in (good, bad)  # 与优化器对不对得上，要装的时候才知道


def test_every_tiling_that_is_accepted_covers_each_element_once():
    rng = random.Random(0)
    accepted = 0
    for _ in range(4000):
        shape = tuple(rng.randrange(4) for _ in range(rng.randrange(4)))
        cuts = [sorted({0, *(rng.randrange(n + 1) for _ in range(2)), n}) for n in shape]
        cells = [list(itertools.pairwise(cut)) or [(0, 0)] for cut in cuts]
        chunks = [
            Chunk(tuple(a for a, _ in cell), tuple(b - a for a, b in cell), "f", 0, 0)
            for cell in itertools.product(*cells)
        ]
        chunks = [chunk for chunk in chunks if np.prod(chunk.sizes)]
        _check_tiles("w", shape, chunks)  # 切得整齐的，都收
        for _ in range(rng.randrange(3)):
            if chunks:
                i = rng.randrange(len(chunks))
                kind = rng.randrange(4)
                moved = tuple(max(x + rng.randrange(-1, 2), 0) for x in chunks[i].offsets)
                sized = tuple(max(x + rng.randrange(-1, 2), 1) for x in chunks[i].sizes)
                if kind == 0:
                    chunks.pop(i)
                elif kind == 1:
                    chunks.append(chunks[i])
                else:
                    chunks[i] = chunks[i]._replace(offsets=moved, sizes=sized)
        counts = np.zeros([n + 9 for n in shape], int)
        for chunk in chunks:
            counts[tuple(slice(a, a + n) for a, n in zip(chunk.offsets, chunk.sizes))] += 1  # noqa: B905
        wanted = np.zeros_like(counts)
        wanted[tuple(slice(0, n) for n in shape)] = 1
        try:
            _check_tiles("w", shape, chunks)
        except ValueError:
            continue
        accepted += 1
        assert (counts == wanted).all()
    assert accepted > 1000


def written_from(metadata, path, module, protocol):
    """存在 ``path`` 里的 ``.metadata``；路径的类在 ``module`` 里，3.13 的是 ``pathlib._local``。"""
    there = sys.modules.get(module) or type(sys)(module)
    kind = type(type(path).__name__.removeprefix("Pure"), (), {"__module__": module})
    kind.__reduce__ = lambda self: (kind, path.parts)
    metadata.storage_meta.checkpoint_id = kind()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module, there)
        patch.setattr(there, kind.__name__, kind, raising=False)
        raw = pickle.dumps(metadata, protocol)
    assert module.encode() in raw and kind.__name__.encode() in raw
    return raw


@pytest.mark.parametrize("written_by", [PurePosixPath("/a/b"), PureWindowsPath("C:/a/b")], ids=str)
@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_save_of_any_python_and_system_is_loaded(tmp_path, written_by, module, protocol):
    save = save_sharded(tmp_path, *make(), {"epoch": 1}, step=1)
    path = save / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    path.write_bytes(written_from(metadata, written_by, module, protocol))
    reseal(save)
    model, optimizer = make(1)
    assert load_sharded(save, model, optimizer) == {"epoch": 1}
    assert everything(model, optimizer) == everything(*make())


def test_a_sharded_save_of_the_first_format_loads_with_its_exact_values():
    model, optimizer = make(5, steps=2)
    assert newest_good(FIXTURE.parent) == (FIXTURE, {"best": 0.25, "step": 3})
    assert load_sharded(FIXTURE, model, optimizer) == {"epoch": 1, "names": ["甲"]}
    assert torch.equal(model.weight, torch.arange(6.0).reshape(2, 3) / 8)
    assert model.bias.tolist() == [1.0, -2.0]
    assert optimizer.state_dict()["state"][0]["step"] == 1


def test_a_link_named_like_the_rest_does_not_make_a_save_sharded(tmp_path):
    save = save_sharded(tmp_path / "saves", *make(), {}, step=1)
    assert is_sharded(save)
    (save / "rest.pt").rename(tmp_path / "outside.pt")
    (save / "rest.pt").symlink_to(tmp_path / "outside.pt")
    assert not is_sharded(save)
    with pytest.raises(CheckpointError):
        load_sharded(save, *make())
