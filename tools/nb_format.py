"""把笔记本写成唯一的规范形式：文字输出留下，图片、计数、内核杂物去掉。

用法：``python tools/nb_format.py [--check] [章节名…]``
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.notebooks import (
    ROOT,
    Notebook,
    ToolError,
    chapter_paths,
    read_notebook,
    tags,
    write_text,
)

__all__ = ["canonical", "canonical_text", "main"]

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = ("mystnb", "nbval_reason", "tags")
CELL_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
RANDOM_ID = re.compile(r"(?=[a-z]*\d)[0-9a-f]{8}(-[0-9a-f-]+)?")
COMPANION_BODY = re.compile(r'<(script|style) data-companion="([\w.-]+)">.*?</\1>', flags=re.DOTALL)
OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", flags=re.MULTILINE)


def canonical(notebook: Notebook) -> Notebook:
    """返回规范形式的副本，原对象不动。再做一次结果不变。

    Raises:
        ToolError: 单元 id 不是有意义的小写短语。
    """
    result = nbformat.from_dict(copy.deepcopy(dict(notebook)))
    result.nbformat, result.nbformat_minor = 4, 5
    result.metadata = nbformat.from_dict(copy.deepcopy(METADATA))
    _check_ids(result.cells)
    for cell in result.cells:
        cell.metadata = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
        cell.source = cell.source.strip("\n")
        if cell.cell_type == "code":
            cell.execution_count = 1
            ignored = "nbval-ignore-output" in tags(cell)
            cell.outputs = [] if ignored else _text_outputs(cell.outputs)
    return result


def canonical_text(notebook: Notebook) -> str:
    """返回规范形式的文件内容：``indent=1``，汉字原样，末尾一个换行。"""
    return nbformat.writes(canonical(notebook), indent=1).rstrip("\n") + "\n"


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """返回进程退出码：``--check`` 时有章节不规范为 1。"""
    parser = argparse.ArgumentParser(description="把章节写成规范形式")
    parser.add_argument("names", nargs="*", metavar="章节", help="缺省为目录里的全部章节")
    parser.add_argument("--check", action="store_true", help="只检查，不改文件")
    arguments = parser.parse_args(argv)
    try:
        changed = [
            path for path in chapter_paths(root, arguments.names) if _format(path, arguments.check)
        ]
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    verb = "不是规范形式，运行 make format" if arguments.check else "已改成规范形式"
    for path in changed:
        print(f"{path.name}：{verb}")
    return int(arguments.check and bool(changed))


def _format(path: Path, check: bool) -> bool:
    before = path.read_bytes().decode("utf-8")
    notebook = read_notebook(path)
    try:
        after = canonical_text(notebook)
    except ToolError as error:
        raise ToolError(f"{path.name}：{error}") from error
    if before != after and not check:
        write_text(path, after)
    return before != after


def _check_ids(cells: Iterable[Notebook]) -> None:
    for cell in cells:
        name = cell.get("id", "")
        if not CELL_ID.fullmatch(name) or RANDOM_ID.fullmatch(name):
            raise ToolError(f"单元 id {name!r} 应是有意义的小写短语，如 fig-loss；请改名。")


def _text_outputs(outputs: Iterable[Any]) -> list[Any]:
    kept = []
    for output in _merge_streams(outputs):
        if output.output_type == "stream":
            output.text = OVERWRITTEN.sub("", output.text)
        elif output.output_type == "error":
            output.traceback = []
        else:
            output.metadata = {}
            output.data = {
                mime: COMPANION_BODY.sub(r'<\1 data-companion="\2">\2</\1>', text)
                if mime == "text/html"
                else text
                for mime, text in output.data.items()
                if not mime.startswith("image/")
            }
            if output.output_type == "execute_result":
                output.execution_count = 1
        if output.get("text") or output.get("data") or output.output_type == "error":
            kept.append(output)
    return kept


def _merge_streams(outputs: Iterable[Any]) -> list[Any]:
    """相邻、同名的流并成一个：内核分几次送出来是偶然的。"""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


if __name__ == "__main__":
    sys.exit(main())
