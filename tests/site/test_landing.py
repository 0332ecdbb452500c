"""链接落在该落的地方：带锚点的地址、本页目录、别页指来的链接，电脑和手机，头一次打开。"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from .conftest import HTML, Visitor

CHAPTERS = [f"chapters/{path.stem}" for path in sorted(HTML.glob("chapters/*.html"))]
SIZES = [(1280, 800), (390, 844)]
TOLERANCE = 100  # 像素
OFFSET = """id => {
  const heading = document.getElementById(id).querySelector("h1, h2, h3, h4");
  const bar = document.querySelector(".topbar").getBoundingClientRect().bottom;
  const room = document.documentElement.scrollHeight - innerHeight - scrollY;
  return [heading.getBoundingClientRect().top - bar, room];
}"""
ANCHORS = """[...document.querySelectorAll("article section[id]")]
  .filter(section => section.querySelector("h2, h3")).map(section => section.id)"""


def settled(page: Page) -> None:
    """滚动停了，图也下载完了。"""
    page.wait_for_load_state("networkidle")
    page.wait_for_function(
        """async () => {
          const before = scrollY;
          await new Promise(done => setTimeout(done, 150));
          return before === scrollY;
        }"""
    )


def misses(page: Page, anchors: list[str]) -> list[str]:
    """没有落在标题附近的锚点；页尾滚不动的不算。"""
    found = []
    for anchor in anchors:
        distance, room = page.evaluate(OFFSET, anchor)
        if not (-TOLERANCE < distance < TOLERANCE or (room < 2 and distance > 0)):
            found.append(f"{anchor} 差 {distance:.0f} 像素")
    return found


def spread(names: list[str], count: int) -> list[str]:
    """匀着挑 ``count`` 个，头尾都在。"""
    last = max(count - 1, 1)
    return list(dict.fromkeys(names[i * (len(names) - 1) // last] for i in range(count)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CHAPTERS)
def test_an_address_with_an_anchor_opens_at_its_heading(
    visitor: Visitor, name: str, size: tuple[int, int]
) -> None:
    with visitor.open(name, size=size) as (page, _):
        anchors = spread(page.evaluate(ANCHORS), 4)
    missed = []
    for anchor in anchors:
        with visitor.open(name, size=size, anchor=anchor) as (page, _):  # 每次都不带缓存
            settled(page)
            missed += misses(page, [anchor])
    assert missed == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_click_in_the_contents_stops_at_its_heading(visitor: Visitor, name: str) -> None:
    with visitor.open(name, size=SIZES[0]) as (page, _):
        links = page.locator(".page-toc a")
        for i in spread([str(i) for i in range(links.count())], 8):
            link = links.nth(int(i))
            link.click()
            settled(page)
            anchor = link.evaluate("link => decodeURIComponent(link.hash.slice(1))")
            assert misses(page, [anchor]) == []
