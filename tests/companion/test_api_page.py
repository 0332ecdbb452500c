"""接口页：公开的模块一个不落，开头的两段代码真的跑得通。"""

import re
from pathlib import Path

import pytest

from tests.companion.test_exports import EXPORTS

PAGE = (Path(__file__).parents[2] / "companion.md").read_text(encoding="utf-8")
LISTED = re.findall(r"automodule:: (\S+)", PAGE)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


def test_every_public_module_is_on_the_page_once():
    assert sorted(LISTED) == sorted(EXPORTS.keys() - {"companion", "companion.__main__"})


@pytest.mark.parametrize("block", BLOCKS, ids=["own loop", "fit"])
def test_the_code_on_the_page_runs_and_the_second_run_goes_on(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "companion.md", "exec"), {})
    first = capsys.readouterr().out
    assert re.search(r"History\([35] 轮", first)
    exec(compile(block, "companion.md", "exec"), {})
    second = capsys.readouterr().out
    assert "已经练完" in second
    assert second.splitlines()[-1] == first.splitlines()[-1]
