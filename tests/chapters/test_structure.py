"""章节的规矩：规范形式、检查规则都通过。"""

from __future__ import annotations

import pytest

from tools.nb_format import canonical_text
from tools.nb_lint import lint
from tools.notebooks import chapter_paths, read_notebook

CHAPTERS = {path.stem: path for path in chapter_paths()}


@pytest.mark.parametrize("path", CHAPTERS.values(), ids=CHAPTERS)
def test_the_file_is_canonical(path):
    stored = path.read_bytes().decode("utf-8")
    assert stored == canonical_text(read_notebook(path)), "运行 make format"


@pytest.mark.parametrize("path", CHAPTERS.values(), ids=CHAPTERS)
def test_the_chapter_keeps_the_rules(path):
    assert [f"{finding.cell_id}: {finding.message}" for finding in lint(path)] == []
