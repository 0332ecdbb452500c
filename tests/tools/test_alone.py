"""单独打开的章节：伴学包来自轮子，条件严格，漏写编码要失败。"""

from __future__ import annotations

import os

import pytest

from tools.alone import Desk, desk, walk
from tools.notebooks import ToolError

PYPROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tiny"
version = "0.1.0"
[tool.setuptools.packages.find]
where = ["src"]
"""
COMPANION = """from pathlib import Path
def careless():
    return len(Path(__file__).read_text())
def careful():
    return len(Path(__file__).read_text(encoding="utf-8")) > 0
"""
STRICT = """import multiprocessing, pathlib, shutil
import companion
assert multiprocessing.get_start_method() == "spawn"
assert shutil.which("cc") is None and shutil.which("gcc") is None
assert pathlib.Path.cwd().name == "我的 笔记"
assert list(pathlib.Path.cwd().iterdir()) == [pathlib.Path.cwd() / "01_one.ipynb"]
assert pathlib.Path(companion.__file__).parts[-3] == "轮子"
assert companion.careful()"""
NO_TOOLS = """import pathlib, sys
folders = [pathlib.Path(folder) for folder in sys.path]
assert not any((f / "tools").exists() or (f / "walk.py").exists() for f in folders)"""


def test_a_chapter_runs_from_the_wheel_under_strict_conditions(book, cell):
    book.write("pyproject.toml", PYPROJECT)
    book.write("src/companion/__init__.py", COMPANION)
    book.write("site/routes.toml", "route = []\n")
    book.write("tests/coverage.yml", "")
    path = book.chapter(
        "01_one",
        cell("strict", STRICT),
        cell("no-tools", NO_TOOLS),
        cell("careless", "n = companion.careless()"),
        cell("own-careless", "text = open(companion.__file__).close()"),
        cell("err-div", "1 / 0", "raises-exception"),
    )
    with desk(book.root) as place:
        report = walk(path, place, book.root)
    found = [line.partition(": ")[0] for line in report["★"].split("；")]
    assert found == ["careless：EncodingWarning", "own-careless：EncodingWarning"]
    assert not place.notes.exists()


def test_a_companion_that_is_not_of_the_wheel_is_refused(book):
    book.write("pyproject.toml", PYPROJECT)
    book.write("src/companion/__init__.py", "").rename(book.write("src/other/__init__.py", ""))
    with pytest.raises(ToolError, match="companion"), desk(book.root):
        pass


def test_a_walk_that_does_not_end_is_an_error_that_says_why(book, cell):
    book.write("site/routes.toml", "route = []\n")
    book.write("tests/coverage.yml", "")
    path = book.chapter("01_one", cell("gone", "import os; os._exit(3)"))
    place = Desk(book.write("notes/x", "").parent, dict(os.environ))
    with pytest.raises(ToolError, match="退出码 3"):
        walk(path, place, book.root)
