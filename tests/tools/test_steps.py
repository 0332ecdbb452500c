"""逐步运行与小结：用真的子进程测。"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.steps import Result, Step, pytest_counts, run_steps, stream, summary

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def run(*steps: Step) -> list[Result]:
    return run_steps(steps, os.environ, ROOT)


def numbers(result: Result) -> tuple[int, int, int]:
    return result.passed, result.failed, result.skipped


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 passed in 3.21s", (12, 0, 0)),
        ("==== 2 failed, 10 passed, 3 skipped, 1 warning in 61.02s (0:01:01) ====", (10, 2, 3)),
        ("\x1b[32m7 passed\x1b[0m in 1.0s\r\n", (7, 0, 0)),
        ("4 passed in 1s\nnoise\n1 failed, 1 error, 1 xfailed, 1 xpassed in 2.5s", (5, 2, 1)),
    ],
)
def test_closing_lines_of_pytest_are_added_up(text, expected):
    assert tuple(pytest_counts(text).values()) == expected


def test_prose_about_passing_is_not_a_closing_line():
    assert pytest_counts("All checks passed!\n3 passed the exam in 2 days\n") is None


def test_a_failing_step_does_not_stop_the_rest(capsys):
    results = run(Step("坏", python("raise SystemExit(3)")), Step("好", python("print('到了')")))
    assert [numbers(item) for item in results] == [(0, 1, 0), (1, 0, 0)]
    assert "到了" in capsys.readouterr().out


def test_a_crash_of_pytest_after_a_green_line_still_counts_as_failed():
    (result,) = run(Step("x", python("print('5 passed in 1.00s'); raise SystemExit(3)")))
    assert numbers(result) == (5, 1, 0)


def test_what_another_python_did_not_run_counts_as_skipped():
    whole = Step("全部", python("print('9 passed, 1 skipped in 1.00s')"))
    part = Step("部分", python("print('4 passed in 1.00s')"), part_of="全部")
    absent = Step("没有", part_of="全部", note="没有找到 Python 3.13")
    results = run(whole, part, absent)
    assert [numbers(item) for item in results] == [(9, 0, 1), (4, 0, 6), (0, 0, 10)]
    assert [item.word for item in results] == ["✓ 通过", "✓ 通过", "－ 跳过"]


def test_the_summary_ends_with_totals_and_keeps_the_columns_straight():
    results = [
        Result("代码风格", 0, 1, 0, 0, 0.2),
        Result("单元测试", 1, 40, 2, 3, 61.0),
        Result("py", 0, 0, 0, 5, 0.0, "没有找到"),
    ]
    *rows, total = summary(results).splitlines()
    assert total == "41 passed, 2 failed, 8 skipped"
    assert len(rows) == 4 and rows[2].split()[:2] == ["单元测试", "✗"]
    assert rows[3].endswith("没有找到")
    ends = [len(row[: row.index(" 秒")].encode("gbk", "replace")) for row in rows[1:]]
    assert len(set(ends)) == 1


def test_quiet_streaming_collects_without_showing(capsys):
    code, text = stream(python("print('悄悄')"), {**os.environ, **UTF8}, ROOT, echo=False)
    assert (code, text.strip(), capsys.readouterr().out) == (0, "悄悄", "")


UTF8 = {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
WELL_BEHAVED = """
import sys, time
print("开始", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("✗ 停在 01_tensors 单元 fig-loss"); sys.exit(130)
"""
RUDE = "import time; print('开始', flush=True); time.sleep(60)"
PARENT = """
import os, sys
sys.path.insert(0, {root!r})
from tools import book, recipes
from pathlib import Path
from tools.steps import stream
child = [sys.executable, "-c", {child!r}]
recipes.run = lambda *_: stream(child, os.environ, Path("."))[0]
sys.exit(book.main(["book"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows 不能只给一个进程发 Ctrl-C")
@pytest.mark.parametrize(
    ("child", "line"),
    [(WELL_BEHAVED, "✗ 停在 01_tensors 单元 fig-loss"), (RUDE, "✗ 已按 Ctrl-C 停下")],
)
def test_ctrl_c_leaves_one_line_and_exit_code_130(child, line):
    code = PARENT.format(root=str(ROOT), child=child)
    # 在 nohup 或后台脚本里 SIGINT 是被忽略的，子进程会照抄；先恢复它
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        python(code),
        env={**os.environ, **UTF8},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )
    with process:
        assert process.stdout.read(4096).decode("utf-8").strip() == "开始"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().decode("utf-8").strip()
    assert process.returncode == 130
    assert len(rest.splitlines()) == 1 and rest.startswith(line)
