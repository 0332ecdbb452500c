"""运行报错词典：每一条都真的报那个错，改法真的跑得通，旧写法今天怎样就是怎样。

用法：``python tools/dictionary.py 输出.json``，写出 torch 今天说的话，网页上显示的就是它；
有一条不符就指名道姓，退出码为 1。测试和建站用的都是这一份。
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from companion.book._explain import DICTIONARY, Entry, entries
from tools.notebooks import ToolError, write_text

__all__ = ["DICTIONARY", "GROUPS", "IMPORTS", "digest", "entries", "main", "run_entry"]

GROUPS = ("形状", "dtype", "设备", "求导", "模型", "加载", "存档", "安装", "笔记本")
IMPORTS = """import io

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn"""
LONGEST = 6  # 消息再长，也只记前几行
NOISE = re.compile(r"\x1b\[[0-9;]*m|\s*\(Triggered internally at [^)]*\)")  # 颜色，C++ 源文件的行号
COMPARED = {"old", "new"}


def digest(folder: Path = DICTIONARY) -> str:
    """返回条目和 torch 版本的摘要；变了就要重跑。"""
    content = b"".join(path.read_bytes() for path in sorted(folder.glob("*.toml")))
    version = importlib.metadata.version("torch").encode()
    return hashlib.sha256(content + version).hexdigest()[:16]


def run_entry(entry: Entry) -> str | None:
    """返回 torch 说的话：``类型: 消息``；照跑的旧写法是空串，这台机器上跑不了的是 None。

    Raises:
        ToolError: 这一条写的和真正发生的不一样。
    """
    import torch

    names: dict[str, Any] = {"__name__": "dictionary"}
    _execute(IMPORTS, names, entry)
    torch.manual_seed(0)
    if entry.content.get("no_gpu") and torch.accelerator.is_available():
        return None
    is_error = entry.target.startswith("err-")
    return _run_error(entry, names) if is_error else _run_old(entry, names)


def _run_error(entry: Entry, names: dict[str, Any]) -> str:
    content = entry.content
    if content.get("group") not in GROUPS:
        raise ToolError(f"{entry.target}：group 应是 {'、'.join(GROUPS)} 之一")
    *head, last = ast.parse(content["code"].strip()).body
    _execute(ast.unparse(ast.Module(head, [])), names, entry)
    try:
        exec(compile(ast.Module([last], []), entry.target, "exec"), names)
    except Exception as error:
        said = _said(error)
    else:
        raise ToolError(f"{entry.target}：最后一句没有报错")
    if content["says"] not in said.splitlines()[0]:
        raise ToolError(f"{entry.target}：第一行应含 {content['says']!r}，实际是 {said!r}")
    for line in content.get("inside", ()):
        if line not in said:
            raise ToolError(f"{entry.target}：消息里应有 {line!r}，实际是 {said!r}")
    _execute(content["fix"], names, entry)
    return said


def _run_old(entry: Entry, names: dict[str, Any]) -> str:
    import torch

    content = entry.content
    _execute(content.get("setup", ""), names, entry)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # C++ 的警告一个进程里本来只说一次
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            names["old"] = eval(content["old"], names)
            said = _said(caught[0].message) if caught else ""
            today = "warns" if caught else "works"
        except Exception as error:
            said, today = _said(error), "raises"
    torch.set_warn_always(always)
    if today != content["today"] or content.get("says", "") not in said:
        wanted = f"{content['today']} {content.get('says', '')!r}"
        raise ToolError(f"{entry.target}：应是 {wanted}，实际是 {today} {said!r}")
    names["new"] = _value(content["new"], names, entry)
    used = {node.id for node in ast.walk(ast.parse(content["proof"])) if isinstance(node, ast.Name)}
    if missing := (COMPARED if today != "raises" else {"new"}) - used:
        raise ToolError(f"{entry.target}：proof 没有用到 {'、'.join(sorted(missing))}")
    _execute(content["proof"], names, entry)
    return said


def _execute(source: str, names: dict[str, Any], entry: Entry) -> None:
    """跑一段不该出错的代码；警告也算错。"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(source, entry.target, "exec"), names)
    except Exception as error:
        raise ToolError(f"{entry.target}：这一段应当跑通：\n{source}\n{_said(error)}") from error


def _value(expression: str, names: dict[str, Any], entry: Entry) -> Any:
    _execute(f"new = ({expression})", names, entry)
    return names["new"]


def _said(error: BaseException | str) -> str:
    kind = type(error).__name__
    lines = NOISE.sub("", f"{kind}: {error}").strip().splitlines()
    return "\n".join([*lines[:LONGEST], *(["…"] if len(lines) > LONGEST else [])])


def run_all() -> dict[str, Any]:
    """返回要记下的：torch 版本、摘要、每一条的消息。"""
    said = {entry.target: run_entry(entry) for entry in entries()}
    version = importlib.metadata.version("torch")
    return {"torch": version, "digest": digest(), "said": said}


def main(arguments: list[str]) -> int:
    """返回进程退出码。"""
    try:
        report: Mapping[str, Any] = run_all()
    except ToolError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    write_text(Path(arguments[0]), json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    print(f"词典：{len(report['said'])} 条，torch {report['torch']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
