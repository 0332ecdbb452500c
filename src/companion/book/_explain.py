"""报错词典：一条消息是什么意思、怎么改。条目在 `_dict/*.toml`，每一条建书时都跑过。"""

import re
import sys
import textwrap
import tomllib
from functools import cache
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, NamedTuple

from companion._common import emit
from companion.errors import ArgumentError

DICTIONARY = Path(__file__).with_name("_dict")

_DIGITS = re.compile(r"\d+")
_BLANKS = re.compile(r"\s+")
_LOST = """词典里没有这一条：{first}
先读最后一行，去掉里面的数字和你自己起的名字，再到书里搜索。
还没有，就把出错的那一句单独拿出来，印出每个输入的 shape、dtype 和 device，先看哪一个不是你以为的。
"""


class Entry(NamedTuple):
    """词典的一条：链接目标（如 ``err-view``），认得它的几句话，TOML 里的内容。"""

    target: str
    phrases: tuple[str, ...]
    content: dict[str, Any]


def explain(error: BaseException | str | None = None) -> None:
    """什么也不返回：印出这个错是什么意思、怎么改。

    ``explain()`` 解释上一格刚报的错；``except … as error`` 里写 ``explain(error)``；从别处抄来的
    一行消息，写 ``explain("消息")``。消息里的数字是几都认得。

    Args:
        error: 异常、警告，或一段消息（整段回溯也行）；不给就是这个会话里最近一个没接住的异常。

    Raises:
        ArgumentError: 给的不是这几样；或者没有给，而会话里还没有报过错。
    """
    message = _message(error)
    entry = find(message)
    if entry is None:
        emit(_LOST.format(first=message.strip().splitlines()[0]))
        return
    content = entry.content
    lines = [f"什么时候：{content['when']}。"] if "when" in content else []
    lines += [f"为什么：{content['truth']}", "改成："]
    lines += [textwrap.indent(content.get("fix", content.get("new", "")).strip(), "    ")]
    page = "报错词典" if entry.target.startswith("err-") else "旧写法"
    emit("\n".join([*lines, f"书里：{page}，{entry.target}"]) + "\n")


def find(message: str) -> Entry | None:
    """消息里含着的最长的一句属于哪一条；一句也没有就是 None。数字和空白的多少不管。"""
    text, best, longest = masked(message), None, 0
    for entry in entries():
        for phrase in map(masked, entry.phrases):
            if len(phrase) > longest and phrase in text:
                best, longest = entry, len(phrase)
    return best


def masked(text: str) -> str:
    """换掉数字、并起空白、不分大小写；与 ``site/assets/lookup.js`` 里的 masked 相同。"""
    return _BLANKS.sub(" ", _DIGITS.sub("#", text)).strip().lower()


@cache
def entries() -> tuple[Entry, ...]:
    """词典的全部条目：报错在前，旧写法在后，各按文件里的次序。"""
    found = []
    for name, prefix in (("errors", "err"), ("old", "old")):
        tables = tomllib.loads((DICTIONARY / f"{name}.toml").read_text(encoding="utf-8"))
        for key, content in tables.items():
            phrases = [content["says"]] if "says" in content else []
            phrases += [*content.get("inside", ()), *content.get("elsewhere", ())]
            found.append(Entry(f"{prefix}-{key}", tuple(phrases), content))
    return tuple(found)


def _message(error: BaseException | str | None) -> str:
    if error is None:
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if error is None:
            raise ArgumentError("应给一个异常或一行消息，实际什么也没给；这个会话里还没有报过错。")
    if isinstance(error, BaseException):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, str) and error.strip():
        return error
    raise ArgumentError(
        f"应给异常或一行消息，实际是 {short_repr(error)}；"
        "写 explain(error)，error 是 except … as error 里的那个。"
    )
