"""中文排版检查：正文要管，代码和输出不碰，题库里的字符串也要管。"""

import json

import pytest

from tools import typography

BAD, GOOD = "用torch算,对吗?", "用 torch 算，对吗？"


def notebook(text: str) -> str:
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": [text + "\n"]},
        {"cell_type": "code", "id": "b", "metadata": {}, "outputs": [], "source": ["# 算torch,"]},
    ]
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5}, ensure_ascii=False)


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


FILES = {
    "README.md": "{}\n",
    "src/companion/book/bets/ch01.toml": '[x]\nquestion = "{}"\n[[x.options]]\ntext = "{}"\n',
}


@pytest.mark.parametrize("name", FILES)
def test_bad_spacing_is_found_and_fixed(tmp_path, capsys, name):
    path = write(tmp_path, name, FILES[name].replace("{}", BAD))
    assert typography.main([], tmp_path) == 1
    assert GOOD in capsys.readouterr().out
    assert typography.main(["--fix"], tmp_path) == 0
    assert path.read_text(encoding="utf-8") == FILES[name].replace("{}", GOOD)


def test_in_notebooks_the_prose_is_fixed_and_the_code_left_alone(tmp_path):
    path = write(tmp_path, "chapters/01_x.ipynb", notebook(BAD))
    assert typography.main([], tmp_path) == 1
    assert typography.main(["--fix"], tmp_path) == 0
    text = path.read_text(encoding="utf-8")
    assert GOOD in text and "# 算torch," in text


def test_good_files_pass_untouched(tmp_path):
    path = write(tmp_path, "README.md", GOOD + "\n")
    before = path.stat().st_mtime_ns
    assert typography.main(["--fix"], tmp_path) == 0
    assert path.stat().st_mtime_ns == before
