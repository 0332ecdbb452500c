"""每个 Python 文件都能在正在运行的这个解释器上编译，没有语法警告。"""

import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    path
    for folder in ("src", "tools", "site", "tests", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_there_are_sources_to_compile():
    assert ROOT / "tools" / "book.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_compiles_without_warnings(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
