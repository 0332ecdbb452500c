"""章节复跑：存下的输出少一个、错一个、漏写编码，都要失败。"""

from __future__ import annotations

import re

import pytest
from nbformat.v4 import new_output

from tools.nbval_run import SANITIZER, validate

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
class Bet:
    def __repr__(self):
        return "赌注"
    def _repr_html_(self):
        return '<script data-companion="bet">let a;\\n</script>'
"""
STRICT = """import multiprocessing, pathlib, shutil
import companion
print(multiprocessing.get_start_method(), shutil.which("cc"), shutil.which("gcc"))
print(pathlib.Path.cwd().name, pathlib.Path(companion.__file__).parts[-3])
companion.careful()"""


STORED_BET = '<script data-companion="bet">bet</script>'


@pytest.mark.filterwarnings("default")  # 内核客户端的套接字清理警告与本书无关
def test_nbval_compares_every_stored_output(book, cell, capfd):
    book.write("pyproject.toml", PYPROJECT)
    book.write("src/companion/__init__.py", COMPANION)
    conditions = "spawn None None\n我的 笔记 轮子\n"
    cells = [
        stored(cell("same", "1"), {"text/plain": "1"}),
        stored(cell("deleted", "2")),
        stored(cell("changed", "3"), {"text/plain": "4"}),
        stored(cell("strict", STRICT), {"text/plain": "True"}, conditions),
        stored(cell("bet", "companion.Bet()"), {"text/plain": "赌注", "text/html": STORED_BET}),
        stored(cell("careless", "n = companion.careless()")),
        stored(cell("own-careless", "text = open(companion.__file__).close()")),
        stored(cell("err-div", "1 / 0", "raises-exception")),
        stored(cell("figure", "display({'image/png': 'aGk=', 'text/plain': '图'}, raw=True)")),
    ]
    cells[7].outputs = [new_output("error", ename="ZeroDivisionError", evalue="division by zero")]
    cells[8].outputs = [new_output("display_data", data={"text/plain": "图"})]
    path = book.chapter("01_one", *cells)
    junit = book.root / "tests.xml"
    code = validate([path], book.root, strict=True, junit=str(junit))
    output = capfd.readouterr().out
    failed = re.findall(r"^FAILED 01_one\.ipynb::Cell (\d)", output, flags=re.MULTILINE)
    assert code == 1
    assert [cells[int(number)].id for number in failed] == [
        "deleted",
        "changed",
        "careless",
        "own-careless",
    ], output
    assert junit.read_text(encoding="utf-8").count("<testcase") == len(cells)


def test_the_sanitizer_is_ascii_so_that_any_platform_reads_it():
    assert SANITIZER.read_bytes().isascii()


def stored(made, data=None, printed=""):
    """给单元配上存下的输出。"""
    made.execution_count = 1
    if printed:
        made.outputs.append(new_output("stream", name="stdout", text=printed))
    if data:
        made.outputs.append(new_output("execute_result", data=data, execution_count=1))
    return made
