import json
import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from companion.checkpoint import (
    FORMAT,
    clean,
    load_checkpoint,
    newest_good,
    prune,
    save_checkpoint,
    saves,
    verify,
)
from companion.checkpoint import _folder as folder_module
from companion.checkpoint import _manifest as manifest_module
from companion.checkpoint import _writing as writing_module
from companion.checkpoint._writing import staging
from companion.errors import (
    ArgumentError,
    CheckpointError,
    CorruptCheckpointError,
    NewerFormatError,
)

FIXTURE = Path(__file__).parent / "fixtures" / "format-1" / "save-00001-step-3"


def same(one, two):
    """类型、dtype、数值全都相同。"""
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and one.stride() == two.stride() and torch.equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def training_state():
    """一个真的训练过三步的模型和优化器。"""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        model(torch.randn(5, 3)).sum().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def rewrite_manifest(save, change):
    """改清单的内容，再配上对的 sha256，像另一个版本的 companion 写的。"""
    path = save / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("sha256")
    change(content)
    body = json.dumps(content, ensure_ascii=False, indent=1).removesuffix("\n}").encode()
    path.write_bytes(manifest_module._seal(body))


# —— 存与取


def test_a_saved_state_comes_back_with_the_same_values_types_and_info(tmp_path):
    state = training_state()
    path = save_checkpoint(tmp_path / "a" / "b", state, step=3, info={"epoch": 1, "note": "好"})
    assert path == tmp_path / "a" / "b" / "save-00001-step-3"
    loaded, info = load_checkpoint(path)
    assert info == {"epoch": 1, "note": "好", "step": 3}
    assert same(loaded["model"], dict(state["model"]))
    assert same(loaded["optimizer"], state["optimizer"])


def test_training_goes_on_from_a_save_with_the_same_bits(tmp_path):
    def job():
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, torch.optim.Adam(model.parameters(), lr=0.1)

    def train(model, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            model(torch.full((4, 3), float(step))).square().sum().backward()
            optimizer.step()

    straight, optimizer = job()
    train(straight, optimizer, range(3))
    state = {"model": straight.state_dict(), "optimizer": optimizer.state_dict()}
    path = save_checkpoint(tmp_path, state, step=3)
    train(straight, optimizer, range(3, 6))

    resumed, optimizer = job()
    state, info = load_checkpoint(path)
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    train(resumed, optimizer, range(info["step"], 6))
    assert same(dict(resumed.state_dict()), dict(straight.state_dict()))


def test_the_file_is_the_one_torch_save_would_write_and_torch_load_reads_it(tmp_path):
    state = {"weights": torch.arange(1000.0), "step": 7}
    path = save_checkpoint(tmp_path, state, step=7)
    assert same(torch.load(path / "state.pt", weights_only=True), state)
    with (tmp_path / "plain.pt").open("wb") as file:
        torch.save(state, file)
    assert (path / "state.pt").read_bytes() == (tmp_path / "plain.pt").read_bytes()


def test_sequence_numbers_only_grow_even_above_leftovers_and_damaged_saves(tmp_path):
    save_checkpoint(tmp_path, {}, step=50)
    (tmp_path / ".tmp-save-00004-step-60").mkdir()
    assert save_checkpoint(tmp_path, {}, step=10).name == "save-00005-step-10"
    (tmp_path / "save-00123456-step-1").mkdir()  # 一个空壳
    assert save_checkpoint(tmp_path, {}, step=2).name == "save-123457-step-2"
    (tmp_path / "save-00007-step-120.zip").touch()  # 名字不对，不是存档
    assert [path.name.split("-")[1] for path in saves(tmp_path)] == [
        *("00001", "00005", "00123456", "123457"),
    ]


def test_a_folder_without_saves_gives_nothing_and_no_error(tmp_path):
    assert saves(tmp_path / "none") == []
    assert newest_good(tmp_path / "none") is None


@pytest.mark.parametrize("step", [-1, 2.0, None])
def test_a_step_that_is_no_count_is_refused_before_anything_is_written(tmp_path, step):
    with pytest.raises(ArgumentError, match="step 应为 0 或更大的整数，实际是"):
        save_checkpoint(tmp_path, {}, step=step)
    assert list(tmp_path.iterdir()) == []


def test_info_that_json_cannot_hold_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ArgumentError, match="info 里应只有数、字符串"):
        save_checkpoint(tmp_path, {}, step=1, info={"loss": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_an_infinite_number_in_info_survives(tmp_path):
    path = save_checkpoint(tmp_path, {}, step=1, info={"best": float("inf")})
    assert verify(path)["best"] == float("inf")


# —— 暂存目录


def test_staging_lists_every_file_with_its_size_and_hash(tmp_path):
    with staging(tmp_path, 4, {"epoch": 2}) as directory:
        (directory / "shards").mkdir()
        (directory / "shards" / "0.bin").write_bytes(b"abc")
        (directory / ".metadata").write_bytes(b"")
    (path,) = saves(tmp_path)
    assert verify(path) == {"epoch": 2, "step": 4}
    files = json.loads((path / "manifest.json").read_text())["files"]
    sha = {  # sha256sum 的结果
        "shards/0.bin": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ".metadata": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    assert {name: record["sha256"] for name, record in files.items()} == sha
    assert files["shards/0.bin"]["bytes"] == 3
    with pytest.raises(CheckpointError, match=r"里应有 state\.pt，实际没有"):
        load_checkpoint(path)


def test_an_error_inside_staging_leaves_no_trace_and_is_passed_on(tmp_path):
    with pytest.raises(KeyboardInterrupt), staging(tmp_path, 1, {}) as directory:
        (directory / "half").write_bytes(b"1")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_save_appears_only_after_every_file_and_the_folder_are_on_disk(tmp_path, monkeypatch):
    order = []

    def spy(module, name):
        real = getattr(module, name)

        def call(first, *rest):
            order.append((name, Path(getattr(first, "name", first)).name))
            return real(first, *rest)

        monkeypatch.setattr(module, name, call)

    spy(writing_module, "sync_file")
    spy(manifest_module, "sync_file")
    spy(writing_module, "sync_directory")
    spy(writing_module.os, "rename")
    save_checkpoint(tmp_path, {}, step=1)
    assert order == [
        ("sync_file", "state.pt"),
        ("sync_file", "manifest.json"),
        ("sync_directory", ".tmp-save-00001-step-1"),
        ("rename", ".tmp-save-00001-step-1"),
        ("sync_directory", tmp_path.name),
    ]


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"实际没有存下：写不进去.*还没有以前的存档.*权限"):
        save_checkpoint(tmp_path / "file" / "saves", {}, step=1)


def test_the_hash_comes_from_the_bytes_in_memory_not_from_the_disk(tmp_path, monkeypatch):
    real = torch.save

    def bad_disk(state, file):
        real(state, file)
        file.flush()
        os.pwrite(file._file.fileno(), b"?", 200)  # 磁盘上有一个字节写错了

    if not hasattr(os, "pwrite"):
        pytest.skip("这个系统没有 pwrite")
    monkeypatch.setattr(torch, "save", bad_disk)
    path = save_checkpoint(tmp_path, {"w": torch.ones(100)}, step=1)
    with pytest.raises(CorruptCheckpointError, match=r"state\.pt 的 sha256"):
        verify(path)


# —— 读不成的


def test_a_path_that_is_no_save_is_explained(tmp_path):
    with pytest.raises(CheckpointError, match="实际没有这个目录"):
        load_checkpoint(tmp_path / "save-00001-step-1")
    save_checkpoint(tmp_path, {}, step=1)
    with pytest.raises(CheckpointError, match="是放存档的目录。请用 newest_good"):
        load_checkpoint(tmp_path)
    (saves(tmp_path)[0] / "manifest.json").unlink()
    with pytest.raises(CorruptCheckpointError, match=r"缺文件 manifest\.json"):
        load_checkpoint(saves(tmp_path)[0])


def test_a_damaged_save_is_skipped_in_one_line_and_the_one_before_is_used(tmp_path, capsys):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, {"step": step}, step=step)
    first, second, third = saves(tmp_path)
    (third / "state.pt").unlink()
    rewrite_manifest(second, lambda content: content.update(format=FORMAT + 1))
    found = newest_good(tmp_path)
    assert found == (first, {"step": 1})
    assert capsys.readouterr().out == (
        "跳过：存档 save-00003-step-3 坏了：缺文件 state.pt。\n"
        "跳过：存档 save-00002-step-2 的格式是 2，这个 companion 只读得懂 1 及以前的。"
        "请升级 companion，或用当初存它的版本读。\n"
    )


def test_a_manifest_with_a_right_hash_but_strange_content_is_refused(tmp_path):
    for change in (
        lambda content: content.pop("format"),
        lambda content: content.update(format="x"),
        lambda content: content.update(files=[1]),
        lambda content: content["files"].update({"state.pt": {"bytes": 3}}),
        lambda content: content.update(info=None),
    ):
        path = save_checkpoint(tmp_path, {}, step=1)
        rewrite_manifest(path, change)
        with pytest.raises(CorruptCheckpointError, match="不是 companion 写的清单"):
            verify(path)


def test_a_state_that_is_no_dictionary_is_refused(tmp_path):
    with staging(tmp_path, 1, {}) as directory:
        torch.save([1, 2], directory / "state.pt")
    with pytest.raises(CheckpointError, match="外层应是字典，实际是 list"):
        load_checkpoint(saves(tmp_path)[0])


class Calls:
    """反序列化时会调用 ``function(*arguments)`` 的对象。"""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def hostile(marker):
    """几种会留下 ``marker`` 文件的对象。"""
    return {
        "os.system": Calls(os.system, f"touch {marker}"),
        "subprocess": Calls(subprocess.call, ["touch", str(marker)]),
        "exec": Calls(exec, f"open({str(marker)!r}, 'w')"),
        "eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "open": Calls(open, str(marker), "w"),
        "getattr": Calls(getattr(Path, "touch"), marker),  # noqa: B009
    }


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("nested", [False, True], ids=["outer", "nested"])
@pytest.mark.parametrize("raw", [False, True], ids=["zip", "raw"])
@pytest.mark.parametrize("kind", list(hostile(Path("x"))))
def test_a_hostile_pickle_behind_a_right_manifest_never_runs(tmp_path, kind, raw, nested):
    marker = tmp_path / "executed"
    state = hostile(marker)[kind]
    state = {"model": {"weight": torch.ones(1), "more": state}} if nested else state
    with staging(tmp_path / "saves", 1, {}) as directory:
        if raw:
            (directory / "state.pt").write_bytes(pickle.dumps(state))
        else:
            torch.save(state, directory / "state.pt")
    (path,) = saves(tmp_path / "saves")
    assert verify(path) == {"step": 1}
    with pytest.raises(CheckpointError, match="已拒绝加载，什么也没有执行") as caught:
        load_checkpoint(path)
    assert type(caught.value) is CheckpointError
    assert not marker.exists()
    if raw:
        pickle.loads((path / "state.pt").read_bytes())
    else:
        torch.load(path / "state.pt", weights_only=False)
    assert marker.exists()  # 不设防的读法会中招，所以上面的断言有意义


# —— 清理


def test_prune_keeps_the_named_the_newer_and_the_damaged(tmp_path):
    paths = [save_checkpoint(tmp_path, {"step": step}, step=step) for step in range(6)]
    (paths[1] / "state.pt").write_bytes(b"")
    (tmp_path / ".tmp-save-00009-step-9").mkdir()
    (tmp_path / ".trash-save-00000-step-0").mkdir()
    (tmp_path / "notes.txt").touch()
    prune(tmp_path, [paths[2], paths[4]])
    assert sorted(tmp_path.iterdir()) == sorted(
        [tmp_path / "notes.txt", *(paths[i] for i in (1, 2, 4, 5))]
    )
    assert verify(paths[2]) == {"step": 2}


def test_prune_with_nothing_to_keep_removes_no_save(tmp_path):
    paths = [save_checkpoint(tmp_path, {}, step=step) for step in range(2)]
    prune(tmp_path, [])
    prune(tmp_path, [tmp_path / "save-00077-step-1"])
    assert saves(tmp_path) == paths


def test_prune_never_deletes_inside_a_visible_save(tmp_path, monkeypatch):
    paths = [save_checkpoint(tmp_path, {}, step=step) for step in range(3)]
    removed = []
    monkeypatch.setattr(folder_module.shutil, "rmtree", lambda path, **how: removed.append(path))
    prune(tmp_path, paths[2:])
    assert [path.name for path in sorted(removed)] == [f".trash-{path.name}" for path in paths[:2]]
    assert saves(tmp_path) == paths[2:]
    monkeypatch.undo()
    clean(tmp_path)
    assert list(tmp_path.iterdir()) == paths[2:]


# —— 第一版格式：这个文件夹是 format 1 当年写下的，以后的版本都要读得懂


def first_format_state():
    """写进 ``fixtures/format-1`` 的内容；每个数在 float32 里都是精确的。"""
    weight = torch.arange(6.0).reshape(2, 3) / 8
    moments = {"step": torch.tensor(3.0), "exp_avg": weight * 2, "exp_avg_sq": weight * weight}
    group = {"lr": 0.001, "betas": (0.9, 0.999), "foreach": None, "params": [0]}
    return {
        "model": {
            "weight": weight,
            "tied": weight,
            "half": weight.bfloat16(),
            "n": torch.tensor(7),
        },
        "optimizer": {"state": {0: moments}, "param_groups": [group]},
        "random": {"torch": torch.arange(256).to(torch.uint8), "python": [3, [1, 2], None]},
        "others": {
            "done": False,
            "名字": "甲",
            "raw": b"\x00\xff",
            "z": 1 + 2j,
            "inf": float("inf"),
        },
    }


def test_a_save_of_the_first_format_loads_with_its_exact_values():
    state, info = load_checkpoint(FIXTURE)
    assert info == {"epoch": 1, "best": 0.25, "step": 3}
    assert same(state, first_format_state())
    tied = state["model"]
    assert tied["weight"].data_ptr() == tied["tied"].data_ptr()
    assert newest_good(FIXTURE.parent) == (FIXTURE, info)


def test_a_save_of_a_newer_format_is_refused_with_both_versions(tmp_path):
    path = save_checkpoint(tmp_path, {}, step=1)
    rewrite_manifest(path, lambda content: content.update(format=2, files="另一种写法"))
    for read in (verify, load_checkpoint):
        with pytest.raises(NewerFormatError, match="的格式是 2，这个 companion 只读得懂 1 及以前"):
            read(path)
