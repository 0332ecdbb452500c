"""章节笔记本的公共读写：章节清单、单元、标签、写文件。其余工具都从这里取，不各写一份。"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.warnings import DuplicateCellId

__all__ = [
    "ROOT",
    "Notebook",
    "ToolError",
    "chapter_paths",
    "code_cells",
    "read_notebook",
    "tags",
    "toc_documents",
    "write_text",
]

ROOT = Path(__file__).resolve().parents[1]
Notebook = NotebookNode


class ToolError(Exception):
    """工具的失败：消息就是要给人看的那一行。"""


def read_notebook(path: Path) -> Notebook:
    """返回 ``path`` 里的笔记本（第 4 版格式）。"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DuplicateCellId)
            return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except (OSError, ValueError, DuplicateCellId) as error:
        raise ToolError(f"{path.name}：读不出笔记本，{error}") from error


def write_text(path: Path, text: str) -> None:
    """写文本文件：UTF-8，换行一律是 ``\\n``，在 Windows 上也一样。"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def tags(cell: Notebook) -> frozenset[str]:
    """返回单元的标签。"""
    return frozenset(cell.metadata.get("tags", ()))


def code_cells(notebook: Notebook) -> list[Notebook]:
    """返回有内容的代码单元，按原来的顺序。"""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def toc_documents(root: Path = ROOT) -> list[str]:
    """返回 ``_toc.yml`` 列出的文档名（不带扩展名），按书里的顺序。"""
    path = root / "_toc.yml"
    if not path.exists():
        raise ToolError(f"找不到 {path}：章节清单只认 _toc.yml。")
    return list(_documents(yaml.safe_load(path.read_text(encoding="utf-8"))))


def chapter_paths(root: Path = ROOT, names: Iterable[str] = ()) -> list[Path]:
    """返回笔记本章节的路径；给了 ``names``（如 ``01`` 或 ``01_tensors``）就只返回点到的。

    Raises:
        ToolError: 点到的名字不在目录里。
    """
    paths = [root / f"{name}.ipynb" for name in toc_documents(root)]
    paths = [path for path in paths if path.exists()]
    chosen = []
    for name in names:
        stem = Path(name).stem
        found = [path for path in paths if path.stem == stem or path.stem.split("_")[0] == stem]
        if not found:
            known = "、".join(path.stem for path in paths)
            raise ToolError(f"目录里没有叫 {name} 的章节；有的是：{known or '（空）'}。")
        chosen += found
    return chosen or paths


def _documents(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("root", "file"):
                yield str(value)
            else:
                yield from _documents(value)
    elif isinstance(node, list):
        for item in node:
            yield from _documents(item)
