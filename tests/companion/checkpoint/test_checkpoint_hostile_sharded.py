import io
import itertools
import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

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
from tests.companion.checkpoint.hostile import attributes, name, reseal, text, write_zip

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
    """照 ``edit`` 改 ``chunks.json``。"""

    def damage(save):
        path = save / "chunks.json"
        listed = json.loads(path.read_bytes())
        edit(listed)
        path.write_text(json.dumps(listed))

    return damage


def chunk(listed, key=WEIGHT):
    (found,) = listed[key]["chunks"]
    return found


def place(**new):
    """权重的那一片换个地方。"""
    return lambda m: chunk(m).update(new)


def replaced(listed, *chunks, size=None):
    """权重换成这些片，都指着原来的那一段。"""
    where = chunk(listed)
    listed[WEIGHT]["shape"] = size or [2, 3]
    listed[WEIGHT]["chunks"] = [where | {"offsets": o, "sizes": s} for o, s in chunks]


EDITS = {
    "no chunks": lambda m: [v["chunks"].clear() for v in m.values()],
    "one chunk less": lambda m: m["model.bias"]["chunks"].clear(),
    "the same chunk twice": lambda m: replaced(m, ((0, 0), (2, 3)), ((0, 0), (2, 3))),
    "half": lambda m: replaced(m, ((0, 0), (1, 3))),
    "overlapping": lambda m: replaced(m, ((0, 0), (2, 3)), ((1, 0), (1, 3))),
    "shared bytes": lambda m: replaced(m, ((0, 0), (1, 3)), ((1, 0), (1, 3))),
    "outside": lambda m: replaced(m, ((1, 0), (2, 3))),
    "too big": lambda m: replaced(m, ((0, 0), (3, 3))),
    "a hole in the corner": lambda m: replaced(m, ((0, 0), (1, 3)), ((1, 0), (1, 2))),
    "an empty chunk more": lambda m: replaced(m, ((0, 0), (2, 3)), ((2, 0), (0, 3))),
    "negative": place(offsets=[-1, 0]),
    "no list of numbers": place(sizes="23"),
    "true as a number": place(offsets=[False, 0]),
    "a fraction": place(sizes=[2.0, 3]),
    "infinitely many": place(sizes=[float("inf"), 3]),
    "other dimensions": lambda m: replaced(m, ((0,), (6,))),
    "too many dimensions": lambda m: replaced(m, ([0] * 99, [1] * 99), size=[1] * 99),
    "a huge shape": lambda m: replaced(m, ((0, 0), (10**8, 10**7)), size=(10**8, 10**7)),
    "a huge extra": lambda m: m.update(
        {"model.extra": {"dtype": "torch.float32", "shape": [10**15], "chunks": []}}),
    "another shape": lambda m: replaced(m, ((0, 0), (3, 2)), size=(3, 2)),
    **{f"dtype {v!r:.20}": (lambda m, v=v: m[WEIGHT].update(dtype=v)) for v in (
        *("torch.int32", "torch.complex64", "torch.qint8", "torch.nn", "float32", "", None, []),)},
    "bytes": lambda m: m.update({WEIGHT: "AAAA"}),
    "one key less": lambda m: m[WEIGHT].pop("shape"),
    "one key more": lambda m: m[WEIGHT].update(more=1),
    "one key more in a chunk": place(more=1),
    "a missing moment": lambda m: m.pop("optimizer.weight:exp_avg"),
    "no place": lambda m: [chunk(m).pop(key) for key in ("file", "start", "length")],
    "no places": lambda m: m[WEIGHT].update(chunks=None),
    "two tensors with one list": lambda m: m[WEIGHT].update(
        chunks=m["optimizer.weight:exp_avg"]["chunks"]),
    "a parent folder": place(file="../outside.distcp"),
    "a detour": place(file="./__0_0.distcp"),
    "a number as path": place(file=0),
    "a list as path": place(file=["__0_0.distcp"]),
    "the manifest": place(file="manifest.json"),
    "rest.pt": place(file="rest.pt"),
    "backwards": place(start=-1),
    "far": place(start=2**50),
    "shorter": place(length=8),
    "nothing long": place(length=0),
    "longer": place(length=2**50),
    "infinite": place(length=float("inf")),
    "not a number": place(length=float("nan")),
    "a long number": place(length=10**4000),
    "shifted": lambda m: chunk(m).update(start=chunk(m)["start"] + 64),
    "the place of another": lambda m: chunk(m).update(
        {key: chunk(m, "model.bias")[key] for key in ("file", "start", "length")}),
}  # fmt: skip


@pytest.mark.parametrize("kind", EDITS)
def test_a_description_that_does_not_fit_the_files_is_refused(tmp_path, kind):
    refused(tmp_path, change(EDITS[kind]))


def test_a_save_without_one_of_the_tensors_is_of_another_model(tmp_path):
    save = save_sharded(tmp_path, *make(), {}, step=1)
    change(lambda m: m.pop(WEIGHT))(save)
    reseal(save)
    with pytest.raises(MismatchError, match="缺 weight"):
        load_sharded(save, *make(1))


def test_a_shard_outside_the_save_is_never_read(tmp_path):
    outside = tmp_path / "saves" / "outside.distcp"
    for path in ("../outside.distcp", str(outside)):

        def damage(save, path=path):
            change(place(file=path))(save)
            outside.write_bytes((save / "__0_0.distcp").read_bytes())

        refused(tmp_path, damage)


CONTENTS = {
    "empty": b"",
    "a number": b"\x80\x02K\x01.",
    "a number in JSON": b"1",
    "a list in JSON": b"[]",
    "nested lists": b"[" * 100_000,
    "nested dictionaries": b'{"":' * 100_000 + b"1" + b"}" * 100_000,
    "a dictionary": pickle.dumps({"model.weight": {}}),
    "a class": b"\x80\x02" + name("torch.distributed.checkpoint.metadata.Metadata") + b".",
    "text": b"\xff\xfe hello",
}


@pytest.mark.parametrize("file", ["chunks.json", "rest.pt", "__0_0.distcp"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_with_something_else_is_refused(tmp_path, file, kind):
    refused(tmp_path, lambda save: (save / file).write_bytes(CONTENTS[kind]))


@pytest.mark.parametrize("file", ["chunks.json", "rest.pt", "__0_0.distcp"])
def test_a_missing_file_is_refused(tmp_path, file):
    def damage(save):
        (save / file).unlink()
        (save / "rest.pt").touch()

    refused(tmp_path, damage)


def test_a_description_that_is_too_long_is_refused(tmp_path, monkeypatch):
    save = save_sharded(tmp_path, *make(), {}, step=1)
    monkeypatch.setattr("companion.checkpoint._chunks._MOST", 100)
    with pytest.raises(CheckpointError, match="应不超过 100 字节"):
        load_sharded(save, *make())


METADATA = "torch.distributed.checkpoint.metadata."
SETTABLE = [
    *(METADATA + x for x in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *(METADATA + x for x in ("TensorStorageMetadata", "ChunkStorageMetadata")),
    *(METADATA + "_MEM_FORMAT_ENCODING", "torch.distributed.checkpoint.filesystem._StorageInfo"),
    *("torch.serialization._get_layout", "torch.Size", "torch.float32", "pathlib.PosixPath"),
    *("pathlib.WindowsPath", "pathlib.PurePath", "torch.distributed.checkpoint.metadata.os"),
    *("companion.checkpoint._archive._Thing", "companion.checkpoint._chunks.Stored"),
]
STATES = {
    "slots": b"(N}" + text("x") + b"K\x01st",
    "dict": b"}" + text("x") + b"K\x01s",
    "both": b"(}" + text("x") + b"K\x01s}" + text("y") + b"K\x01st",
    "setstate": b"(}" + text("__setstate__") + name("builtins.print") + b"s}" + text("x")
    + b"K\x01st",
}  # fmt: skip
PLACES = {
    ".metadata": lambda path, raw: path.write_bytes(raw + path.read_bytes()),
    "rest.pt": lambda path, raw: write_zip(path, raw + b"}."),
    "__0_0.distcp": lambda path, raw: write_zip(path, raw + b"}."),
}


@pytest.mark.parametrize("full", SETTABLE)
@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("file", PLACES)
def test_no_attribute_of_a_class_or_function_is_set(tmp_path, full, kind, file):
    """``.metadata`` 是 pickle，从来不读，怎么改都装得下；别的都拒绝。"""
    save = save_sharded(tmp_path, *make(), {"epoch": 1}, step=1)
    PLACES[file](save / file, b"\x80\x02" + name(full) + STATES[kind] + b"b")
    reseal(save)
    before = attributes()
    if file == ".metadata":
        assert load_sharded(save, *make(1)) == {"epoch": 1}
    else:
        with pytest.raises(CheckpointError):
            load_sharded(save, *make(1))
    assert attributes() == before


@pytest.mark.parametrize("content", [None, b"", pickle.dumps(1), b"\xff" * 100])
def test_the_pickle_of_dcp_is_never_opened(tmp_path, content):
    save = save_sharded(tmp_path, *make(), {"epoch": 1}, step=1)
    (save / ".metadata").unlink()
    if content is not None:
        (save / ".metadata").write_bytes(content)
    reseal(save)
    model, optimizer = make(1)
    assert newest_good(tmp_path).path == save
    assert load_sharded(save, model, optimizer) == {"epoch": 1}
    assert everything(model, optimizer) == everything(*make())


def test_a_save_without_our_description_is_explained(tmp_path):
    save = save_sharded(tmp_path, *make(), {}, step=1)
    (save / "chunks.json").unlink()
    reseal(save)
    with pytest.raises(CheckpointError, match=r"应是这一版 save_sharded 写的.*chunks\.json"):
        load_sharded(save, *make())


@pytest.mark.parametrize("load", ["weights", "all"])
def test_numbers_out_of_the_range_of_the_model_are_refused_before_it_changes(tmp_path, load):
    model, optimizer = make()
    nn.init.constant_(model.weight, 1e6)
    save = save_sharded(tmp_path, model, optimizer, {}, step=1)
    half, its = make()
    half.half()
    before = half.weight.clone()
    with pytest.raises(MismatchError, match=r"weight 应为 torch\.float16.*有的数超出了范围"):
        load_sharded_weights(save, half) if load == "weights" else load_sharded(save, half, its)
    assert torch.equal(half.weight, before)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_save_is_readable_with_dcp_itself(tmp_path):
    model, optimizer = make()
    save = save_sharded(tmp_path, model, optimizer, {}, step=1)
    target = {WEIGHT: torch.zeros(2, 3)}
    dcp.load(target, checkpoint_id=save)
    assert torch.equal(target[WEIGHT], model.weight)


def change_rest(edit):
    def damage(save):
        content = torch.load(save / "rest.pt")
        content = edit(content) or content
        torch.save(content, save / "rest.pt")

    return damage


def one_more(parameter):
    """多出一个参数的状态，两处说法一致。"""

    def edit(content):
        content["keys"][parameter] = []
        content["optimizer"]["state"][parameter] = {}

    return edit


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
    "a negative parameter": one_more(-1),
    "one parameter too many": one_more(7),
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
