import json
import os
import pickle
import signal
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from companion.checkpoint import is_sharded, load_checkpoint, load_sharded, save_sharded
from companion.device import pick_device
from companion.distributed import _launch as launching
from companion.distributed import (
    all_finite,
    defer_sync,
    init,
    launch,
    local_part,
    shutdown,
    unwrap,
    wrap,
)
from companion.errors import ArgumentError, CheckpointError, LaunchError, MismatchError
from tests.companion.distributed.ranks_facts import (
    FACTS,
    Block,
    adam,
    everything,
    make,
    same,
    train,
)

HERE = Path(__file__).parent
needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="没有具名管道")
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="没有 /proc")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """两个进程跑完全部事实：``(印出的内容, 它们的目录)``。"""
    folder = tmp_path_factory.mktemp("ranks")
    model = make()
    optimizer = adam(model)
    train(model, optimizer)
    save_sharded(folder / "one", model, optimizer, {"from": "one"}, step=3)
    torch.save(everything(model, optimizer), folder / "one.pt")
    return launch(HERE / "ranks_facts.py", args=[folder], timeout=100), folder


@pytest.mark.parametrize("fact", FACTS)
def test_with_two_ranks(fact, two_ranks):
    output, _ = two_ranks
    if "] bad " in output and f" {fact}\n" not in output:
        pytest.skip("前面有一个事实不成立，没跑到这里")
    for rank in (0, 1):
        assert f"[rank {rank}] ok {fact}\n" in output, output[-3000:]


def test_a_save_of_two_ranks_is_loaded_by_one_process_without_a_group(two_ranks):
    path = two_ranks[1] / "two" / "save-00001-step-3"
    model = make(seed=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    rest = load_sharded(path, model, optimizer)
    everything_then, averages_then = torch.load(two_ranks[1] / "two.pt")
    assert is_sharded(path) and rest["epoch"] == 3
    assert same(everything(model, optimizer), everything_then)
    assert same(rest["ema"]["average"], averages_then)
    assert optimizer.param_groups[0]["lr"] == 0.01
    with pytest.raises(CheckpointError, match="分片存档"):
        load_checkpoint(path)


def test_an_optimizer_that_has_not_stepped_is_saved_as_it_is(tmp_path):
    model, other = make(), make(seed=1)
    path = save_sharded(tmp_path, model, adam(model), {}, step=0)
    optimizer = adam(other)
    train(other, optimizer, steps=1)
    load_sharded(path, other, optimizer)
    assert optimizer.state_dict() == adam(model).state_dict()
    assert optimizer.state_dict()["state"] == {}


def test_another_order_of_parameters_is_refused(tmp_path):
    model = make()
    path = save_sharded(tmp_path, model, adam(model), {}, step=0)
    reverse = torch.optim.AdamW(list(model.parameters())[::-1])
    with pytest.raises(MismatchError, match=r"存档是 0\.weight，现在是 3\.bias"):
        load_sharded(path, model, reverse)
    with pytest.raises(ArgumentError, match="实际有的不是"):
        save_sharded(tmp_path, model, adam(make()), {}, step=1)


class Hostile:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["chunks.json", "rest.pt", "__0_0.distcp"])
def test_code_hidden_in_a_sharded_save_is_refused_and_not_run(name, tmp_path, monkeypatch):
    model = make()
    path = save_sharded(tmp_path, model, adam(model), {}, step=0)
    (path / name).write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    monkeypatch.setattr("companion.checkpoint._sharded.verify", lambda path: {})  # 清单也是他写的
    with pytest.raises(CheckpointError, match="已拒绝加载"):
        load_sharded(path, model, adam(model))
    assert not (tmp_path / "ran").exists()


def test_without_torchrun_nothing_changes():
    model = make()
    assert init() == pick_device() and not torch.distributed.is_initialized()
    assert wrap(model) is model and wrap(model, "fsdp", blocks=[Block]) is model
    assert unwrap(model) is model and not hasattr(model, "set_requires_gradient_sync")
    with defer_sync(model):
        pass
    shutdown()


def test_what_cannot_be_wrapped_is_explained():
    with pytest.raises(ArgumentError, match="kind"):
        wrap(make(), "zero")
    with pytest.raises(ArgumentError, match="Conv2d 一个也没有。模型里有：BatchNorm1d、Block"):
        wrap(make(), "fsdp", blocks=[Block, nn.Conv2d])
    with pytest.raises(ArgumentError, match="blocks 只用于"):
        wrap(make(), blocks=[Block])


def test_half_of_the_environment_of_torchrun_is_an_error(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentError, match="实际缺 MASTER_ADDR、MASTER_PORT"):
        init()


@pytest.mark.parametrize(
    "name",
    [
        "缺席.py",
        "-m.py",
        "a\0b.py",
        "folder.py",
        "pipe.py",
        "\ud800.py",
        "script",
        "x" * 300 + ".py",
    ],
)
def test_a_script_that_is_not_a_file_is_named(tmp_path, name):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "script").write_text("1", encoding="utf-8")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(ArgumentError, match=r"script 应是一个 \.py 文件，.*不是，或者不存在"):
        launch(tmp_path / name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"script": 5}, "script 应是一个 .py 文件的路径，实际是 5"),
        ({"script": None}, "script 应是一个 .py 文件的路径，实际是 None"),
        ({"nproc": 0}, "nproc 应是至少为 1 的整数，实际是 0"),
        ({"nproc": "2"}, "nproc 应是至少为 1 的整数，实际是 '2'"),
        ({"nproc": True}, "nproc 应是至少为 1 的整数"),
        ({"nproc": 1.5}, "nproc 应是至少为 1 的整数"),
        ({"max_restarts": -1}, "max_restarts 应是至少为 0 的整数"),
        ({"timeout": 0}, "timeout 应是正的秒数"),
        ({"timeout": float("nan")}, "timeout 应是正的秒数"),
        ({"timeout": float("inf")}, "timeout 应是正的秒数"),
        ({"timeout": "5"}, "timeout 应是正的秒数"),
        ({"args": "--lr 3"}, "args 应是一列参数，实际是 '--lr 3'"),
        ({"args": 5}, "args 应是一列参数，实际是 5"),
        ({"args": ["a\0b"]}, "args 应能写成命令行.*传不给进程"),
        ({"args": ["\ud800"]}, "args 应能写成命令行.*传不给进程"),
        ({"args": ["x" * 10_000_000]}, "args 应能写成命令行.*传不给进程"),
        ({"env": {"A": 5}}, "env 的名字和值应是文字"),
        ({"env": {"A=B": "c"}}, "env 的名字和值应是文字"),
        ({"env": {"A": "\0"}}, "env 的名字和值应是文字"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named_before_anything_runs(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        launch(**{"script": HERE / "ranks_facts.py"} | wrong)


def write_script(folder, text):
    script = folder / "script.py"
    script.write_text(text, encoding="utf-8")
    return script


HARD_ARGS = ["--", "-m", "--nproc-per-node=9", "-h", "", "空 格", "-", "--", "a\nb", "$(id)", 7]


def test_any_name_and_any_argument_reach_the_script_untouched(tmp_path, monkeypatch):
    name = "-m 空 格-①a\nb';.py"  # 横线、空格、汉字、换行、引号、分号：起一次就够
    monkeypatch.chdir(tmp_path)
    text = "import sys, json, os\nprint(json.dumps([os.path.basename(__file__), *sys.argv[1:]]))"
    Path(name).write_text(text, encoding="utf-8")
    said = launch(name, 1, args=HARD_ARGS)
    assert json.loads(said.removeprefix("[rank 0] ")) == [name, *map(str, HARD_ARGS)]


@needs_proc
def test_a_rank_killed_by_a_signal_without_a_name_is_reported_by_its_number(tmp_path):
    script = write_script(tmp_path, "import os\nos.kill(os.getpid(), 40)")
    with pytest.raises(LaunchError, match=r"退出码 -40（被 40 号信号 杀死）"):
        launch(script, 1)


def test_a_failing_rank_fails_the_launch_with_its_last_lines_escaped(tmp_path, capfd):
    script = write_script(
        tmp_path,
        "import os, sys\n"
        "print('你好', sys.argv[1:], os.environ['COLOUR'])\n"
        "if os.environ['RANK'] == '1':\n"
        "    print('\\x1b[2J\\u202e坏', flush=True)\n"
        "    raise ValueError('坏了')\n",
    )
    with pytest.raises(LaunchError, match="实际 1 号失败，退出码 1") as caught:
        launch(script, args=["a", 2], env={"COLOUR": "红"})
    assert "ValueError: 坏了" in str(caught.value) and "torch" not in str(caught.value)
    assert r"\x1b[2J\u202e坏" in str(caught.value)
    assert not {"\x1b", "\u202e"} & set(str(caught.value))
    said, errors = capfd.readouterr()
    assert "[rank 0] 你好 ['a', '2'] 红\n" in said and "[rank 1] ValueError: 坏了\n" in said
    assert errors == ""


def alive(tag):
    """环境变量里有 ``tag`` 的进程。"""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found += [folder.name] * (tag.encode() in (folder / "environ").read_bytes())
        except OSError:
            continue
    return found


STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
with open(os.environ["READY"] + os.environ["RANK"], "w") as file:
    file.write(str(os.getpid()))
time.sleep(600)
"""


@needs_fifo
@needs_proc
def test_an_interrupt_kills_every_descendant_even_the_stubborn(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "_GRACE_S", 1)
    pids = []

    def interrupt():
        for rank in range(2):  # 打开管道就是等那个进程准备好
            pids.append((tmp_path / f"ready{rank}").read_text())
        pids.extend(alive(str(tmp_path)))
        os.kill(os.getpid(), signal.SIGINT)

    for rank in range(2):
        os.mkfifo(tmp_path / f"ready{rank}")
    script = write_script(tmp_path, STUBBORN)
    waiter = threading.Thread(target=interrupt)
    waiter.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            launch(script, env={"READY": str(tmp_path / "ready")})
    finally:
        waiter.join()
    assert len(set(pids)) == 5 and alive(str(tmp_path)) == []


@needs_proc
def test_a_launch_that_takes_too_long_is_stopped(tmp_path):
    script = write_script(tmp_path, "import time\ntime.sleep(600)\n")
    with pytest.raises(LaunchError, match=r"script.py 应在 4 秒内跑完.*\n\[rank 0\] （什么也没有"):
        launch(script, timeout=4, env={"TAG": str(tmp_path)})
    assert alive(str(tmp_path)) == []


@pytest.mark.parametrize(("bad", "finite"), [(0.0, True), (float("nan"), False), (-1e999, False)])
def test_one_number_that_is_not_finite_is_found_among_all(bad, finite):
    tensors = [torch.zeros(3), torch.tensor([1.0, bad]), torch.empty(2, device="meta")]
    assert all_finite(tensors) is finite
    assert all_finite([]) is True
    assert local_part(tensors[0]) is tensors[0]
