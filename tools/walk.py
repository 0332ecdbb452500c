"""不用内核，把一章跑一遍，每个单元只跑一次。

用法：``python tools/walk.py 章节.ipynb 计划``，计划是一行 JSON，见 ``tools/alone.py`` 的 ``plan``。
先跑 ★，再从那一刻为每节 ☆ 各分一个进程；首页上的路线从 setup、imports 之后分出去。
途中证明登记了的论断，并把解答换进作答单元。一行 JSON 写到标准输出::

    {"cells": {单元: "" 或哪里不对}, "exercises": {习题: "" 或 …}, "routes": {路: {单元: 原因}}}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.notebooks import Notebook, read_notebook, tags
from tools.proof import prove
from tools.session import CAN_FORK, Session, forked

__all__ = ["Walk", "main"]

BRANCH_LIMIT_S = 300
Report = dict[str, dict[str, Any]]


class Walk:
    """跑到哪里、发现了什么。"""

    def __init__(self, notebook: Notebook, proofs: Iterable[str]) -> None:
        self.session, self.proofs = Session(), set(proofs)
        self.cells = {cell.id: cell for cell in notebook.cells}
        self.report = _blank()
        self._solved: set[str] = set()

    def go(self, name: str, ids: Iterable[str], *, proving: bool = True) -> bool:
        """依次跑 ``ids``，返回走得通吗；``proving`` 时也证明论断和习题。"""
        wrong = self.report["routes"].setdefault(name, {})
        for cell in (self.cells[name] for name in ids if name not in self._solved):
            error = self._visit(cell) if proving else self.session.run(cell.source)[0]
            if bool(error) != ("raises-exception" in tags(cell)):
                wrong[cell.id] = error or "没有报错"
        return not wrong

    def branch(self, name: str, ids: Iterable[str], *, proving: bool = True) -> None:
        """从这一刻分一个进程去走，结果并进报告。"""

        def job() -> str:
            self.report = _blank()
            self.go(name, ids, proving=proving)
            return json.dumps(self.report)

        answer = forked(job, BRANCH_LIMIT_S)
        if not answer.startswith("{"):
            answer = json.dumps({"routes": {name: {"": answer}}})
        for kind, found in json.loads(answer).items():
            self.report[kind] |= found

    def _visit(self, cell: Notebook) -> str:
        """跑一个单元，返回报错。"""
        if cell.id in self.proofs:
            error, self.report["cells"][cell.id] = prove(self.session, cell.source)
        elif cell.id.startswith("ex-") and cell.id.endswith("-try"):
            error = self._exercise(cell.id[3:-4], cell.source)
        elif cell.id.startswith("sol-") and CAN_FORK:  # 后面的单元不能等着解答
            error = forked(lambda: self.session.run(cell.source)[0])
        else:
            error, _ = self.session.run(cell.source)
        return error

    def _exercise(self, name: str, attempt: str) -> str:
        """原样应得 ◌，换上解答应得 ✓。"""
        solution, problem = self.cells[f"sol-{name}"], ""
        if CAN_FORK:
            self._solved.add(solution.id)
            solved = forked(lambda: _verdict(*self.session.run(solution.source)))
            problem = "" if solved.startswith("✓") else f"换上解答应得 ✓，得到：{solved}"
        error, output = self.session.run(attempt)
        untouched = _verdict(error, output)
        if not untouched.startswith("◌"):
            problem = f"没改过的作答单元应得 ◌，得到：{untouched}"
        self.report["exercises"][name] = problem
        return error


def _blank() -> Report:
    return {"cells": {}, "exercises": {}, "routes": {}}


def _verdict(error: str, output: str) -> str:
    verdicts = [line for line in output.splitlines() if line.startswith(("◌", "✗", "✓"))]
    return error or (verdicts[-1] if verdicts else "没有 ◌、✗ 或 ✓")


def main(argv: list[str]) -> int:
    """返回进程退出码；结果写到标准输出。"""
    path, plan = Path(argv[0]), json.loads(argv[1])
    walk = Walk(read_notebook(path), plan["proofs"])
    sys.path[:2] = [""]  # 章节看不见 tools，像在内核里一样
    walk.go(plan["name"], plan["head"])
    for name, ids in plan["routes"].items():
        walk.branch(name, ids, proving=False)
    if walk.go(plan["name"], plan["trunk"]):  # 不通的话，后面的没有意义
        for name, ids in plan["branches"].items():
            walk.branch(name, ids)
    print(json.dumps(walk.report, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    sys.exit(main(sys.argv[1:]))
