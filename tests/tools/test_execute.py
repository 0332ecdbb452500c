"""执行器：跑什么、不跑什么、失败时说什么。"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from jupyter_cache import get_cache
from nbformat.v4 import new_output

from tools.execute import cache_path, changed_cells, execute, main
from tools.notebooks import read_notebook

pytestmark = pytest.mark.filterwarnings("default")  # 内核客户端的套接字清理警告与本书无关


def cached(book, path):
    return get_cache(cache_path(book.root)).merge_match_into_notebook(read_notebook(path))[1]


def test_only_what_changed_is_executed_again(book, cell, text):
    first = [text("title", "# 一"), cell("sum", "from companion import double\ndouble(2)")]
    book.chapter("01_one", *first)
    book.chapter("02_two", cell("two", "1 + 1"))
    assert execute(book.root) == ["01_one", "02_two"]
    assert execute(book.root) == []

    first[0]["source"] = "# 只改了正文"
    book.chapter("01_one", *first)
    assert execute(book.root) == []

    book.chapter("02_two", cell("two", "1 + 2"))
    assert execute(book.root) == ["02_two"]

    before = cache_path(book.root)
    book.write("src/companion/__init__.py", "def double(x):\n    return x + x\n")
    assert execute(book.root) == ["01_one", "02_two"]
    assert cache_path(book.root) != before
    assert not before.exists(), "旧代码的缓存应当删掉"


def test_results_time_and_memory_are_recorded(book, cell):
    path = book.chapter("01_one", cell("where", "import os\nprint(os.environ['MKL_CBWR'])\n2**10"))
    execute(book.root)
    stream, result = cached(book, path).cells[0].outputs
    assert stream.text == "AVX2\n"
    assert result.data["text/plain"] == "1024"
    stats = json.loads((book.root / "_build/stats.json").read_text(encoding="utf-8"))
    record = stats["chapters/01_one"]
    assert record["code_cells"] == 1
    assert record["seconds"] > 0
    assert record["peak_mb"] is None or 10 < record["peak_mb"] < 1000
    execute(book.root)
    again = json.loads((book.root / "_build/stats.json").read_text(encoding="utf-8"))
    assert again == stats


def test_write_puts_text_outputs_into_the_notebook(book, cell):
    path = book.chapter("01_one", cell("sum", "1 + 1\n\n", collapsed=True))
    execute(book.root, write=True)
    (sum_cell,) = read_notebook(path).cells
    assert sum_cell.outputs[0].data == {"text/plain": "2"}
    assert execute(book.root) == [], "写回输出之后不应重跑"


BET = """class Bet:
    def __repr__(self):
        return "赌注"
    def _repr_html_(self):
        return '<script data-companion="bet">let a;\\n</script>'
"""


def test_every_stored_output_is_compared_with_a_fresh_one(book, cell):
    cells = [
        stored(cell("same", "1"), {"text/plain": "1"}),
        stored(cell("deleted", "2")),
        stored(cell("changed", "3"), {"text/plain": "4"}),
        stored(cell("printed", "print('甲')\n5"), {"text/plain": "5"}, "甲\n"),
        stored(cell("misprinted", "print('甲')\n5"), {"text/plain": "5"}, "乙\n"),
        stored(cell("bet", BET + "Bet()"), {"text/plain": "赌注", "text/html": STORED_BET}),
        stored(cell("err-div", "1 / 0", "raises-exception")),
        stored(cell("err-other", "1 / 0", "raises-exception")),
        stored(cell("figure", "display({'image/png': 'aGk=', 'text/plain': '图'}, raw=True)")),
        stored(cell("time", "import time; time.time()", "nbval-ignore-output")),
    ]
    cells[6].outputs = [new_output("error", ename="ZeroDivisionError", evalue="division by zero")]
    cells[7].outputs = [new_output("error", ename="ZeroDivisionError", evalue="by zero")]
    cells[8].outputs = [new_output("display_data", data={"text/plain": "图"})]
    path = book.chapter("01_one", *cells)
    wrong = ["deleted", "changed", "misprinted", "err-other"]
    assert changed_cells(path, book.root) == wrong
    assert changed_cells(path, book.root) == wrong, "取自缓存也一样"
    assert execute(book.root) == []
    execute(book.root, write=True)
    assert changed_cells(path, book.root) == []


STORED_BET = '<script data-companion="bet">bet</script>'


def stored(made, data=None, printed=""):
    """给单元配上存下的输出。"""
    made.execution_count = 1
    if printed:
        made.outputs.append(new_output("stream", name="stdout", text=printed))
    if data:
        made.outputs.append(new_output("execute_result", data=data, execution_count=1))
    return made


def test_another_version_of_an_installed_package_executes_everything_again(book, cell, monkeypatch):
    book.chapter("01_one", cell("one", "1"))
    assert execute(book.root) == ["01_one"]
    newer = book.write("packages/torch-3.0.dist-info/METADATA", "").parents[1]
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(newer))
    assert execute(book.root) == ["01_one"]


def test_sphinx_takes_the_results_from_the_cache_and_executes_nothing(book, cell, text):
    book.chapter("01_one", text("title", "# 一"), cell("sum", "40 + 2"), cell("two", "2"))
    execute(book.root)
    settings = {
        "extensions": "myst_nb",
        "nb_execution_mode": "cache",
        "nb_execution_cache_path": str(cache_path(book.root)),
        "root_doc": "chapters/01_one",
        "include_patterns": "chapters/*",
    }
    command = [sys.executable, "-m", "sphinx", "-C", "-W", "-b", "text"]
    command += [part for pair in settings.items() for part in ("-D", "=".join(pair))]
    command += [str(book.root), str(book.root / "_build" / "text")]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert "Using cached notebook" in result.stdout
    assert "Executing notebook" not in result.stdout
    page = (book.root / "_build/text/chapters/01_one.txt").read_text(encoding="utf-8")
    assert "42" in page


def test_an_expected_error_keeps_one_plain_line(book, cell):
    path = book.chapter("01_one", cell("err-div", "1 / 0", "raises-exception"))
    execute(book.root)
    (error,) = cached(book, path).cells[0].outputs
    assert error.traceback == ["ZeroDivisionError: division by zero"]


@pytest.mark.parametrize(
    ("source", "tags", "message"),
    [
        ("1 / 0", [], "ZeroDivisionError: division by zero"),
        ("1 / 1", ["raises-exception"], "却没有报错"),
        ("import warnings\nwarnings.warn('旧接口')", [], "意外的 stderr"),
        ("from IPython.display import SVG\nSVG('<svg/>')", [], "image/svg+xml"),
    ],
)
def test_a_bad_cell_is_named_with_its_problem(book, cell, capsys, source, tags, message):
    book.chapter("01_good", cell("fine", "1"))
    book.chapter("02_bad", cell("culprit", source, *tags))
    assert main([], book.root) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("✗ 02_bad 单元 culprit：")
    assert message in last
    assert execute(book.root, ["01"]) == [], "失败之前跑完的章节留在缓存里"


def test_allowed_stderr_is_not_a_failure(book, cell):
    book.chapter("01_one", cell("warn", "import sys\nprint('x', file=sys.stderr)", "allow-stderr"))
    assert execute(book.root) == ["01_one"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows 上送不出 SIGINT")
def test_ctrl_c_ends_with_one_line_naming_the_cell(book, cell):
    mark = book.root / "started"
    source = f"from pathlib import Path\nimport time\nPath({str(mark)!r}).touch()\ntime.sleep(60)"
    book.chapter("01_slow", cell("sleep", source))
    program = "import sys; from pathlib import Path; from tools.execute import main; "
    program += "sys.exit(main([], Path(sys.argv[1])))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(book.root)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("✗ 已中断，停在 01_slow 单元 sleep")
