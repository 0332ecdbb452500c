"""不用内核，把一章跑一遍，每个单元只跑一次。

用法：``python tools/walk.py 章节.ipynb 计划``，计划是一行 JSON，见 ``tools/alone.py`` 的 ``plan``。
先跑 ★，再从那一刻为每节 ☆ 各分一个进程；首页上的路线从 setup、imports 之后分出去。
途中证明登记了的论断，并把解答换进作答单元。一行 JSON 写到标准输出：
``{哪条路或哪个单元: 哪里不对}``，空串就是对的。
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.notebooks import Notebook, read_notebook, tags
from tools.proof import prove
from tools.session import CAN_FORK, Session, forked

__all__ = ["Walk", "main"]

BRANCH_LIMIT_S = 300


class Walk:
    """跑到哪里、发现了什么。"""

    def __init__(self, notebook: Notebook, proofs: Iterable[str]) -> None:
        self.session, self.proofs = Session(), set(proofs)
        self.cells = {cell.id: cell for cell in notebook.cells}
        self.report: dict[str, str] = {}
        self._solved: set[str] = set()

    def go(self, name: str, ids: Iterable[str], *, proving: bool = True) -> bool:
        """依次跑 ``ids``，返回走得通吗；``proving`` 时也证明论断和习题。"""
        wrong = []
        for cell in (self.cells[cell] for cell in ids if cell not in self._solved):
            error = self._visit(cell) if proving else self.session.run(cell.source)[0]
            if bool(error) != ("raises-exception" in tags(cell)):
                wrong.append(f"{cell.id}：{error or '没有报错'}")
        self.report[name] = "；".join(wrong)
        return not wrong

    def branch(self, name: str, ids: Iterable[str], *, proving: bool = True) -> None:
        """从这一刻分一个进程去走，结果并进报告。"""

        def job() -> str:
            self.go(name, ids, proving=proving)
            return json.dumps(self.report)

        answer = forked(job, BRANCH_LIMIT_S)
        self.report |= json.loads(answer) if answer.startswith("{") else {name: answer}

    def _visit(self, cell: Notebook) -> str:
        """跑一个单元，返回报错。"""
        if cell.id in self.proofs:
            error, self.report[cell.id] = prove(self.session, cell.source)
        elif cell.id.startswith("ex-") and cell.id.endswith("-try"):
            error = self._exercise(cell)
        elif cell.id.startswith("sol-") and CAN_FORK:  # 后面的单元不能等着解答
            error = forked(lambda: self.session.run(cell.source)[0])
        else:
            error, _ = self.session.run(cell.source)
        return error

    def _exercise(self, cell: Notebook) -> str:
        """原样应得 ◌，换上解答应得 ✓。"""
        solution = self.cells[f"sol-{cell.id[3:-4]}"]
        solved = "✓"
        if CAN_FORK:
            self._solved.add(solution.id)
            solved = forked(lambda: _verdict(*self.session.run(solution.source)))
        error, output = self.session.run(cell.source)
        untouched = _verdict(error, output)
        problem = "" if solved.startswith("✓") else f"换上解答应得 ✓，得到：{solved}"
        if not untouched.startswith("◌"):
            problem = f"没改过的作答单元应得 ◌，得到：{untouched}"
        self.report[cell.id] = problem
        return error


def _verdict(error: str, output: str) -> str:
    verdicts = [line for line in output.splitlines() if line.startswith(("◌", "✗", "✓"))]
    return error or (verdicts[-1] if verdicts else "没有 ◌、✗ 或 ✓")


def main(argv: list[str]) -> int:
    """返回进程退出码；结果写到标准输出。"""
    path, plan = Path(argv[0]), json.loads(argv[1])
    walk = Walk(read_notebook(path), plan["proofs"])
    sys.path[:2] = [""]  # 章节看不见 tools，像在内核里一样
    walk.go("开头", plan["head"])
    for name, ids in plan["routes"].items():
        walk.branch(name, ids, proving=False)
    if walk.go("★", plan["trunk"]):  # 不通的话，后面的没有意义
        for name, ids in plan["branches"].items():
            walk.branch(name, ids)
    print(json.dumps(walk.report, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    sys.exit(main(sys.argv[1:]))
