"""锁和信号：第二个进程、被杀的进程、SIGTERM、Ctrl-C、还活着的取数据的子进程。"""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from companion.checkpoint import saves, verify
from companion.errors import RunError
from companion.run import Run
from tests.faults.children import run_child, start_child, wait_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="没有 fork")


class Pipe:
    """两个进程之间的一声「到了」。"""

    def __init__(self):
        self.ends = os.pipe()

    def say(self):
        os.write(self.ends[1], b"x")

    def wait(self):
        assert os.read(self.ends[0], 1) == b"x"


def refused(folder, *words):
    """在子进程里打开 ``folder``：应被拒绝，消息里有 ``words``。"""

    def open_it():
        with pytest.raises(RunError) as caught:
            Run(folder, resume=True)
        for word in words:
            assert word in str(caught.value)

    return run_child(open_it) == 0


def test_a_second_process_is_refused_with_the_first_ones_number(tmp_path):
    run = Run(tmp_path)
    assert refused(tmp_path, f"进程 {os.getpid()} 写", f"kill {os.getpid()}", "换一个目录")
    list(run.epochs(1))
    assert refused(tmp_path)
    run.close()
    assert run_child(lambda: Run(tmp_path, resume=True)) == 0


def test_a_run_no_longer_used_frees_its_directory(tmp_path):
    run = Run(tmp_path)
    assert refused(tmp_path)
    del run
    assert run_child(lambda: Run(tmp_path, resume=True)) == 0


def test_opening_it_again_in_the_same_process_keeps_the_lock(tmp_path):
    first = Run(tmp_path)
    second = Run(tmp_path)
    assert refused(tmp_path)
    first.close()
    del first
    assert refused(tmp_path)
    second.close()


def test_a_run_that_could_not_start_frees_the_directory(tmp_path):
    with pytest.raises(Exception, match="state_dict"):
        Run(tmp_path, model=3)
    assert run_child(lambda: Run(tmp_path)) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_9_frees_the_lock_even_while_workers_live(tmp_path, workers):
    ready, hold = Pipe(), Pipe()

    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            if workers and index >= 4:
                hold.wait()  # 子进程停在这里，父进程死了它也还在
            return index

    def action():
        run = Run(tmp_path)
        for _ in run.epochs(1):
            for _ in run.batches(DataLoader(Slow(), num_workers=workers)):
                ready.say()
                signal.pause()

    pid = start_child(action)
    ready.wait()
    assert refused(tmp_path, f"进程 {pid} 写")
    os.kill(pid, signal.SIGKILL)
    assert wait_child(pid) == -signal.SIGKILL
    assert run_child(lambda: Run(tmp_path, resume=True)) == 0
    for _ in range(8):
        hold.say()


def looping(folder, workers, first, number, then=lambda: None):
    """练到第 3 步时给自己发信号 ``number``，接着调用 ``then()``。"""
    run = Run(folder)
    for _ in run.epochs(2):
        for _ in run.batches(DataLoader(range(8), batch_size=2, num_workers=workers)):
            if run.step == first:
                os.kill(os.getpid(), number)
                then()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [0, 2, 3, 5])
def test_sigterm_saves_the_exact_step_and_exits_with_143(tmp_path, workers, first):
    assert run_child(lambda: looping(tmp_path, workers, first, signal.SIGTERM)) == 143
    assert [verify(path)["step"] for path in saves(tmp_path)][-1] == first + 1


def test_a_second_sigterm_ends_the_process_at_once(tmp_path):
    def again():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("不应走到这里")

    code = run_child(lambda: looping(tmp_path, 0, 1, signal.SIGTERM, again))
    assert code == -signal.SIGTERM
    assert saves(tmp_path) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_to_the_whole_group_saves_and_raises(tmp_path, workers):
    def action():
        os.setpgid(0, 0)  # 终端的 Ctrl-C 发给整组：自己，和取数据的子进程

        def everyone():
            os.killpg(0, signal.SIGINT)

        try:
            looping(tmp_path, workers, 2, 0, everyone)
        except KeyboardInterrupt:
            raise SystemExit(7) from None

    assert run_child(action) == 7
    assert verify(saves(tmp_path)[-1])["step"] == 3


def test_workers_still_die_of_sigterm(tmp_path):
    ready = Pipe()

    def child():  # 带着 Run 的信号函数的子进程
        ready.say()
        while True:
            time.sleep(0.01)

    def action():
        run = Run(tmp_path)
        for _ in run.epochs(1):
            pid = start_child(child)
            ready.wait()  # 刚 fork 出来时，Python 会丢掉已到的信号
            os.kill(pid, signal.SIGTERM)
            assert wait_child(pid) == -signal.SIGTERM

    assert run_child(action) == 0


def test_a_full_disk_says_so_and_the_old_save_still_works(tmp_path):
    import errno
    import resource

    if not Path("/proc/self/fd").exists():
        pytest.skip("要 Linux 的 RLIMIT_FSIZE")

    def action():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run = Run(tmp_path, model=torch.nn.Linear(300, 300), best=None)
        with pytest.raises(Exception, match="没有存下：磁盘满了") as caught:
            for epoch in run.epochs(3):
                if epoch == 2:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        assert caught.value.__cause__.errno == errno.EFBIG

    assert run_child(action) == 0
    assert [verify(path)["epoch"] for path in saves(tmp_path)] == [1]
    assert Run(tmp_path, resume=True, model=torch.nn.Linear(300, 300)).epoch == 1
