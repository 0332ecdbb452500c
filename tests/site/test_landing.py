"""带锚点的地址，头一次打开就落在那个标题，电脑和手机都是。本页目录的点击在 ``checks`` 里。"""

from __future__ import annotations

import re

import pytest

from .checks import misses, settled
from .conftest import HTML, Visitor
from .settings import FULL, Setting, spread

CHAPTERS = [f"chapters/{path.stem}" for path in sorted(HTML.glob("chapters/*.html"))]
SIZES = (Setting("light", (1280, 800)), Setting("light", (390, 844)))


def visits(name: str) -> list[tuple[str, Setting]]:
    """返回这一章试哪些锚点、在哪种屏幕上：头尾和中间共四处，各章轮流试两处，各一种屏幕。"""
    text = (HTML / f"{name}.html").read_text(encoding="utf-8")
    anchors = spread(re.findall(r'<section id="([^"]+)"', text), 4)
    if FULL:
        return [(anchor, size) for anchor in anchors for size in SIZES]
    i, count = CHAPTERS.index(name), len(anchors)
    return [(anchors[(i + 2 * k) % count], size) for k, size in enumerate(SIZES)]


@pytest.mark.parametrize("name", CHAPTERS)
def test_an_address_with_an_anchor_opens_at_its_heading(visitor: Visitor, name: str) -> None:
    missed = []
    for anchor, size in visits(name):
        with visitor.open(name, size, tail=f"#{anchor}") as (page, _):  # 每次都不带缓存
            settled(page)
            missed += [f"{name} {size.size}：{miss}" for miss in misses(page, anchor)]
    assert missed == []


def test_chapters_take_turns_with_every_place_and_both_screens() -> None:
    tried = [visit for name in CHAPTERS for visit in visits(name)]
    assert {size for _, size in tried} == set(SIZES)
    assert all(anchor for anchor, _ in tried) and len(tried) >= 2 * len(CHAPTERS)
