"""覆盖表：哪个主题（T###）、哪条论断（C###）由哪一章的哪个单元证明。

用法：``python tools/proven.py``，打印 ``主题 n/156 · 论断 n/226``。
表在 ``tests/coverage.yml``，一条一行：``C048: {chapter: 01_tensors, cell: c048-transpose}``；
``cell`` 也可以是几个单元的列表。
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.notebooks import ROOT, ToolError, chapter_paths, read_notebook

__all__ = ["LAST", "covered_cells", "load", "main", "problems"]

LAST = {"T": 156, "C": 226}  # 主题与论断各编到几号
KEY = re.compile(r"([TC])(\d{3})")


def load(root: Path = ROOT) -> dict[str, tuple[str, list[str]]]:
    """返回 ``{编号: (章节名, [单元 id, …])}``。

    Raises:
        ToolError: 某一条写得不合规。
    """
    text = (root / "tests" / "coverage.yml").read_text(encoding="utf-8")
    return {key: _entry(key, value) for key, value in (yaml.safe_load(text) or {}).items()}


def _entry(key: str, value: Any) -> tuple[str, list[str]]:
    match = KEY.fullmatch(str(key))
    if not match or not 1 <= int(match[2]) <= LAST[match[1]]:
        raise ToolError(f"coverage.yml：没有 {key} 这个编号。")
    if not isinstance(value, dict) or set(value) != {"chapter", "cell"}:
        raise ToolError(f"coverage.yml：{key} 应写成 {{chapter: 章节名, cell: 单元 id}}。")
    cells = value["cell"] if isinstance(value["cell"], list) else [value["cell"]]
    return str(value["chapter"]), [str(cell) for cell in cells]


def covered_cells(chapter: str, root: Path = ROOT) -> list[str]:
    """返回覆盖表里属于 ``chapter`` 的单元 id，不重复，按表里的顺序。"""
    cells = [cell for name, ids in load(root).values() if name == chapter for cell in ids]
    return list(dict.fromkeys(cells))


def problems(root: Path = ROOT) -> list[str]:
    """返回表里指向不存在的章节或单元的条目，一条一句。"""
    known = {
        path.stem: {cell.id for cell in read_notebook(path).cells if cell.cell_type == "code"}
        for path in chapter_paths(root)
    }
    found = []
    for key, (chapter, cells) in load(root).items():
        if chapter not in known:
            found.append(f"{key}：没有 {chapter} 这一章")
        else:
            found += [
                f"{key}：{chapter} 里没有单元 {cell}"
                for cell in cells
                if cell not in known[chapter]
            ]
    return found


def main(root: Path = ROOT) -> int:
    """返回进程退出码：表里有指空的条目时为 1。"""
    try:
        entries, wrong = load(root), problems(root)
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    for line in wrong:
        print(line)
    topics, claims = (sum(key[0] == kind for key in entries) for kind in "TC")
    print(f"主题 {topics}/{LAST['T']} · 论断 {claims}/{LAST['C']}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
