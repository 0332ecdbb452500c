"""覆盖表与证明程序：真证明通过，装样子的都被识破。"""

from __future__ import annotations

import os

import pytest

from tools.alone import Desk, walk
from tools.notebooks import ToolError
from tools.proven import load, main, problems
from tools.session import CAN_FORK

CELLS = {
    "proved": "x = torch.ones(2, 3)\nassert x.sum().item() == 6",
    "proved-by-call": "x = torch.eye(2)\nassert torch.equal(x, x.T)",
    "proved-by-python": "assert torch.broadcast_shapes((2, 1), (3,)) == (2, 3)",
    "in-a-loop": "for i in range(3):\n    assert torch.arange(3)[i] == i",
    "in-a-function": "def same(x):\n    assert torch.equal(x, x)\nsame(torch.ones(2))",
    "not-reached": "def same(x):\n    assert torch.equal(x, x)\ntorch.ones(2)",
    "no-assert": "torch.ones(2)",
    "constant": "x = torch.ones(2)\nassert True",
    "foreign-name": "torch.ones(2)\nassert before == 3",
    "without-torch": "y = 2\nassert y == 2",
    "swallowed": "x = torch.ones(2)\ntry:\n    assert x[0] == 1\nexcept Exception:\n    pass",
    "second-is-empty": "x = torch.ones(2)\nassert x[0] == 1\nif x[0] == 0:\n    assert x[1] == 0",
}
WHY = {
    "proved": "",
    "proved-by-call": "",
    "proved-by-python": "",
    "in-a-loop": "",
    "in-a-function": "",
    "not-reached": "第 1 个 assert 取反后没有失败（照样跑通，或这台机器上走不到它）",
    "no-assert": "没有 assert",
    "constant": "没有比较本单元算出的值",
    "foreign-name": "没有比较本单元算出的值",
    "without-torch": "没有调用 torch",
    "swallowed": "第 1 个 assert 取反后没有失败（照样跑通，或这台机器上走不到它）",
    "second-is-empty": "第 2 个 assert 取反后没有失败（照样跑通，或这台机器上走不到它）",
}
CHECK = """def check(name, answer):
    print("◌" if answer is ... else "✓" if answer == 3 else "✗ 不对", "\\n另一行")
"""
linux_only = pytest.mark.skipif(not CAN_FORK, reason="分叉进程只在 Linux 上可靠")


def prove(book, cells, covered=()):
    path = book.chapter("01_tensors", *cells)
    listing = ", ".join(covered)
    book.write("tests/coverage.yml", f"C048: {{chapter: 01_tensors, cell: [{listing}]}}\n")
    book.write("site/routes.toml", "route = []\n")
    return walk(path, Desk(book.write("notes/x", "").parent, dict(os.environ)), book.root)


@linux_only
def test_only_a_real_proof_passes(book, cell):
    cells = [cell(name, source) for name, source in CELLS.items()]
    report = prove(book, [cell("start", "import torch\nbefore = 3"), *cells], CELLS)
    for name, why in WHY.items():
        assert why in report[name] and bool(why) == bool(report[name]), name
    assert report["★"] == ""


@linux_only
def test_a_proved_cell_runs_once_and_its_functions_stay_as_they_are(book, cell):
    proof = """n = torch.tensor(len(runs.read_text(encoding="utf-8")))
with runs.open("a", encoding="utf-8") as file:
    file.write("x")
def check_one(x):
    assert x == 1, x
for _ in range(2):
    check_one(n + 1)
assert n == 0"""
    after = """try:
    check_one(torch.tensor(2))
except AssertionError as error:
    print(error)
check_one(torch.tensor(1))"""
    runs = book.write("runs.txt", "")
    start = f"import pathlib, torch\nruns = pathlib.Path({str(runs)!r})"
    report = prove(
        book, [cell("start", start), cell("proof", proof), cell("after", after)], ["proof"]
    )
    assert report["proof"] == "" and report["★"] == ""
    assert runs.read_text(encoding="utf-8") == "x"


def test_failing_cells_are_reported_unless_tagged(book, cell):
    report = prove(
        book,
        [
            cell("good", "%precision 3\ndisplay(1)"),
            cell("bad", "1 / 0"),
            cell("err-good", "1 / 0", "raises-exception"),
            cell("err-bad", "1", "raises-exception"),
        ],
    )
    assert report["★"] == "bad：ZeroDivisionError: division by zero；err-bad：没有报错"


@linux_only
def test_exercises_are_solved_by_their_solutions(book, cell):
    cells = [cell("setup", CHECK)]
    for name, attempt, solution in [
        ("good", "...", "3"),
        ("given-away", "3", "3"),
        ("wrong", "...", "4"),
        ("crash", "...", "1 / 0"),
    ]:
        cells.append(cell(f"ex-{name}-try", f"answer = {attempt}\ncheck('', answer)"))
        cells.append(cell(f"sol-{name}", f"answer = {solution}\ncheck('', answer)"))
    report = prove(book, cells)
    assert report["ex-good-try"] == ""
    assert "应得 ◌，得到：✓" in report["ex-given-away-try"]
    assert "应得 ✓，得到：✗ 不对" in report["ex-wrong-try"]
    assert "ZeroDivisionError" in report["ex-crash-try"]


def test_counts_are_printed(book, cell, capsys):
    book.chapter("01_tensors", cell("one", "1"), cell("two", "2"))
    book.write(
        "tests/coverage.yml",
        "T040: {chapter: 01_tensors, cell: one}\nC048: {chapter: 01_tensors, cell: [one, two]}\n",
    )
    assert main(book.root) == 0
    assert capsys.readouterr().out == "主题 1/156 · 论断 1/226\n"


def test_entries_that_point_nowhere_are_named(book, cell, capsys):
    book.chapter("01_tensors", cell("one", "1"))
    book.write(
        "tests/coverage.yml",
        "T040: {chapter: 09_none, cell: one}\nC048: {chapter: 01_tensors, cell: two}\n",
    )
    assert problems(book.root) == ["T040：没有 09_none 这一章", "C048：01_tensors 里没有单元 two"]
    assert main(book.root) == 1
    assert "C048：01_tensors 里没有单元 two" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("C227: {chapter: a, cell: b}", "没有 C227 这个编号"),
        ("X001: {chapter: a, cell: b}", "没有 X001 这个编号"),
        ("C048: {chapter: a}", "C048 应写成"),
        ("C048: a", "C048 应写成"),
    ],
)
def test_malformed_entries_are_refused(book, line, message):
    book.write("tests/coverage.yml", line + "\n")
    with pytest.raises(ToolError, match=message):
        load(book.root)
