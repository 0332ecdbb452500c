import contextlib
import json
import os
import socket

import pytest
import torch

from companion.checkpoint import (
    clean,
    load_checkpoint,
    newest_good,
    prune,
    read_info,
    save_checkpoint,
    saves,
    verify,
)
from companion.checkpoint._folder import next_name
from companion.checkpoint._manifest import _seal
from companion.errors import CheckpointError
from tests.companion.checkpoint.hostile import reseal, write_sealed

HEX = "0" * 64


def refused(folder, bad, good):
    """各种读法都拒绝 ``bad``，然后用 ``good``；印出来的一行放心可印。"""
    for read in (verify, load_checkpoint):
        with pytest.raises(CheckpointError):
            read(bad)
    lines = []
    assert newest_good(folder, lines.append).path == good
    assert len(lines) == 1 and lines[0].isprintable() and bad.name in lines[0]
    lines[0].encode()


def two(folder):
    return [save_checkpoint(folder, {"w": torch.ones(2)}, step=step) for step in (1, 2)]


def file(**change):
    """清单里 ``state.pt`` 那一条改一改。"""
    return lambda content: content["files"]["state.pt"].update(change)


def more(name, size=0):
    """清单里多一个文件。"""
    return lambda content: content["files"].update({name: {"bytes": size, "sha256": HEX}})


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


MANIFESTS = {
    **{f"format {v!r:.9}": (lambda c, v=v: c.update(format=v)) for v in (
        *(True, 1.0, float("inf"), float("nan"), "1", None, [], 0, -1, 10**30, 10**4000),)},
    **{f"sha256 {v!r:.9}": file(sha256=v) for v in (
        *(5, None, [], HEX[1:], HEX + "0", "g" * 64, "٠" * 64, HEX + "\n", "A" * 64),)},
    **{f"bytes {v!r:.9}": file(bytes=v) for v in (
        *(True, 1.5, -1, "1", None, float("inf"), 10**30, 10**4000),)},
    **{f"files {v!r:.9}": (lambda c, v=v: c.update(files=v)) for v in (
        *([], None, 5, "state.pt", {"state.pt": 5}, {"state.pt": []}),)},
    **{f"info {v!r:.9}": (lambda c, v=v: c.update(info=v)) for v in (
        *([], None, 5, "step", {"x": nested(200)}, {"x": "\ud800"}, {"\udfff": 1}),)},
    **{f"named {v!r:.20}": more(v) for v in (
        *("", ".", "..", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\\b", "C:x"),
        *("a\0b", "a\nb", "\x1b[2J", "\u202eab", "\ud800", "manifest.json", "x" * 5000),
        *("/".join("abcdefghijkl"),))},
    "one key more": lambda c: c["files"]["state.pt"].update(more=1),
    "no files": lambda c: c.update(files={}),
    "no info": lambda c: c.pop("info") and None,
}  # fmt: skip


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_sealed_manifest_with_a_wrong_value_is_refused(tmp_path, kind):
    good, bad = two(tmp_path)
    reseal(bad, MANIFESTS[kind])
    refused(tmp_path, bad, good)


BODIES = {
    "nested lists": b'{"format": 1, "files": {}, "info": {"x": ' + b"[" * 1500 + b"]" * 1500 + b"}",
    "nested dictionaries": b'{"format": 1, "files": {}, "info": '
    + b'{"a":' * 1500
    + b"1"
    + b"}" * 1500,
    "very deep": b'{"format": 1, "info": ' + b"[" * 10**6,
    "a long number": b'{"format": 1, "files": {}, "info": {"x": ' + b"1" * 5000 + b"}",
    "a long format": b'{"format": ' + b"1" * 5000,
    "a list": b"[1",
    "not UTF-8": b'{"format": 1, "files": {}, "info": {"x": "\xff"}',
    "UTF-16": '{"format": 1, "files": {}, "info": {}'.encode("utf-16"),
    "nothing": b"",
    "zeros": b"\0" * 100,
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_sealed_manifest_that_is_no_plain_json_is_refused(tmp_path, kind):
    good, bad = two(tmp_path)
    (bad / "manifest.json").write_bytes(_seal(BODIES[kind]))
    refused(tmp_path, bad, good)


def device(path):
    path.symlink_to("/dev/zero")


def listener(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # 套接字的路径很短才行


def outside(path):
    target = path.parents[2] / "outside"
    target.write_bytes(b"")
    path.symlink_to(target)


THINGS = {
    "a pipe": os.mkfifo if hasattr(os, "mkfifo") else None,
    "an endless device": device,
    "a socket": listener,
    "a link outside": outside,
    "a broken link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a folder": lambda path: path.mkdir(),
}
posix = pytest.mark.skipif(os.name != "posix", reason="这个系统没有管道、设备")


@posix
@pytest.mark.parametrize("name", ["state.pt", "manifest.json", "extra", "sub/extra"])
@pytest.mark.parametrize("kind", THINGS)
def test_a_thing_that_is_no_regular_file_is_refused_without_opening_it(tmp_path, kind, name):
    if kind == "a folder" and "extra" in name:
        pytest.skip("空目录不碍事")
    good, bad = two(tmp_path / "saves")
    (bad / "sub").mkdir()
    (bad / name).unlink(missing_ok=True)
    THINGS[kind](bad / name)
    if name != "manifest.json":
        reseal(bad, more(name))
    refused(tmp_path / "saves", bad, good)


@posix
@pytest.mark.parametrize("kind", THINGS)
def test_a_thing_named_like_a_save_is_refused_and_never_deleted(tmp_path, kind):
    (tmp_path / "saves").mkdir()
    good, newer = two(tmp_path / "saves")
    bad = tmp_path / "saves" / "save-00009-step-9"
    (tmp_path / "saves" / "x").mkdir()
    if kind == "a link outside":
        other = save_checkpoint(tmp_path / "elsewhere", {"w": torch.ones(2)}, step=9)
        bad.symlink_to(other, target_is_directory=True)
    else:
        THINGS[kind](bad)
    refused(tmp_path / "saves", bad, newer)
    assert save_checkpoint(tmp_path / "saves", {}, step=10).name == "save-00010-step-10"
    prune(tmp_path / "saves", [tmp_path / "saves" / "save-00010-step-10"])
    assert os.path.lexists(bad) and not good.exists()
    if kind == "a link outside":
        assert verify(other) == {"step": 9}


@posix
def test_a_linked_folder_inside_a_save_is_not_entered(tmp_path):
    good, bad = two(tmp_path / "saves")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"")
    (bad / "sub").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    reseal(bad, more("sub/secret"))
    refused(tmp_path / "saves", bad, good)


def test_a_huge_manifest_is_refused_without_reading_it_all(tmp_path):
    resource = pytest.importorskip("resource")
    good, bad = two(tmp_path)
    with (bad / "manifest.json").open("r+b") as manifest:
        manifest.truncate(8 << 30)  # 稀疏的，不占磁盘
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path, bad, good)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KB


def test_folders_nested_without_end_are_refused_and_can_be_left_behind(tmp_path):
    good, bad = two(tmp_path)
    for top in (bad, tmp_path / ".trash-save-00000-step-0"):
        top.mkdir(exist_ok=True)
        here = os.open(top, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
    refused(tmp_path, bad, good)
    clean(tmp_path)
    prune(tmp_path, [good])
    assert newest_good(tmp_path, [].append).path == good
    for top in (bad, tmp_path / ".trash-save-00000-step-0"):  # pytest 自己删不了这么深的
        os.system(f"rm -rf '{top}'")


def test_a_file_that_grew_after_its_size_was_seen_is_read_only_that_far(tmp_path):
    from companion.checkpoint._disk import hash_file

    path = tmp_path / "f"
    path.write_bytes(b"x" * 1000)
    with path.open("rb") as opened:
        assert hash_file(opened, 10).bytes == 11
        assert opened.tell() == 11


NAMES = [
    *(
        "save-٣-step-4",
        "save-００００９-step-１",
        "save-00009-step-1 ",
        "save-9-step-",
        "save--9-step-1",
    ),
    *("save-00009-step-1\n", "save-" + "9" * 100 + "-step-1", "save-9-step-" + "9" * 100),
    *("save-0x9-step-1", "save-9_9-step-1", "save-\udcff-step-1"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_a_name_no_save_has_is_left_alone(tmp_path, name):
    good, _ = two(tmp_path)
    (tmp_path / name).mkdir()
    assert [save.name for save in saves(tmp_path)] == ["save-00001-step-1", "save-00002-step-2"]
    assert newest_good(tmp_path, [].append).info == {"step": 2}
    newest = save_checkpoint(tmp_path, {}, step=3)
    assert saves(tmp_path)[-1] == newest
    prune(tmp_path, [newest])
    assert (tmp_path / name).exists() and not good.exists()


def test_a_number_longer_than_python_converts_is_no_save(tmp_path):
    class Folder:
        def iterdir(self):
            return [tmp_path / f"save-{'9' * 5000}-step-1", tmp_path / "save-00004-step-1"]

    assert next_name(Folder(), 1) == "save-00005-step-1"


def test_a_full_counter_is_explained(tmp_path):
    (tmp_path / f"save-{'9' * 18}-step-1").mkdir()
    with pytest.raises(CheckpointError, match="请移走序号太大的那些"):
        save_checkpoint(tmp_path, {}, step=1)
    assert newest_good(tmp_path, [].append) is None


@posix
def test_prune_and_clean_do_not_follow_or_stumble_over_links_and_leftovers(tmp_path):
    folder = tmp_path / "saves"
    old, new = two(folder)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    for name in (f".trash-{old.name}", ".tmp-save-00007-step-7"):
        (folder / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / ".tmp-save-00008-step-8").touch()
    prune(folder, [new])
    clean(folder)
    assert (tmp_path / "elsewhere" / "kept").exists()
    assert verify(new) == {"step": 2}
    assert save_checkpoint(folder, {}, step=3).name == "save-00009-step-3"


def test_an_ordinary_manifest_is_what_the_hostile_ones_start_from(tmp_path):
    _, bad = two(tmp_path)
    reseal(bad)
    assert read_info(bad) == {"step": 2}
    content = json.loads((bad / "manifest.json").read_bytes())
    content.pop("sha256")
    write_sealed(bad, content | {"info": {"x": float("inf"), "y": nested(20)}})
    assert verify(bad)["x"] == float("inf")
