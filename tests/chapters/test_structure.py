"""章节的规矩：规范形式、检查规则都通过。"""

from __future__ import annotations

import pytest
import yaml

from tools.nb_format import canonical_text
from tools.nb_lint import lint
from tools.notebooks import ROOT, chapter_paths, read_notebook

CHAPTERS = {path.stem: path for path in chapter_paths()}


@pytest.mark.parametrize("path", CHAPTERS.values(), ids=CHAPTERS)
def test_the_file_is_canonical(path):
    stored = path.read_bytes().decode("utf-8")
    assert stored == canonical_text(read_notebook(path)), "运行 make format"


@pytest.mark.parametrize("path", CHAPTERS.values(), ids=CHAPTERS)
def test_the_chapter_keeps_the_rules(path):
    assert [f"{finding.cell_id}: {finding.message}" for finding in lint(path)] == []


def test_each_numbered_chapter_stands_in_the_contents_under_its_own_number():
    """标题漏了或挂错了一章，左侧目录就对不上。"""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    entries = [entry for part in contents["parts"] for entry in part["chapters"]]
    numbered = [e for e in entries if e["file"].removeprefix("chapters/")[:2].isdigit()]
    wrong = [
        entry["file"]
        for entry in numbered
        if entry.get("title", "").split("\u3000")[0] != str(int(entry["file"].split("/")[1][:2]))
    ]
    assert wrong == [] and len(numbered) >= 5
