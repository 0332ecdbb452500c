"""测量结果的表格：读 ``benchmarks/results`` 里的 JSON，写成 Markdown。没有结果的，照实说。"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

__all__ = ["TABLES", "bench_text", "setup"]

Report = dict[str, Any]
ARMS = {
    "plain": "手写循环（和它自己比）",
    "fit": "**companion：`fit`**",
    "run": "**companion：自己的循环套 `Run`**，每轮存盘",
}
PEERS = {
    "companion_run": "**companion：自己的循环套 `Run`**",
    "companion_fit": "**companion：`fit`**",
    "plain": "手写循环，每轮 `torch.save`",
    "ignite_deterministic": "ignite（DeterministicEngine）",
}
JOBS = {"companion": "**companion**", "plain": "手写循环", "keras": "keras（torch 后端）"}
KILLED = {
    "intact": "完好，自己接上",
    "again": "不报错，但重练了一些",
    "error_intact": "上一份完好，但报错，要手工删掉坏的",
    "error_broken": "唯一的一份坏了",
}


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """一张 Markdown 表，第一列靠左，其余靠右。"""
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def step_table(report: Report) -> list[str]:
    """训练一步的开销：一家一行，进度条关、开各一列。"""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in report["rows"]:
        cells.setdefault((row["loader"], row["arm"]), {})[row["bar"]] = _ratio(row)
    rows = []
    for (loader, arm), bars in cells.items():
        note = "" if loader == "DataLoader" else f"，加载器是 `{loader}`"
        rows.append([ARMS.get(arm, arm) + note, bars.get("off", "—"), bars.get("on", "—")])
    lines = table(["哪一家", "进度条关", "进度条开"], rows)
    plain = [row["plain_us"]["median"] for row in report["rows"] if "plain_us" in row]
    middle = sorted(plain)[len(plain) // 2]
    return [*lines, "", f"方括号里是 95% 区间。手写循环一步约 {middle:.0f} µs。"]


def _ratio(row: Report) -> str:
    if "error" in row:
        return "没有跑完"
    if not row["valid"]:
        return "权重不同，作废"
    return f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def loader_table(report: Report) -> list[str]:
    """送图片的速度。"""
    rows = [
        [
            row["way"],
            f"{row['per_second']['cpu']['median'] / 1e4:.1f} 万",
            f"{row['times_base']['cpu']['ratio']:.2f}",
            f"{row['times_base']['wall']['ratio']:.2f}",
        ]
        for row in report["rows"]
    ]
    return table(["送法", "张/秒（CPU 时间）", "倍数（CPU）", "倍数（墙钟）"], rows)


def import_table(report: Report) -> list[str]:
    """导入的时间。"""
    names = {"own_wall_s": "这一句 import 自己", "extra_cpu_s": "整个进程多出的 CPU 时间"}
    names["torch_cpu_s"] = "对照：只 `import torch`"
    head = ["量的是", "中位数（秒）", "四分位距"]
    return table(
        head,
        [[v, f"{report[k]['median']:.3f}", f"{report[k]['iqr']:.3f}"] for k, v in names.items()],
    )


def job_table(report: Report) -> list[str]:
    """同一个作业要写多少代码。"""
    rows = []
    for row in report["rows"]:
        name = JOBS.get(row["job"], row["job"])
        again = "接上了" if row["resumed"] else "没有接上" if row["ran"] else "没有跑完"
        rows.append([name, str(row["lines"]), str(row["tokens"]), again])
    return table(["哪一家", "行", "词元", "第二次运行"], rows)


def resume_table(report: Report) -> list[str]:
    """接着练是不是同一次训练。"""
    rows = [
        [
            PEERS.get(row["peer"], row["peer"]),
            _same(row["epoch"]),
            _same(row["middle"]),
            KILLED[row["killed"]["result"]],
        ]
        for row in report["rows"]
    ]
    return table(["哪一家", "轮末断", "轮中断", "存盘中被杀"], rows)


def _same(found: Report) -> str:
    if "error" in found:
        return "报错"
    word = "**逐位相同**" if found["exact"] else "不同"
    return f"{word}（{found['steps']}/{found['left']}）"


TABLES: dict[str, Callable[[Report], list[str]]] = {
    "step": step_table,
    "step_accelerator": step_table,
    "loader": loader_table,
    "loader_accelerator": loader_table,
    "import": import_table,
    "job": job_table,
    "resume": resume_table,
}


def conditions(report: Report) -> str:
    """在什么条件下测的，一句话。"""
    versions = "，".join(
        f"{name} {number}" for name, number in report["versions"].items() if number
    )
    load = "" if report["load"] is None else f"，负载 {report['load'][0]}"
    device = report.get("device_name")
    if device in (None, "cpu"):
        device = f"{report['cpu']}（{report['cores']} 核）"
    return (
        f"{report['date']}，{device}，{report['machine']}{load}，"
        f"Python {report['python']}，{versions}。命令：`{report['command']}`"
    )


def bench_text(name: str, report: Report | None) -> list[str]:
    """``name`` 这一项的 Markdown，一行一个元素；还没有测过时是一句话。"""
    if report is None:
        return ["还没有测过，所以这里没有数字。"]
    return [*TABLES[name](report), "", conditions(report)]


class BenchDirective(SphinxDirective):
    """```` ```{bench-table} step ````：一项测量的表和条件。"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        path = Path(self.env.srcdir, "benchmarks", "results", f"{name}.json")
        self.env.note_dependency(str(path))
        report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        holder = nodes.container(classes=["book-bench"])
        text = StringList(bench_text(name, report), str(path))
        self.state.nested_parse(text, self.content_offset, holder)
        return [holder]


def setup(app: Sphinx) -> None:
    app.add_directive("bench-table", BenchDirective)
