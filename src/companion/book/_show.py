"""把代码和错误摆给读者看：源码原样印出，错误变成一行字。"""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from companion._common import emit
from companion.errors import ArgumentError


def show_source(obj: Any) -> None:
    """什么也不返回：印出函数、类或模块的源码。

    Raises:
        ArgumentError: 没有 Python 源码，例如用 C++ 写成的 ``torch.add``。
    """
    try:
        source = inspect.getsource(inspect.unwrap(obj))
    except (TypeError, OSError) as error:
        raise ArgumentError(
            f"应给 Python 写的函数、类或模块，实际是 {obj!r}：没有源码可印（多半用 C++ 写成）。"
        ) from error
    emit(textwrap.dedent(source).rstrip() + "\n")


def error_of(fn: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """调用 ``fn(*args, **kwargs)``，返回它报的错，如 ``"ValueError: 长度不等"``。

    Raises:
        AssertionError: ``fn`` 没有报错。说好会失败的代码成功了，正文就说错了。
    """
    try:
        result = fn(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"这里应当报错，却得到了 {result!r}。")
