"""工具测试的公共材料：临时小书。"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


class TinyBook:
    """磁盘上的一本小书：目录、伴学包、若干章节。"""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "chapters").mkdir(parents=True)
        (root / "src" / "companion").mkdir(parents=True)
        self.write("src/companion/__init__.py", "def double(x):\n    return 2 * x\n")
        self.write("requirements.txt", "")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return path

    def chapter(self, name: str, *cells: Any) -> Path:
        notebook = new_notebook(cells=list(cells))
        notebook.metadata["kernelspec"] = {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        }
        path = self.write(f"chapters/{name}.ipynb", nbformat.writes(notebook))
        stems = sorted(path.stem for path in (self.root / "chapters").glob("*.ipynb"))
        chapters = [{"file": f"chapters/{stem}"} for stem in stems]
        toc = {"format": "jb-book", "root": "intro", "chapters": chapters}
        self.write("_toc.yml", json.dumps(toc))
        return path


def code(name: str, source: str, *tags: str, **metadata: Any) -> Any:
    if tags:
        metadata["tags"] = list(tags)
    return new_code_cell(source, id=name, metadata=metadata)


def prose(name: str, source: str) -> Any:
    return new_markdown_cell(source, id=name)


@pytest.fixture
def book(tmp_path):
    return TinyBook(tmp_path / "小 书")


@pytest.fixture
def cell():
    """造代码单元：``cell("id", "源码", "标签", mystnb=…)``。"""
    return code


@pytest.fixture
def text():
    """造正文单元：``text("id", "正文")``。"""
    return prose
