"""几处共用的小东西：锁、整个换掉一个文件、相同与否、印一行。"""

import io
import os
import runpy
import subprocess
import sys

import numpy as np
import pytest
import torch

from companion._common import FileLock, emit, replacing, same, say, unknown_name, width


def test_a_lock_tells_who_holds_it_and_frees_it_twice_without_harm(tmp_path):
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    assert lock.owner() == (str(os.getpid()), "")
    lock.release()
    lock.release()
    assert lock.acquire()
    lock.release()


@pytest.mark.skipif(os.name == "nt", reason="Windows 上建链接要权限")
@pytest.mark.parametrize("make", ["symlink", "hard link", "fifo", "dangling"])
def test_a_lock_file_that_leads_elsewhere_is_replaced_and_nothing_is_written_there(tmp_path, make):
    victim, path = tmp_path / "victim", tmp_path / "lock"
    victim.write_text("原样")
    if make == "fifo":
        os.mkfifo(path)
    elif make == "hard link":
        os.link(victim, path)
    else:
        path.symlink_to(victim if make == "symlink" else tmp_path / "nothing")
    lock = FileLock(path)
    assert lock.acquire()
    lock.release()
    assert victim.read_text() == "原样"
    assert not (tmp_path / "nothing").exists()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("旧")
    with replacing(path) as fresh:
        fresh.write_text("新")
        assert path.read_text() == "旧"
    assert path.read_text() == "新"
    with pytest.raises(ZeroDivisionError), replacing(path) as fresh:
        fresh.write_text("一半")
        _ = 1 / 0
    assert path.read_text() == "新"
    assert list(tmp_path.iterdir()) == [path]


def test_values_are_compared_through_their_containers():
    one = {"x": (torch.tensor([1.0, torch.nan]), np.ones(2)), "name": ["甲", 3, None]}
    two = {"x": (torch.tensor([1.0, torch.nan]), np.ones(2)), "name": ["甲", 3, None]}
    assert same(one, two)
    assert not same(one, two | {"name": ["乙", 3, None]})
    assert not same(torch.ones(2), torch.ones(3))


def test_a_line_for_the_terminal_holds_no_control_characters(capsys):
    say("存档 \x1b[2J\u202e 坏了")
    assert capsys.readouterr().out == "存档 \\x1b[2J\\u202e 坏了\n"


def test_a_chinese_character_takes_two_columns():
    assert (width("损失 1"), width("（）")) == (6, 4)


def test_a_wrong_name_is_answered_with_the_near_ones_or_with_all():
    known = ["row_means", "row_sums", "trace"]
    assert "相近的有：row_sums、row_means；" in unknown_name("没有它", "row_sum", known)
    assert "相近的有：row_means、row_sums、trace；" in unknown_name("没有它", "zzz", known)


ENCODINGS = ["ascii", "latin-1", "cp1252", "gbk", "utf-8"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_line_is_printed_in_any_encoding(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    emit("✓ 第 1 轮 ━━ ◌ ✗\n", stream, flush=True)
    assert raw.getvalue().decode(encoding).endswith("\n")
    if encoding == "gbk":
        assert raw.getvalue().decode("gbk") == "√ 第 1 轮 == o ×\n"


def test_what_cannot_be_printed_ends_nothing(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "磁盘满了")

    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed, object()):
        emit("一句", stream, flush=True)
    monkeypatch.setattr("sys.stdout", None)
    say("一句")


JOB = """
import sys, torch
from torch import nn
from torch.nn import functional as F
from companion.run import Run
from companion.train import fit

for encoding in sys.argv[1:]:
    if sys.stdout is not None:
        sys.stdout.reconfigure(encoding=encoding)
    net = nn.Linear(6, 3)
    batches = [(torch.randn(8, 6), torch.randint(3, (8,)))]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    run = Run(f"runs-{encoding}")
    fit(net, batches, loss=F.cross_entropy, optimizer=optimizer, epochs=2, run=run)
"""


@pytest.mark.skipif(os.name == "nt", reason="没有 /dev/full 和 sh")
@pytest.mark.parametrize("way", ["cp1252 gbk ascii", "utf-8 >&-", "utf-8 > /dev/full"])
def test_a_training_ends_well_on_any_console(way, tmp_path):
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    command = f'"{sys.executable}" job.py {way}'
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True)
    assert b"Traceback" not in done.stderr
    for encoding in way.partition(" >")[0].split():
        assert len(list((tmp_path / f"runs-{encoding}").glob("save-*"))) == 2, encoding


@pytest.mark.skipif(os.name == "nt", reason="没有 head")
@pytest.mark.parametrize(("reader", "lines"), [("true", 3), ("head -1", 3000)])
def test_a_reader_that_leaves_ends_nothing_and_is_no_error_at_exit(reader, lines):
    code = f"""
import sys, time
from companion._common import say
for i in range({lines}):
    say(f"第 {{i}} 轮，还有好些字")
    time.sleep(0.5 * (i == 0))  # 等读的人走
print("练完", file=sys.stderr)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
    env.pop("PYTHONUNBUFFERED", None)
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=-1, stderr=-1) as job:
        subprocess.run(reader, shell=True, stdin=job.stdout, stdout=subprocess.DEVNULL, check=True)
        job.stdout.close()
        assert job.stderr.read().decode() == "练完\n"
    assert job.returncode == 0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_report_is_printed_in_any_encoding(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.delitem(sys.modules, "companion.__main__", raising=False)
    runpy.run_module("companion", run_name="__main__")
    sys.stdout.flush()
    assert "torch" in raw.getvalue().decode(encoding)


def test_the_report_is_printed_by_the_command():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "companion"], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"torch" in done.stdout
