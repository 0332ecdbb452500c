"""两个进程的任务在任何一处被杀死，torchrun 重新启动它，结果与没有出事的一位不差。"""

import os
import re
import sys
from pathlib import Path

import pytest

from companion.distributed import launch
from companion.errors import LaunchError

JOB = Path(__file__).with_name("ranks_job.py")
SAMPLE = [("ddp", "0:step:9"), ("fsdp", "1:shard:3")]
STEPS = [f"{rank}:step:{step}" for rank in (0, 1) for step in (1, 2, 5, 6, 12, 15)]
SAVES = [f"0:{phase}:{count}" for phase in ("rename", "renamed") for count in (1, 3, 6)]
SHARDS = [f"1:shard:{count}" for count in (1, 3, 6)]
EVERYTHING = [(kind, where) for kind in ("ddp", "fsdp") for where in STEPS + SAVES]
EVERYTHING += [("fsdp", where) for where in SHARDS]
ALL = os.environ.get("FAULTS") == "all"
RESUMED = {"0:step:9": "第 9 步", "1:shard:3": "第 5 步", "0:rename:3": "第 5 步"}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="没有 SIGKILL")


def results(output):
    """``{"ddp": 摘要, …}``。"""
    return dict(re.findall(r"\[rank 0\] result (\w+) (\w+)\n", output))


@pytest.fixture(scope="module")
def unfaulted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unfaulted")
    return results(launch(JOB, args=[folder, "ddp+fsdp", "-"], timeout=100))


@pytest.mark.parametrize(("kind", "where"), EVERYTHING if ALL else SAMPLE)
def test_a_rank_killed_anywhere_changes_no_bit(kind, where, unfaulted, tmp_path):
    output = launch(JOB, args=[tmp_path, kind, where], timeout=120, max_restarts=1)
    assert (tmp_path / kind / "happened").exists(), "没有杀成，这个测试就什么也没有说"
    assert results(output) == {kind: unfaulted[kind]}
    assert RESUMED.get(where, "") in output  # 从旧存档接着练，不是拼起来的新存档
    if ":shard:" in where:
        assert (tmp_path / kind / "rank0-wrote").exists()


@pytest.mark.parametrize("kind", ["ddp", "fsdp"] if ALL else ["fsdp"])
def test_sigterm_saves_and_leaves_and_the_next_start_changes_no_bit(kind, unfaulted, tmp_path):
    with pytest.raises(LaunchError):
        launch(JOB, args=[tmp_path, kind, "0:term:7"], timeout=100)
    saves = [path.name for path in (tmp_path / kind / "run").glob("save-*")]
    assert max(saves).endswith("-step-7"), saves
    assert not list((tmp_path / kind / "run").glob(".tmp-*"))
    output = launch(JOB, args=[tmp_path, kind, "0:term:7"], timeout=100)
    assert "从第 2 轮第 3 批（第 8 步）接着练" in output
    assert results(output) == {kind: unfaulted[kind]}
