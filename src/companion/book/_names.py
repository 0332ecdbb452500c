"""书里的东西怎么称呼：``"ch01.row_means"``，点号前是章，后面是这一章里的名字。"""

import re
from reprlib import repr as short_repr

from companion.errors import ArgumentError


def split_name(name: object) -> tuple[str, str]:
    """``"ch01.row_means"`` 分成 ``("ch01", "row_means")``；不是这个样子，就抛出 ArgumentError。"""
    if not isinstance(name, str) or not re.fullmatch(r"\w{1,50}\.[\w-]{1,50}", name):
        raise ArgumentError(
            f'名字应写成 "章.名字" 的字符串，如 "ch01.row_means"，实际是 {short_repr(name)}；'
            "请核对名字，它是第一个参数。"
        )
    chapter, _, title = name.partition(".")
    return chapter, title
