"""存到一半被杀、磁盘写满：之后加载的总是最后一个存完的，一位也不差。

子进程用 ``sys.setprofile`` 数自己调用了几次系统函数，数到第几次就给自己发 SIGKILL；所以不必在
``companion`` 里埋钩子，而且能停在任何两次调用之间。默认试有名字的几处，``FAULTS=all`` 逐处试。
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from companion.checkpoint import (
    clean,
    load_checkpoint,
    newest_good,
    prune,
    save_checkpoint,
    saves,
    verify,
)
from companion.errors import CheckpointError
from tests.faults.children import run_child

resource = pytest.importorskip("resource", reason="这个系统没有 setrlimit")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="这个系统没有 fork")

EVERYTHING = os.environ.get("FAULTS") == "all"
WATCHED = {"open", "mkdir", "write", "fsync", "close", "rename", "unlink", "rmdir"}


def state(step):
    return {"weights": torch.arange(30_000.0) + step, "more": [torch.full((3,), step)] * 2}


def save(folder, step):
    return save_checkpoint(folder, state(step), step=step, info={"epoch": step})


def assert_newest(folder, step):
    """目录里最新的好存档是第 ``step`` 步的，一位不差；没有一个存档是坏的。"""
    reports = []
    found = newest_good(folder, reports.append)
    assert found is not None and reports == []
    loaded, info = load_checkpoint(found.path)
    assert info == {"epoch": step, "step": step}
    assert torch.equal(loaded["weights"], state(step)["weights"])
    assert torch.equal(loaded["more"][1], state(step)["more"][1])
    for path in saves(folder):
        verify(path)


def assert_life_goes_on(folder):
    """还能再存，序号接着长；清理之后不留半成品。"""
    last = saves(folder)[-1]
    path = save(folder, 9)
    assert path == saves(folder)[-1] and path.name > last.name
    clean(folder)
    assert [entry.name for entry in folder.iterdir() if entry.name.startswith(".")] == []
    assert_newest(folder, 9)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """有两个存档的目录。"""
    folder = tmp_path_factory.mktemp("saves")
    save(folder, 1)
    save(folder, 2)
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """``template`` 的一份副本。"""
    return shutil.copytree(template, tmp_path / "saves")


# —— 在两次系统调用之间被杀


@contextmanager
def watching(action):
    """期间每次进入、离开 ``WATCHED`` 里的函数，就调用 ``action((事件, 函数名))``。"""

    def profile(frame, event, function):
        name = getattr(function, "__name__", "")
        if event in ("c_call", "c_return") and name in WATCHED:
            action((event, name))

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def calls_of(job):
    """``job()`` 依次进入、离开的系统函数。"""
    events = []
    with watching(events.append):
        job()
    return events


def die_at(job, index):
    """执行 ``job()``，走到第 ``index`` 个事件就被杀。"""
    seen = []

    def count(event):
        if len(seen) == index:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(event)

    with watching(count):
        job()


def find(events, event, name, nth):
    """第 ``nth`` 个（从 0 数）这样的事件排在第几。"""
    return [i for i, found in enumerate(events) if found == (event, name)][nth]


@pytest.fixture(scope="module")
def save_calls(template, tmp_path_factory):
    """存第三个存档时的全部事件。"""
    folder = shutil.copytree(template, tmp_path_factory.mktemp("twin") / "saves")
    events = calls_of(lambda: save(folder, 3))
    counts = {name: events.count(("c_call", name)) for name in WATCHED}
    assert counts["fsync"] == 4 and counts["rename"] == 1 and counts["write"] > 10
    return events


PHASES = {
    "before_anything": ("c_call", "mkdir", 0),
    "before_the_file_is_created": ("c_return", "mkdir", 0),
    "before_the_first_byte": ("c_call", "write", 0),
    "between_two_writes": ("c_call", "write", 9),
    "before_the_file_is_on_disk": ("c_call", "fsync", 0),
    "before_the_manifest": ("c_return", "fsync", 0),
    "before_the_manifest_is_on_disk": ("c_call", "fsync", 1),
    "before_the_directory_is_on_disk": ("c_call", "fsync", 2),
    "before_rename": ("c_call", "rename", 0),
    "after_rename": ("c_return", "rename", 0),
    "before_the_folder_is_on_disk": ("c_call", "fsync", 3),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_process_killed_while_saving_leaves_the_last_completed_save(folder, save_calls, phase):
    index = find(save_calls, *PHASES[phase])
    assert run_child(lambda: die_at(lambda: save(folder, 3), index)) == -signal.SIGKILL
    assert_newest(folder, 3 if phase in ("after_rename", "before_the_folder_is_on_disk") else 2)
    assert_life_goes_on(folder)


@pytest.mark.skipif(not EVERYTHING, reason="逐个系统调用试：FAULTS=all")
def test_a_process_killed_at_any_call_while_saving_leaves_the_last_completed_save(
    template, tmp_path, save_calls
):
    renamed = find(save_calls, "c_return", "rename", 0)
    for index in range(len(save_calls)):
        folder = shutil.copytree(template, tmp_path / str(index))
        assert run_child(lambda i=index, f=folder: die_at(lambda: save(f, 3), i)) == -9
        assert_newest(folder, 3 if index >= renamed else 2)
        assert_life_goes_on(folder)


def test_the_first_save_of_all_killed_before_rename_leaves_no_save(tmp_path, save_calls):
    index = find(save_calls, "c_call", "rename", 0)
    folder = tmp_path / "saves"
    folder.mkdir()
    assert run_child(lambda: die_at(lambda: save(folder, 3), index)) == -signal.SIGKILL
    assert newest_good(folder) is None
    save(folder, 4)
    assert_newest(folder, 4)


def test_a_process_killed_at_any_call_while_pruning_leaves_only_whole_saves(template, tmp_path):
    def prepared(name):
        folder = shutil.copytree(template, tmp_path / name)
        save(folder, 3)
        return folder

    folder = prepared("twin")
    events = calls_of(lambda: prune(folder, saves(folder)[-1:]))
    assert events.count(("c_call", "rename")) == 2 and events.count(("c_call", "unlink")) == 4
    assert len(saves(folder)) == 1
    for index in range(0, len(events), 1 if EVERYTHING else 5):
        folder = prepared(str(index))
        keep = saves(folder)[-1:]
        assert run_child(lambda i=index, f=folder, k=keep: die_at(lambda: prune(f, k), i)) == -9
        assert_newest(folder, 3)
        assert_life_goes_on(folder)


# —— 在一次 write 当中被杀：文件到了上限，内核发来 SIGXFSZ


def whole_size(template):
    return (saves(template)[-1] / "state.pt").stat().st_size


@pytest.mark.parametrize("share", ["nothing", "one_byte", "a_page", "half", "all_but_one_byte"])
def test_a_process_killed_inside_a_write_leaves_the_last_completed_save(folder, share):
    whole = whole_size(folder)
    sizes = {"nothing": 0, "one_byte": 1, "a_page": 4096, "half": whole // 2}
    size = sizes.get(share, whole - 1)

    def job():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        save(folder, 3)

    assert run_child(job) == -signal.SIGXFSZ
    (half,) = folder.glob(".tmp-*/state.pt")
    assert half.stat().st_size == size
    assert_newest(folder, 2)
    assert_life_goes_on(folder)


# —— 磁盘满


@contextmanager
def file_size_limit(size):
    """期间文件超过 ``size`` 字节就写不进去：``OSError(EFBIG)``（Python 平时不理 SIGXFSZ）。"""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


SAYS = r"第 3 步应存进 .*没有存下：磁盘满了.*都没有动，最新的是 save-00002-step-2。请腾出空间再存"


@pytest.mark.parametrize("short", [1, 60_000, None], ids=["last_byte", "middle", "first_byte"])
def test_a_file_that_does_not_fit_keeps_the_old_save_and_says_so(folder, short):
    before = sorted(path for path in folder.rglob("*"))
    size = 0 if short is None else whole_size(folder) - short
    with file_size_limit(size), pytest.raises(CheckpointError, match=SAYS):
        save(folder, 3)
    assert sorted(path for path in folder.rglob("*")) == before
    assert_newest(folder, 2)
    assert_life_goes_on(folder)


@pytest.fixture
def small_disk(tmp_path):
    """一块 1 MiB 的磁盘；挂载要 root。"""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("挂载 tmpfs 要 Linux 和 root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_keeps_the_old_save_and_says_so(small_disk):
    folder = small_disk / "saves"
    save(folder, 1)
    save(folder, 2)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 700_000)
    with pytest.raises(CheckpointError, match=SAYS) as caught:
        save(folder, 3)
    assert "No space left" in str(caught.value)
    assert len(list(folder.iterdir())) == 2
    assert_newest(folder, 2)
    filler.unlink()
    assert_life_goes_on(folder)


def test_a_full_disk_keeps_the_old_exported_weights(small_disk):
    pytest.importorskip("safetensors", reason="没有安装 safetensors")
    from companion.checkpoint import export_weights

    path = export_weights(torch.nn.Linear(200, 200), small_disk / "w.safetensors")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"没有写成.*原来的文件没有动"):
        export_weights(torch.nn.Linear(500, 600), path)
    assert path.read_bytes() == before
    assert list(small_disk.iterdir()) == [path]
