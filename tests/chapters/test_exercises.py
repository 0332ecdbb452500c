"""每道习题：没作答得 ◌，把解答换进作答单元得 ✓。"""

from __future__ import annotations

import re

import pytest

from tools.notebooks import chapter_paths, read_notebook

CHAPTERS = {path.stem: read_notebook(path) for path in chapter_paths()}
EXERCISES = [
    (chapter, match[1])
    for chapter, notebook in CHAPTERS.items()
    for cell in notebook.cells
    if (match := re.fullmatch(r"ex-(.+)-try", cell.id))
]


@pytest.mark.parametrize(("chapter", "exercise"), EXERCISES)
def test_the_solution_answers_its_exercise(report_of, chapter, exercise):
    assert report_of(chapter)[f"ex-{exercise}-try"] == ""
