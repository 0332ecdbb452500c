"""哪一页在哪些条件下看。每页每种都看一遍，书长到十六章就要半小时，所以匀着轮。

每一页都在 ``HOME`` 下从头查一遍；四种配色与屏幕的组合由各页轮流，轮到别的就再看一遍。
环境变量 ``SITE_FULL=1`` 时不抽：每一页、每一种、每一处都看。
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

FULL = os.environ.get("SITE_FULL", "0") not in ("", "0")
DESKTOP, PHONE = (1440, 900), (375, 812)
T = TypeVar("T")


class Setting(NamedTuple):
    """配色与屏幕；印出来就是失败消息里的那个名字。"""

    scheme: str
    size: tuple[int, int]

    def __str__(self) -> str:
        device = "phone" if self.size == PHONE else "desktop"
        return f"{device}-{self.scheme}"


HOME, DARK = Setting("light", DESKTOP), Setting("dark", DESKTOP)
PHONE_LIGHT, PHONE_DARK = Setting("light", PHONE), Setting("dark", PHONE)
ALL = (PHONE_DARK, DARK, PHONE_LIGHT, HOME)


def turn(items: Sequence[T], i: int, *, full: bool = FULL) -> list[T]:
    """返回轮到第 ``i`` 页的那一种；``full`` 时是全部。"""
    return list(items) if full else [items[i % len(items)]]


def spread(items: Sequence[T], count: int) -> list[T]:
    """匀着挑 ``count`` 个，头尾都在；不够就全要。"""
    if len(items) <= count:
        return list(items)
    return [items[i * (len(items) - 1) // (count - 1)] for i in range(count)]
