"""覆盖表与证明程序：真证明通过，装样子的都被识破。"""

from __future__ import annotations

import sys

import pytest

from tools.coverage import chapter_proof, load, main, problems
from tools.notebooks import ToolError

CELLS = {
    "proved": "x = torch.ones(2, 3)\nassert x.sum().item() == 6",
    "proved-by-call": "x = torch.eye(2)\nassert torch.equal(x, x.T)",
    "proved-by-python": "assert torch.broadcast_shapes((2, 1), (3,)) == (2, 3)",
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
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="分叉进程只在 Linux 上可靠")


def prove(book, cells, covered=()):
    book.chapter("01_tensors", *cells)
    listing = ", ".join(covered)
    book.write("tests/coverage.yml", f"C048: {{chapter: 01_tensors, cell: [{listing}]}}\n")
    return chapter_proof("01_tensors", book.root)


@linux_only
def test_only_a_real_proof_passes(book, cell):
    cells = [cell(name, source) for name, source in CELLS.items()]
    report = prove(book, [cell("start", "import torch\nbefore = 3"), *cells], CELLS)
    for name, why in WHY.items():
        assert why in report["cells"][name] and bool(why) == bool(report["cells"][name]), name
    assert report["errors"] == {}


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
    assert report["errors"] == {"bad": "ZeroDivisionError: division by zero", "err-bad": "没有报错"}


def test_a_proof_without_faults_is_kept_until_something_it_depends_on_changes(book, cell):
    runs = book.root / "runs"

    def times(*cells, covered=()):
        chapter_proof.cache_clear()
        runs.write_text("", encoding="utf-8")
        count = cell("count", f"open({str(runs)!r}, 'a', encoding='utf-8').write('.')")
        report = prove(book, [count, *cells], covered)
        return len(runs.read_text(encoding="utf-8")), report["errors"] | report["cells"]

    one, other = cell("one", "1"), cell("two", "2")
    assert times(one) == (1, {}) and times(one) == (0, {})
    book.write("src/companion/__init__.py", "changed = True\n")
    assert times(one) == (1, {}) and times(one) == (0, {})
    for _ in range(2):  # 有毛病的不留，每次都再看
        assert times(other, covered=["two"]) == (1, {"two": "单元里没有 assert"})
    assert len(list((book.root / "_build" / "proofs").iterdir())) == 1


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
    report = prove(book, cells)["exercises"]
    assert report["good"] == ""
    assert "应得 ◌，得到：✓" in report["given-away"]
    assert "应得 ✓，得到：✗ 不对" in report["wrong"]
    assert "ZeroDivisionError" in report["crash"]


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
