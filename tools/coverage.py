"""覆盖表：哪个主题（T###）、哪条论断（C###）由哪一章的哪个单元证明。

用法：``python tools/coverage.py``，打印 ``主题 n/156 · 论断 n/226``。
表在 ``tests/coverage.yml``，一条一行：``C048: {chapter: 01_tensors, cell: c048-transpose}``；
``cell`` 也可以是几个单元的列表。
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.notebooks import ROOT, ToolError, chapter_paths, read_notebook, write_text

__all__ = ["LAST", "chapter_proof", "covered_cells", "load", "main", "problems"]

LAST = {"T": 156, "C": 226}  # 主题与论断各编到几号
PROOF = Path(__file__).with_name("proof.py")
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


@functools.cache
def chapter_proof(chapter: str, root: Path = ROOT) -> dict[str, Any]:
    """返回 ``tools/proof.py`` 对一章的结论；章节和代码没有变、上次全对的，不再跑。

    Raises:
        ToolError: 证明程序自己没能跑完。
    """
    path = root / "chapters" / f"{chapter}.ipynb"
    wanted = json.dumps(covered_cells(chapter, root))
    kept = root / "_build" / "proofs" / f"{chapter}-{_proof_digest(path, wanted, root)}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    command = [sys.executable, str(PROOF), str(path), wanted]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if result.returncode:
        raise ToolError(f"{chapter}：证明程序退出码 {result.returncode}\n{result.stderr[-2000:]}")
    line = result.stdout.splitlines()[-1]
    report: dict[str, Any] = json.loads(line)
    if not report["errors"] and not any((report["cells"] | report["exercises"]).values()):
        for old in kept.parent.glob(f"{chapter}-*.json"):
            old.unlink()
        write_text(kept, line)
    return report


def _proof_digest(path: Path, wanted: str, root: Path) -> str:
    """结论由它们决定：这一章、要证明的单元、伴学包和依赖（执行的缓存也看它们）、证明程序。"""
    from tools.execute import cache_path  # 载入要一秒多，数覆盖数的时候用不到

    digest = hashlib.sha256(cache_path(root).name.encode() + wanted.encode())
    for file in (path, PROOF, *(PROOF.with_name(f"{name}.py") for name in ("notebooks", "fixed"))):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


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
