"""一步一步运行命令：边跑边显示，记下结果和用时，最后排成一张表。

跑 pytest 的步骤，通过几个、没过几个取自它写的 junit 文件，不读它显示的字。
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

__all__ = [
    "Interrupted",
    "Result",
    "Step",
    "display_width",
    "run_steps",
    "stream",
    "summary",
]


class Interrupted(KeyboardInterrupt):
    """读者按了 Ctrl-C；``line`` 是子程序为此说的那一行，没说就是空串。"""

    def __init__(self, line: str = "") -> None:
        super().__init__(line)
        self.line = line


@dataclass(frozen=True)
class Step:
    """一步。``command`` 为空表示这里做不了，记作跳过；``note`` 说明原因。

    ``tests`` 为真表示它跑的是 pytest：认得 ``--junitxml=文件``，文件没写出来就算没过。
    ``part_of`` 是另一步的名字：那一步的测试里，这一步没有跑到的都记作跳过。
    """

    name: str
    command: Sequence[str | Path] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    part_of: str = ""
    note: str = ""
    tests: bool = False


@dataclass(frozen=True)
class Result:
    """一步的结果；``seconds`` 是用时，单位秒。"""

    name: str
    code: int
    passed: int
    failed: int
    skipped: int
    seconds: float
    note: str = ""

    @property
    def word(self) -> str:
        if self.code or self.failed:
            return "✗ 没过"
        return "✓ 通过" if self.passed else "－ 跳过"


def stream(
    command: Sequence[str | Path], env: Mapping[str, str], cwd: Path, *, echo: bool = True
) -> tuple[int, str]:
    """返回 ``(退出码, 全部输出)``；``echo`` 时边跑边显示。

    子程序不直接收 Ctrl-C，由这里转交，才能保证读者只看到一行。

    Raises:
        Interrupted: 运行途中按了 Ctrl-C。
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(env),
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=os.name != "nt",
    )
    pieces = []
    with process:
        try:
            while piece := process.stdout.read(65536):
                pieces.append(piece)
                if echo:
                    sys.stdout.buffer.write(piece)
                    sys.stdout.buffer.flush()
        except KeyboardInterrupt:
            raise Interrupted(_stop(process)) from None
    return process.returncode, b"".join(pieces).decode("utf-8", "replace")


def _stop(process: subprocess.Popen) -> str:
    """转交 Ctrl-C，等子程序收尾；返回它以 130 退出时说的最后一行。"""
    _tell_group(process, "SIGINT")
    try:
        rest, _ = process.communicate(timeout=20)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        _tell_group(process, "SIGKILL")
        process.kill()
        return ""
    lines = rest.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines and process.returncode == 130 else ""


def _tell_group(process: subprocess.Popen, name: str) -> None:
    """把信号发给子程序和它的子程序；Windows 的控制台自己会通知它们。"""
    if os.name != "nt":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, getattr(signal, name))


def run_steps(steps: Sequence[Step], env: Mapping[str, str], cwd: Path) -> list[Result]:
    """依次运行每一步，一步没过也做完其余的。"""
    results: list[Result] = []
    for number, step in enumerate(steps, 1):
        print(f"── [{number}/{len(steps)}] {step.name}", flush=True)
        results.append(_run(step, env, cwd, results))
        result = results[-1]
        note = f"（{result.note}）" if result.note else ""
        print(f"   {result.word}，{result.seconds:.1f} 秒{note}", flush=True)
    return results


def _run(step: Step, env: Mapping[str, str], cwd: Path, before: list[Result]) -> Result:
    start, code = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        report = [f"--junitxml={Path(folder, 'tests.xml')}"] if step.tests else []
        if step.command:
            code, _ = stream([*step.command, *report], {**env, **step.env}, cwd)
        counts = _pytest_counts(Path(folder))
    if not step.tests:  # 整步算一个
        counts["passed" if step.command else "skipped"] = int(not code)
    if code or not any(counts.values()):  # 后一种是没写完 junit 文件，或一个测试也没有
        counts["failed"] = counts["failed"] or 1
    for whole in before:
        if whole.name == step.part_of:
            ran = counts["passed"] + counts["failed"] if step.command else 0
            counts["skipped"] = max(whole.passed + whole.failed + whole.skipped - ran, 0)
    seconds = time.perf_counter() - start
    return Result(step.name, code, **counts, seconds=seconds, note=step.note)


def _pytest_counts(folder: Path) -> dict[str, int]:
    """返回 ``folder`` 里全部 junit 文件之和：一步可以跑几次 pytest；没写完的不算。"""
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for path in folder.glob("*.xml"):
        with contextlib.suppress(ElementTree.ParseError):
            for case in ElementTree.parse(path).iter("testcase"):
                kinds = {child.tag for child in case}
                bad = "failed" if kinds & {"failure", "error"} else ""
                counts[bad or ("skipped" if "skipped" in kinds else "passed")] += 1
    return counts


def summary(results: Sequence[Result]) -> str:
    """返回小结：一步一行的表，最后一行是 ``N passed, N failed, N skipped``。"""
    rows = [("步骤", "结果", "通过", "没过", "跳过", "用时", "")]
    for item in results:
        numbers = (str(item.passed), str(item.failed), str(item.skipped))
        rows.append((item.name, item.word, *numbers, f"{item.seconds:.1f} 秒", item.note))
    widths = [max(display_width(row[i]) for row in rows) for i in range(6)]
    lines = []
    for row in rows:
        cells = [
            _pad(text, width, i > 1)
            for i, (text, width) in enumerate(zip(row[:6], widths, strict=True))
        ]
        lines.append("  ".join([*cells, row[6]]).rstrip())
    total = [sum(getattr(item, key) for item in results) for key in ("passed", "failed", "skipped")]
    return "\n".join([*lines, "{} passed, {} failed, {} skipped".format(*total)])


def display_width(text: str) -> int:
    """返回一行字占的列数：汉字和全角标点算 2 列。"""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _pad(text: str, width: int, right: bool) -> str:
    blank = " " * (width - display_width(text))
    return blank + text if right else text + blank
