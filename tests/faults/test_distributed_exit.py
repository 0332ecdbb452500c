"""结束进程时，通信库的线程还拿着张量：等它放下，不能让整个进程异常退出。"""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from companion.distributed import launch

JOB = Path(__file__).with_name("slow_threads_job.py")


@pytest.fixture
def busy_machine():
    """每个核上有两个别的进程一直在算。"""
    with ExitStack() as stack:
        for _ in range(2 * len(os.sched_getaffinity(0))):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: 0"]))
            stack.callback(process.kill)
        yield


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="只有 Linux 能让单个线程几乎轮不到")
def test_ranks_end_normally_though_their_communication_threads_are_late(busy_machine):
    output = launch(JOB, timeout=100)
    assert sorted(line for line in output.splitlines() if "sum" in line) == [
        "[rank 0] sum 6.0",
        "[rank 1] sum 6.0",
    ]
