"""同一个作业，各家要写多少代码：训练、验证、最好与最近的存档、接着练、日志、早停。

作业在 ``benchmarks/jobs``；数据和网络由 ``given.py`` 给，其余（连同 import）都算。每份作业真跑
两次：第一次 3 轮，第二次 5 轮；第二次只练剩下的 2 轮（46 步），才算接上了。

用法：python benchmarks/bench_job.py
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import ROOT, conditions, write
from benchmarks.counting import code_size
from benchmarks.peers import peers_python
from tools.fixed import ENVIRONMENT

__all__ = ["JOBS", "main", "run_twice"]

JOBS = ROOT / "benchmarks" / "jobs"
LIMIT = {"lines": 10, "tokens": 120}
STEPS = (69, 46)  # 1437 张，批量 64，一轮 23 步：先 3 轮，再 2 轮


def run_twice(job: Path, python: Path, folder: Path) -> list[dict[str, Any]]:
    """在 ``folder`` 里把作业跑两次，返回每次的步数、退出码和最后几行输出。"""
    found = []
    env = {**os.environ, **ENVIRONMENT, "PYTHONIOENCODING": "utf-8", "KERAS_BACKEND": "torch"}
    for epochs in ("3", "5"):
        done = subprocess.run(
            [str(python), "-W", "ignore", str(job), epochs],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            cwd=folder,
            env=env,
            timeout=300,
        )
        steps = re.search(r"训练了 (\d+) 步", done.stdout)
        found.append(
            {
                "steps": int(steps[1]) if steps else None,
                "exit_code": done.returncode,
                "said": done.stdout[-600:],
            }
        )
    return found


def row(job: Path) -> dict[str, Any]:
    """一份作业的行数、词元数，两次运行是否都成、第二次是否接上。"""
    name = job.stem.removeprefix("digits_")
    with tempfile.TemporaryDirectory() as folder:
        runs = run_twice(job, peers_python(), Path(folder))
    ran = all(run["exit_code"] == 0 for run in runs)
    resumed = ran and tuple(run["steps"] for run in runs) == STEPS
    size = code_size(job)
    kept = [{key: run[key] for key in ("steps", "exit_code")} for run in runs]
    steps = " + ".join(str(run["steps"]) for run in runs)
    print(f"{name:<13}{size['lines']:>4} 行{size['tokens']:>5} 词元  步数 {steps}", flush=True)
    if not ran:
        print(next(run["said"] for run in runs if run["exit_code"]), flush=True)
    return {"job": name, **size, "ran": ran, "resumed": resumed, "runs": kept}


def main() -> None:
    """数完、跑完各家的作业，写 JSON。"""
    rows = sorted((row(job) for job in JOBS.glob("digits_*.py")), key=lambda r: r["tokens"])
    ours = next(found for found in rows if found["job"] == "companion")
    small = all(ours[what] <= LIMIT[what] for what in LIMIT)
    report = {
        "what": "数字作业要写多少代码；两次运行，第二次有没有接着练",
        **conditions("lightning", "pytorch-ignite", "accelerate", "skorch", "keras", "fastai"),
        "limit": LIMIT,
        "passed": small and ours["resumed"],
        "rows": rows,
    }
    write("job", report)


if __name__ == "__main__":
    main()
