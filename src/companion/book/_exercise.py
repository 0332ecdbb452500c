"""习题自检：`check("ch01.row_means", 答案)` 打印一行 ◌、✗ 或 ✓。

检查器在 `companion.book.exercises.ch01` 里，函数名就是题名；这里只负责找到它、叫它、把结果说清楚。
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Literal

from torch import Tensor

from companion._common import say, unknown_name
from companion.book._names import split_name
from companion.book.exercises._common import Wrong
from companion.errors import ArgumentError

Status = Literal["todo", "wrong", "right"]
MARKS: dict[Status, str] = {"todo": "◌", "wrong": "✗", "right": "✓"}


@dataclass(frozen=True)
class Verdict:
    """一次判题的结果：`status` 是 todo、wrong 或 right，`text` 是要打印的一行。"""

    status: Status
    text: str


class _NotAnswered(Exception):
    """读者的函数还没写完：返回了 `...` 或 None。"""


def check(name: str, answer: object) -> None:
    """打印一行判题结果：◌ 还没作答，✗ 哪里不对，✓ 对了。

    Args:
        name: 题名，如 ``"ch01.row_means"``。
        answer: 读者的答案：值、张量或函数；还是 ``...`` 就算没作答。

    Raises:
        ArgumentError: 名字不是 ``"章.题名"`` 的样子，或没有这道题；消息里列出相近的题名。
    """
    say(grade(name, answer).text)


def grade(name: str, answer: object) -> Verdict:
    """判题结果：状态和 `check` 要打印的那一行。参数和异常同 `check`。"""
    checker = _find_checker(name)
    if _is_blank(answer):
        return _verdict("todo", "还没作答：把 ... 换成你的代码，再运行这一格。")
    try:
        wrong = checker(_guard(answer) if isinstance(answer, FunctionType) else answer)
    except _NotAnswered:
        return _verdict("todo", "还没作答：函数没有返回结果，把 ... 换成你的代码并 return。")
    except Wrong as error:
        return _verdict("wrong", str(error))
    except Exception as error:
        kind = f"{type(answer).__name__}，检查时出错：{type(error).__name__}: {_one_line(error)}"
        return _verdict("wrong", f"你的答案是 {kind}")
    return _verdict("right", "对了。") if wrong is None else _verdict("wrong", wrong)


def _verdict(status: Status, text: str) -> Verdict:
    return Verdict(status, f"{MARKS[status]} {text}")


def _is_blank(answer: object) -> bool:
    """答案里还留着 `...`，或者干脆是 None。"""
    if isinstance(answer, dict):
        answer = list(answer.values())
    parts = answer if isinstance(answer, (tuple, list)) else [answer]
    return any(part is ... or part is None for part in parts)


def _guard(function: FunctionType) -> Callable[..., object]:
    """把读者的函数包一层：没写完、抛异常，都变成判题能认出的信号。"""

    @functools.wraps(function)
    def guarded(*args: object, **kwargs: object) -> object:
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            given = "、".join(_describe(value) for value in (*args, *kwargs.values())) or "无"
            message = f"你的函数出错了：{type(error).__name__}: {_one_line(error)}（输入：{given}）"
            raise Wrong(message) from error
        if _is_blank(result):
            raise _NotAnswered
        return result

    return guarded


def _describe(value: object) -> str:
    """一个输入的简短说法：张量说形状和 dtype，别的照写，太长就截断。"""
    if isinstance(value, Tensor):
        return f"形状 {tuple(value.shape)} 的 {str(value.dtype).removeprefix('torch.')} 张量"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _one_line(error: Exception) -> str:
    """异常消息的第一行；张量的错误信息后面常跟着几十行调用栈。"""
    return next(iter(str(error).splitlines()), "")


def _find_checker(name: str) -> Callable[[object], str | None]:
    """按题名找检查器：`ch01.row_means` 在 `companion.book.exercises.ch01` 里。"""
    chapter, title = split_name(name)
    package = importlib.import_module("companion.book.exercises")
    modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
    chapters = sorted(module for module in modules if not module.startswith("_"))
    if chapter not in chapters:
        raise ArgumentError(unknown_name(f"没有 {chapter!r} 这一章的习题", chapter, chapters))
    checkers = _checkers(importlib.import_module(f"companion.book.exercises.{chapter}"))
    if title not in checkers:
        problem = f"{chapter} 里没有 {title!r} 这道题"
        raise ArgumentError(unknown_name(problem, title, list(checkers)))
    return checkers[title]


def _checkers(module: ModuleType) -> dict[str, Callable[[object], str | None]]:
    """模块里公开的检查器：自己定义的、名字不以下划线开头的函数。"""
    functions = inspect.getmembers(module, inspect.isfunction)
    return {
        name: function
        for name, function in functions
        if not name.startswith("_") and function.__module__ == module.__name__
    }
