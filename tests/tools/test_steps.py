"""逐步运行与小结：用真的子进程测。"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.steps import Result, Step, run_steps, stream, summary

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def run(*steps: Step) -> list[Result]:
    return run_steps(steps, os.environ, ROOT)


def numbers(result: Result) -> tuple[int, int, int]:
    return result.passed, result.failed, result.skipped


OUTCOMES = """
import pytest
@pytest.fixture
def broken():
    yield
    raise OSError("收尾")
def test_passes(): print("9 passed in 1.00s")
def test_fails(): assert 1 == 2
def test_is_skipped(): pytest.skip("这里不行")
@pytest.mark.xfail
def test_fails_as_expected(): assert 1 == 2
@pytest.mark.xfail(strict=False)
def test_passes_unexpectedly(): pass
def test_whose_teardown_fails(broken): pass
"""


def suite(folder: Path, text: str, *options: str) -> Step:
    """一步真的 pytest，跑 ``text``。"""
    (folder / "test_it.py").write_text(text, encoding="utf-8")
    where = ["-q", "-c", os.devnull, f"--rootdir={folder}", "-p", "no:cacheprovider"]
    return Step("x", [sys.executable, "-m", "pytest", *where, *options, str(folder)], tests=True)


@pytest.mark.parametrize("options", [(), ("-q",), ("--color=yes",), ("--no-summary",)])
def test_every_outcome_of_pytest_is_counted_whatever_it_shows(tmp_path, options):
    (result,) = run(suite(tmp_path, OUTCOMES, *options))
    assert numbers(result) == (2, 2, 2) and result.code == 1


def test_a_file_that_cannot_be_collected_counts_as_failed(tmp_path):
    assert numbers(*run(suite(tmp_path, "import nosuch_module"))) == (0, 1, 0)


@pytest.mark.parametrize(
    "text", ["", "def test_it(): import os; os._exit(0)", "import os; os._exit(0)"]
)
def test_a_suite_that_ran_no_test_to_its_end_counts_as_failed(tmp_path, text):
    assert numbers(*run(suite(tmp_path, text))) == (0, 1, 0)


JUNIT = "<testsuites><testsuite><testcase/>%s</testsuite></testsuites>"


def writes(*reports: str, code: int = 0, **fields: str) -> Step:
    """一步装作 pytest 的程序：写下几份 junit 文件，退出码是 ``code``。"""
    script = f"""
import sys
from pathlib import Path
path = Path(sys.argv[-1].removeprefix("--junitxml="))
for i, report in enumerate({reports}):
    path.with_stem(f"{{path.stem}}-{{i}}").write_text(report)
raise SystemExit({code})"""
    return Step(fields.pop("name", "x"), python(script), tests=True, **fields)


def test_a_step_that_runs_pytest_several_times_adds_up():
    assert numbers(*run(writes(JUNIT % "", JUNIT % "<testcase><skipped/></testcase>"))) == (2, 0, 1)


def test_a_report_that_was_cut_off_counts_as_failed():
    assert numbers(*run(writes((JUNIT % "")[:-9]))) == (0, 1, 0)


def test_reports_of_one_step_do_not_serve_the_next():
    assert [numbers(item) for item in run(writes(JUNIT % ""), writes())] == [(1, 0, 0), (0, 1, 0)]


def test_words_about_passing_are_not_counted():
    assert numbers(*run(Step("x", python("print('5 passed in 1.00s')")))) == (1, 0, 0)


def test_a_failing_step_does_not_stop_the_rest(capsys):
    results = run(Step("坏", python("raise SystemExit(3)")), Step("好", python("print('到了')")))
    assert [numbers(item) for item in results] == [(0, 1, 0), (1, 0, 0)]
    assert "到了" in capsys.readouterr().out


def test_a_crash_of_pytest_after_passing_tests_still_counts_as_failed():
    assert numbers(*run(writes(JUNIT % "<testcase/>", code=3))) == (2, 1, 0)


def test_what_another_python_did_not_run_counts_as_skipped():
    whole = writes(JUNIT % ("<testcase/>" * 8 + "<testcase><skipped/></testcase>"), name="全部")
    part = writes(JUNIT % ("<testcase/>" * 3), name="部分", part_of="全部")
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
