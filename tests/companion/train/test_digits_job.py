"""数字作业：十行代码真跑两次，第二次接着第一次练。"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.bench_job import JOBS, LIMIT
from benchmarks.counting import code_size

JOB = JOBS / "digits_companion.py"


def run_job(folder: Path, epochs: int) -> str:
    command = [sys.executable, "-W", "error", JOB, str(epochs)]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_digits_job_is_within_ten_lines_and_120_tokens():
    size = code_size(JOB)
    assert size["lines"] <= LIMIT["lines"] == 10
    assert size["tokens"] <= LIMIT["tokens"] == 120


def test_second_run_of_the_digits_job_trains_only_what_is_left(tmp_path: Path):
    first, second = run_job(tmp_path, 2), run_job(tmp_path, 3)
    assert "训练了 46 步" in first and "继续" not in first
    assert "训练了 23 步" in second and "继续 digits" in second
    with (tmp_path / "digits" / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    losses = [float(row["valid_loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    saved = [json.loads(p.read_text("utf-8")) for p in tmp_path.glob("digits/save-*/manifest.json")]
    assert sorted(save["info"]["epoch"] for save in saved) == [2, 3]
