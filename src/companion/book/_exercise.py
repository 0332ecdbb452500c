"""习题自检：`check("ch01.row_means", 答案)` 打印一行 ◌、✗ 或 ✓。

检查器在 `companion.book.exercises.ch01` 里，函数名就是题名；这里只负责找到它、叫它、把结果说清楚。
"""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from companion._common import say, unknown_name
from companion.book._blank import NONE_GIVEN, is_blank
from companion.book._guard import NotAnswered, one_line, prepare, untouched
from companion.book._names import split_name
from companion.book.exercises._common import Wrong, rules_of
from companion.errors import ArgumentError

Status = Literal["todo", "wrong", "right"]
MARKS: dict[Status, str] = {"todo": "◌", "wrong": "✗", "right": "✓"}


@dataclass(frozen=True)
class Verdict:
    """一次判题的结果：`status` 是 todo、wrong 或 right，`text` 是要打印的一行。"""

    status: Status
    text: str


def check(name: str, answer: object) -> None:
    """打印一行判题结果：◌ 还没作答，✗ 哪里不对，✓ 对了。

    Args:
        name: 题名，如 ``"ch01.row_means"``。
        answer: 读者的答案：值、张量或函数；还留着 ``...`` 就算没作答。

    Raises:
        ArgumentError: 名字不是 ``"章.题名"`` 的样子，或没有这道题；消息里列出相近的题名。
    """
    say(grade(name, answer).text)


def grade(name: str, answer: object) -> Verdict:
    """判题结果：状态和 `check` 要打印的那一行；读者的会话不变。参数和异常同 `check`。"""
    checker = _find_checker(name)
    if is_blank(answer):
        return _verdict("todo", "还没作答：把 ... 换成你的代码，再运行这一格。")
    if _wants_function(checker) and not callable(answer):
        given = f"要一个函数，你交的是 {type(answer).__name__}"
        return _verdict("wrong", f"{given}。交函数的名字，后面不带括号。")
    if answer is None:
        return _verdict("wrong", NONE_GIVEN)
    try:
        with untouched():
            wrong = checker(prepare(answer, rules_of(checker)))
    except NotAnswered:
        return _verdict("todo", "还没作答：函数没有返回结果，把 ... 换成你的代码并 return。")
    except Wrong as error:
        return _verdict("wrong", str(error))
    except Exception as error:
        kind = f"{type(answer).__name__}，检查时出错：{type(error).__name__}: {one_line(error)}"
        return _verdict("wrong", f"你的答案是 {kind}")
    return _verdict("right", "对了。") if wrong is None else _verdict("wrong", wrong)


def _verdict(status: Status, text: str) -> Verdict:
    return Verdict(status, f"{MARKS[status]} {text}")


def _wants_function(checker: Callable[..., object]) -> bool:
    """检查器的参数标注成了函数：``answer: Callable[..., Any]``。"""
    hints = typing.get_type_hints(checker)
    return typing.get_origin(hints.get("answer")) is Callable


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
    """一章公开的检查器：章的模块（或包里的各个模块）定义的、名字不以下划线开头的函数。"""
    functions = inspect.getmembers(module, inspect.isfunction)
    return {
        name: function
        for name, function in functions
        if not name.startswith("_") and f"{function.__module__}.".startswith(f"{module.__name__}.")
    }
