"""测量页的生成：数字照抄 JSON，作废和没测过的照实说；比值与代码行数的算法。"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks.common import ratio
from benchmarks.counting import code_size

ROOT = Path(__file__).resolve().parents[2]
application = pytest.importorskip("sphinx.application", reason="没有装建站的依赖")
sys.path.insert(0, str(ROOT / "site"))
bench_text = importlib.import_module("book_ext.benches").bench_text

WHERE = {
    "date": "2026-11-21", "machine": "Linux x86_64", "cpu": "某处理器", "cores": 2,
    "load": [0.1, 0.2, 0.3], "device_name": None, "python": "3.11.7",
    "versions": {"torch": "2.15.0", "keras": None},
    "command": "python benchmarks/bench_step.py",
}  # fmt: skip


def arm(name: str, **changes: object) -> dict[str, object]:
    row = {"arm": name, "bar": "off", "loader": "DataLoader", "valid": True}
    row |= {"ratio": 1.234, "low": 1.2, "high": 1.261, "plain_us": {"median": 281.4}}
    return {**row, **changes}


def test_step_table_shows_ratio_interval_and_conditions():
    text = "\n".join(bench_text("step", {**WHERE, "rows": [arm("ignite")]}))
    assert "| ignite | 1.23 [1.20, 1.26] | — |" in text
    for piece in ("2026-11-21", "某处理器（2 核）", "torch 2.15.0", "bench_step.py", "281 µs"):
        assert piece in text
    assert "keras" not in text, "没有装的包没有版本可写"


def test_row_with_other_weights_shows_no_number():
    rows = [arm("fit"), arm("lightning", valid=False), {**arm("ignite"), "error": "没装"}]
    lines = bench_text("step", {**WHERE, "rows": rows})
    assert "| lightning | 权重不同，作废 | — |" in lines
    assert "| ignite | 没有跑完 | — |" in lines


def test_missing_result_is_said_not_hidden():
    assert bench_text("step_accelerator", None) == ["还没有测过，所以这里没有数字。"]


@pytest.mark.filterwarnings("default")  # Sphinx 与 docutils 自己的弃用提示
def test_page_holds_the_table_as_html(tmp_path: Path):
    source, results = tmp_path / "书", tmp_path / "书" / "benchmarks" / "results"
    results.mkdir(parents=True)
    report = {**WHERE, "rows": [arm("fit")]}
    (results / "step.json").write_text(json.dumps(report), encoding="utf-8")
    text = "# 页\n\n```{bench-table} step\n```\n\n```{bench-table} step_accelerator\n```\n"
    (source / "index.md").write_text(text, encoding="utf-8")
    settings = {"extensions": ["myst_nb", "book_ext.benches"], "html_theme": "basic"}
    settings |= {"nb_execution_mode": "off"}
    folders = (source, None, tmp_path / "out", tmp_path / "doctrees")
    application.Sphinx(*folders, "html", settings, status=None, warning=None).build()
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "1.23 [1.20, 1.26]" in html and "<table" in html and "还没有测过" in html


def test_resume_table_names_the_outcome_of_each_fault():
    row = {
        "peer": "fastai",
        "epoch": {"exact": True, "steps": 40, "left": 40},
        "middle": {"exact": False, "error": "IndexError"},
        "killed": {"result": "error_intact"},
    }
    lines = bench_text("resume", {**WHERE, "rows": [row]})
    assert "| fastai | **逐位相同**（40/40） | 报错 | 上一份完好，但报错，要手工删掉坏的 |" in lines


def test_ratio_is_the_median_of_pairs_inside_its_interval():
    found = ratio([2.0, 2.2, 1.8, 2.0, 2.1], [1.0, 1.0, 1.0, 1.0, 1.0])
    assert found["ratio"] == 2.0
    assert 1.8 <= found["low"] <= 2.0 <= found["high"] <= 2.2
    assert ratio([3.0] * 5, [2.0] * 5) == {"ratio": 1.5, "low": 1.5, "high": 1.5}


def test_code_size_skips_docstring_comments_and_blank_lines(tmp_path: Path):
    file = tmp_path / "job.py"
    file.write_text('"""说明。"""\n\n# 注释\nx = f(\n    1,\n)\n', encoding="utf-8")
    assert code_size(file) == {"lines": 3, "tokens": 7}
