"""章节里的解答，当场取来：只执行它用得着的语句，不跑完整章。"""

import ast
import contextlib
import dis
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

from companion._common import random_state_kept
from tools.notebooks import chapter_paths, code_cells, read_notebook

READS, WRITES = {"LOAD_NAME", "LOAD_GLOBAL"}, {"STORE_NAME", "STORE_GLOBAL"}


@dataclass(frozen=True)
class Statement:
    """章节最外层的一条语句；`check` 是它交上去的题名和答案，不是 `check(…)` 就是 None。"""

    cell: str
    code: CodeType
    check: tuple[str, ast.expr] | None

    @property
    def reads(self) -> set[str]:
        return _names(self.code, READS)

    @property
    def writes(self) -> set[str]:
        return _names(self.code, WRITES)


@cache
def solutions(chapter: str) -> dict[str, Any]:
    """`ch01` 各题的解答：题名（不带章）→ `sol-` 单元里交给 `check` 的那个答案。"""
    script, found = _script(chapter), {}
    for i, statement in enumerate(script):
        if statement.check and statement.cell.startswith("sol-"):
            title, expression = statement.check
            code = compile(ast.Expression(expression), statement.cell, "eval")
            found[title] = _run(script, i, code)
    return found


def section_function(chapter: str, name: str) -> Any:
    """这一章自己定义的函数，如第 1 章的 `recognise`。"""
    script = _script(chapter)
    return _run(script, len(script), compile(name, chapter, "eval"))


@cache
def _script(chapter: str) -> list[Statement]:
    [path] = [path for path in chapter_paths() if path.stem.startswith(chapter.removeprefix("ch"))]
    return [
        s for cell in code_cells(read_notebook(path)) for s in _statements(cell.id, cell.source)
    ]


def _statements(cell: str, source: str) -> Iterator[Statement]:
    try:
        body = ast.parse(re.sub(r"(?m)^( *)[%!].*", r"\1pass", source)).body
    except SyntaxError:  # 故意写错的单元
        return
    for node in body:
        check = None
        match node:
            case ast.Expr(ast.Call(ast.Name("check"), [ast.Constant(str(title)), answer])):
                check = title.partition(".")[2], answer
        yield Statement(cell, compile(ast.Module([node], []), cell, "exec"), check)


def _run(script: list[Statement], end: int, code: CodeType) -> Any:
    """`code` 的值：同一格里先前的语句都执行，别的格只取用得着的，每个名字由最后写它的那条给出。"""
    here = script[end].cell if end < len(script) else ""
    needed, chosen = _names(code, READS), []
    for statement in reversed(script[:end]):
        placeholder = statement.cell.endswith("-try") or statement.cell.startswith("sol-")
        if statement.cell == here or (statement.writes & needed and not placeholder):
            chosen.append(statement)
            needed = needed - statement.writes | statement.reads
    namespace: dict[str, Any] = {}
    with random_state_kept(), contextlib.redirect_stdout(io.StringIO()):
        for statement in reversed(chosen):
            exec(statement.code, namespace)
        return eval(code, namespace)


def _names(code: CodeType, kinds: set[str]) -> set[str]:
    """这段代码（含里面的函数）读或写的全局名字。"""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in kinds}
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return names.union(*(_names(part, kinds) for part in inner))
