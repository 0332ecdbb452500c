"""读者写了没有：还留着 `...` 的算没作答；写了却得到 None 的，说清楚 None 是怎么来的。"""

import dis
import functools
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import CodeType
from typing import Any

RETURNS, CONSTANTS = {"RETURN_VALUE", "RETURN_CONST"}, {"LOAD_CONST", "RETURN_CONST"}
NOTHING = {"RESUME", "NOP", "COPY_FREE_VARS"} | RETURNS | CONSTANTS
GRAD = ".grad 要在 backward() 之后、从 x 上取；backward() 本身不返回东西"
NONE_GIVEN = "你交的是 None：print(…)、backward() 这样的函数什么也不返回，要交的是算出来的东西。"


def is_blank(answer: object) -> bool:
    """还没作答：哪里还留着 `...`。None 不算，那是答了，只是答错了。"""
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    return answer is ... or (isinstance(answer, tuple | list) and any(map(is_blank, answer)))


def is_unwritten(function: Callable[..., Any]) -> bool:
    """函数体还是空的：只有 `...`、`pass` 或说明，一件事也没做。"""
    code = _code(function)
    return code is not None and {i.opname for i in dis.get_instructions(code)} <= NOTHING


def why_none(function: Callable[..., Any]) -> str:
    """写了的函数返回 None：多半是漏了什么，一句话。"""
    code = _code(function)
    returns = code is None or _returns_something(code)
    if code is not None and any(c == ("allow_unused",) for c in code.co_consts):
        cause = "allow_unused=True 时，走不到的斜率就是 None：那一步没有记账"
    elif returns and asks_grad(function):
        cause = GRAD
    elif code is not None and "print" in code.co_names:
        cause = "印出来不算，要 return"
    elif returns:
        cause = "有一条路没有走到 return，或者 return 后面的东西本身就是 None"
    else:
        cause = "走到了头，没有 return。把算出来的写在 return 后面"
    return f"你的函数得到 None：{cause}。"


def asks_grad(function: Callable[..., Any]) -> bool:
    """函数里提到了 `.grad` 或 `backward`。"""
    code = _code(function)
    return code is not None and not {"grad", "backward"}.isdisjoint(code.co_names)


def _returns_something(code: CodeType) -> bool:
    """有没有一处 return 交出的不是写死的 None。"""
    steps = list(dis.get_instructions(code))
    for before, step in pairwise(steps):
        source = before if step.opname == "RETURN_VALUE" else step
        if step.opname in RETURNS and (source.opname not in CONSTANTS or source.argval is not None):
            return True
    return False


def _code(function: Any) -> CodeType | None:
    """函数的字节码；partial、方法、有 `__call__` 的对象取里面那个；用 C 写的没有。"""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None)
    return code or getattr(type(function).__call__, "__code__", None)
