"""用一个新内核从头跑完一本笔记本，量出用时和内存峰值；哪里不对就停在哪里。"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)

from tools.fixed import ENVIRONMENT
from tools.notebooks import Notebook, ToolError, tags

__all__ = ["CellFailure", "Measured", "kernel_environment", "run_notebook"]

CELL_TIMEOUT_S = 600
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
PORTABLE_MIMES = {"text/plain", "text/html", "text/markdown", "image/png"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}


class CellFailure(ToolError):
    """某个单元没有按约定跑完；消息以单元 id 开头。"""


class Measured(NamedTuple):
    """一章的实测：用时（秒）、内核内存峰值（MB，量不到时为 None）。"""

    seconds: float
    peak_mb: int | None


def kernel_environment(source: Path) -> dict[str, str]:
    """返回内核的环境变量：固定的线程数与指令集，``companion`` 取自 ``source``。"""
    search = [str(source), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, search))}


def run_notebook(
    notebook: Notebook,
    folder: Path,
    environment: Mapping[str, str],
    on_cell: Callable[[int, str], None] = lambda number, name: None,
) -> Measured:
    """返回实测值；输出就地写进 ``notebook``，内核的工作目录是 ``folder``。

    ``on_cell(number, name)`` 在每个代码单元开始前调用，``number`` 从 1 数起。

    Raises:
        CellFailure: 单元出错、该错没错、往 stderr 写了东西，或内核中途退出。
    """
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    start = time.perf_counter()
    with client.setup_kernel(env=dict(environment), stderr=subprocess.DEVNULL):  # 只留单元输出
        number = 0
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            number += 1
            on_cell(number, cell.id)
            _run_cell(client, cell, index, number)
        seconds = time.perf_counter() - start
        peak_mb = _peak_mb(client.km.provisioner.pid)
    notebook.metadata["language_info"] = dict(LANGUAGE)
    return Measured(round(seconds, 1), peak_mb)


def _run_cell(client: NotebookClient, cell: Notebook, index: int, number: int) -> None:
    try:
        client.execute_cell(cell, index, execution_count=number)
    except CellExecutionError as error:
        raise CellFailure(f"{cell.id}：{error.ename}: {_plain(error.evalue)}") from error
    except CellTimeoutError as error:
        raise CellFailure(f"{cell.id}：超过 {CELL_TIMEOUT_S} 秒还没跑完；请缩小它。") from error
    except DeadKernelError as error:
        raise CellFailure(f"{cell.id}：内核中途退出了，多半是内存不够。") from error
    if problem := _problem(cell):
        raise CellFailure(f"{cell.id}：{problem}")
    for output in cell.outputs:
        if output.output_type == "error":
            output.evalue = _plain(output.evalue)
            output.traceback = [f"{output.ename}: {output.evalue}"]


def _problem(cell: Notebook) -> str | None:
    kinds = [output.output_type for output in cell.outputs]
    if "raises-exception" in tags(cell) and "error" not in kinds:
        return "标了 raises-exception 却没有报错；去掉标签，或让它真的出错。"
    for output in cell.outputs:
        if output.get("name") == "stderr" and "allow-stderr" not in tags(cell):
            return f"意外的 stderr：{_last_line(output.text)}；消除警告，或加标签 allow-stderr。"
        foreign = sorted(set(output.get("data", ())) - PORTABLE_MIMES)
        if foreign:
            return f"输出里有 {'、'.join(foreign)}；只用文字、HTML 或 PNG。"
    return None


def _plain(text: Any) -> str:
    return ANSI.sub("", str(text)).strip()


def _last_line(text: str) -> str:
    lines = [line for line in _plain(text).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "（空行）"


def _peak_mb(pid: int) -> int | None:
    """内核进程的常驻内存峰值：Linux 读 VmHWM，Windows 问系统，别处量不到。"""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        return int(found[1]) // 1024 if found else None
    peak = getattr(psutil.Process(pid).memory_info(), "peak_wset", None)
    return None if peak is None else int(peak) // 2**20
