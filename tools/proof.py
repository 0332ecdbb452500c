"""证明一个论断单元：它的 assert 真的在比较 torch 算出的值，取反就失败。

单元只跑一次：每个 assert 头一回算出条件时，分出一个子进程，在那里把条件取反再往下跑；
子进程必须以 AssertionError 告终。
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
from collections.abc import Callable
from typing import Any

from tools.session import CAN_FORK, Session, fork

__all__ = ["prove", "static_problem"]

UNMOVED = "照样跑通，或这台机器上走不到它"
JUDGE = "_judge_of_proof"


def prove(session: Session, source: str) -> tuple[str, str]:
    """跑一个要证明的单元，返回 ``(报错, 哪里不对)``；两项都可以是空串。"""
    problem = static_problem(ast.parse(session.shell.transform_cell(source)))
    counter = _torch_calls()
    if problem or not CAN_FORK:
        with counter:
            error, _ = session.run(source)
    else:
        negations = Negations()
        with counter:
            error, outcomes = negations.run(session, source)
        for index, outcome in enumerate(outcomes, 1):
            if not outcome.startswith("AssertionError"):
                problem = f"第 {index} 个 assert 取反后没有失败（{outcome or UNMOVED}）"
    return error, problem or ("" if counter.calls else "单元里没有调用 torch")


class Negations(ast.NodeTransformer):
    """把每个 ``assert X`` 换成 ``assert 判官(序号, X)``；判官在子进程里说反话。"""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self._seen: set[int] = set()
        self._answer: Callable[[str], None] | None = None  # 只在子进程里有
        self._over = False

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        arguments = [ast.Constant(len(self.outcomes)), node.test]
        call = ast.Call(ast.Name(JUDGE, ast.Load()), arguments, [])
        node.test = ast.copy_location(call, node.test)
        self.outcomes.append("")
        return ast.fix_missing_locations(node)

    def run(self, session: Session, source: str) -> tuple[str, list[str]]:
        """跑 ``source``，返回 ``(报错, 每个 assert 取反后的报错)``。"""
        setattr(builtins, JUDGE, self.judge)
        session.shell.ast_transformers.append(self)
        try:
            error, _ = session.run(source)
            if self._answer:
                self._answer(error)
        finally:
            if self._answer:
                os._exit(1)
            session.shell.ast_transformers.remove(self)
            self._over = True
        return error, self.outcomes

    def judge(self, index: int, value: Any) -> Any:
        """返回 assert 的条件；每个 assert 头一回来，分出一个得到反话的子进程。"""
        if self._over or self._answer or index in self._seen:
            return value
        self._seen.add(index)
        branch = fork()
        if isinstance(branch, str):
            self.outcomes[index] = branch
            return value
        self._answer = branch
        return not value


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
