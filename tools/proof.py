"""逐章证明：论断单元的 assert 真的在比较 torch 算出的值，习题的解答真的答对。

用法：``python tools/proof.py 章节.ipynb '["单元 id", …]'``，一行 JSON 写到标准输出::

    {"cells": {"单元 id": "" 或 "哪里不对"}, "exercises": {"习题名": "" 或 …}, "errors": {…}}

整章在一个进程里按顺序跑一遍（不启动内核）。要证明的单元先分出子进程，把每个 assert 逐一取反，
子进程必须以 AssertionError 告终；习题也在子进程里把解答换进作答单元。分叉只在 Linux 上可靠，
别处跳过这一步，结果里 ``forked`` 为 false。
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.fixed import ENVIRONMENT
from tools.notebooks import Notebook, read_notebook, tags

__all__ = ["CAN_FORK", "Session", "forked", "main", "prove", "static_problem"]

CAN_FORK = sys.platform == "linux"
CHILD_TIMEOUT_S = 120
UNMOVED = "照样跑通，或这台机器上走不到它"


class Session:
    """一个不带内核的 IPython：按顺序跑单元，标准输出收起来。"""

    def __init__(self) -> None:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "NoColor"
        self.shell = InteractiveShell.instance(config=config)
        self.shell.showtraceback = lambda *_, **__: None  # 没人看，排版它却最慢

    def run(self, source: str, negated: int | None = None) -> tuple[BaseException | None, str]:
        """返回 ``(异常或 None, 标准输出)``；``negated`` 是要取反的 assert 的序号。"""
        transformers = self.shell.ast_transformers
        if negated is not None:
            transformers.append(Negate(negated))
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            result = self.shell.run_cell(source, store_history=False)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
        return result.error_before_exec or result.error_in_exec, output.getvalue()


class Negate(ast.NodeTransformer):
    """把第 ``wanted`` 个 ``assert X`` 换成 ``assert not X``。"""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.seen = -1

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        self.seen += 1
        if self.seen == self.wanted:
            node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
        return node


def static_problem(tree: ast.Module) -> str:
    """返回空串，或这个单元的 assert 为什么证明不了什么。

    至少有一个 assert 的条件是比较或调用，并用到本单元里的调用或本单元绑定的名字。
    """
    nodes = list(ast.walk(tree))
    asserts = [node for node in nodes if isinstance(node, ast.Assert)]
    if not asserts:
        return "单元里没有 assert"
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    if any(_compares(node.test, bound) for node in asserts):
        return ""
    return "assert 没有比较本单元算出的值"


def _compares(test: ast.expr, bound: set[str]) -> bool:
    nodes = list(ast.walk(test))
    judged = any(isinstance(node, ast.Compare | ast.Call) for node in nodes)
    fresh = any(
        isinstance(node, ast.Call) or (isinstance(node, ast.Name) and node.id in bound)
        for node in nodes
    )
    return judged and fresh


def prove(notebook: Notebook, wanted: Iterable[str]) -> dict[str, Any]:
    """返回整章的证明结果，见模块开头。"""
    session, wanted = Session(), set(wanted)
    report: dict[str, Any] = {"cells": {}, "exercises": {}, "errors": {}, "forked": CAN_FORK}
    sources = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if cell.id.startswith("ex-") and cell.id.endswith("-try") and CAN_FORK:
            name = cell.id[3:-4]
            report["exercises"][name] = _exercise(session, cell.source, sources[f"sol-{name}"])
        if cell.id in wanted:
            error, report["cells"][cell.id] = _prove_cell(session, cell.source)
        else:
            error, _ = session.run(cell.source)
        if (error is not None) != ("raises-exception" in tags(cell)):
            report["errors"][cell.id] = _name(error) or "没有报错"
    return report


def _prove_cell(session: Session, source: str) -> tuple[BaseException | None, str]:
    """跑一个要证明的单元，返回 ``(异常或 None, 哪里不对)``。"""
    tree = ast.parse(session.shell.transform_cell(source))
    problem = static_problem(tree)
    count = sum(isinstance(node, ast.Assert) for node in ast.walk(tree))
    for index in range(count if CAN_FORK and not problem else 0):
        outcome = forked(lambda index=index: _name(session.run(source, negated=index)[0]))
        if not outcome.startswith("AssertionError"):
            problem = f"第 {index + 1} 个 assert 取反后没有失败（{outcome or UNMOVED}）"
    counter = _torch_calls()
    with counter:
        error, _ = session.run(source)
    return error, problem or ("" if counter.calls else "单元里没有调用 torch")


def _torch_calls() -> Any:
    """返回数 torch 调用次数的上下文：张量运算由 torch 自己报告，Python 写的函数由解释器报告。"""
    from torch.overrides import TorchFunctionMode

    class Counter(TorchFunctionMode):
        calls = 0

        def __enter__(self) -> Any:
            sys.setprofile(self._watch)
            return super().__enter__()

        def __exit__(self, *details: Any) -> None:
            sys.setprofile(None)
            super().__exit__(*details)

        def _watch(self, frame: Any, event: str, _: Any) -> None:
            module = frame.f_globals.get("__name__", "")
            if event == "call" and module.startswith("torch.") and module != "torch.overrides":
                self._count()

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self._count()
            return func(*args, **(kwargs or {}))

        def _count(self) -> None:
            self.calls += 1
            sys.setprofile(None)  # 有一次就够了；逐个调用地盯着太慢

    return Counter()


def _exercise(session: Session, attempt: str, solution: str) -> str:
    """返回空串，或习题哪里不对：原样应得 ◌，换上解答应得 ✓。"""
    untouched = forked(lambda: _verdict(session, attempt))
    solved = forked(lambda: _verdict(session, solution))
    if not untouched.startswith("◌"):
        return f"没改过的作答单元应得 ◌，得到：{untouched}"
    return "" if solved.startswith("✓") else f"换上解答应得 ✓，得到：{solved}"


def _verdict(session: Session, source: str) -> str:
    error, output = session.run(source)
    verdicts = [line for line in output.splitlines() if line.startswith(("◌", "✗", "✓"))]
    return _name(error) or (verdicts[-1] if verdicts else "没有 ◌、✗ 或 ✓")


def forked(job: Callable[[], str], limit_s: int = CHILD_TIMEOUT_S) -> str:
    """在子进程里做 ``job``，返回它的结果（最多 4000 字节）；父进程的状态不受影响。"""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(limit_s)
            os.write(writer, job().encode()[:4000])
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return answer if status == 0 else f"子进程没有跑完，状态 {status}"


def _name(error: BaseException | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}"[:300]


def main(argv: list[str]) -> int:
    """返回进程退出码；结果写到标准输出。"""
    path, wanted = Path(argv[0]).resolve(), json.loads(argv[1])
    os.environ.update(ENVIRONMENT, MPLBACKEND="Agg", CUDA_VISIBLE_DEVICES="")
    os.chdir(path.parent)
    report = prove(read_notebook(path), wanted)
    print(json.dumps(report, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    sys.exit(main(sys.argv[1:]))
