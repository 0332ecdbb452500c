"""每道习题：没作答得 ◌，把解答换进作答单元得 ✓；整章按顺序跑得通。"""

from __future__ import annotations

import re

import pytest

from tools.notebooks import chapter_paths, read_notebook
from tools.proven import chapter_proof

CHAPTERS = {path.stem: read_notebook(path) for path in chapter_paths()}
EXERCISES = [
    (chapter, match[1])
    for chapter, notebook in CHAPTERS.items()
    for cell in notebook.cells
    if (match := re.fullmatch(r"ex-(.+)-try", cell.id))
]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_chapter_runs_in_order_without_a_kernel(chapter):
    assert chapter_proof(chapter)["errors"] == {}


@pytest.mark.parametrize(("chapter", "exercise"), EXERCISES)
def test_the_solution_answers_its_exercise(chapter, exercise):
    proof = chapter_proof(chapter)
    if not proof["forked"]:
        pytest.skip("这个系统不能分叉进程，没有换进解答")
    assert proof["exercises"][exercise] == ""
