"""每一页：守规矩、无障碍零违规、图都看得见；顺手留下给人看的截图。

一页打开一次查完能查的，失败消息里写着页、条件和哪一条；条件怎么轮见 ``settings``。
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from .checks import CHECKS, axe, pictures
from .conftest import HTML, Log, Visitor, page_names
from .settings import ALL, HOME, PHONE_DARK, PHONE_LIGHT, Setting, spread, turn

SHOTS = HTML.parent / "screenshots"


def look(page: Page, log: Log, setting: Setting) -> list[str]:
    """与配色、屏幕有关的毛病。"""
    theme = page.evaluate("document.documentElement.dataset.theme")
    faults = [] if theme == setting.scheme else [f"主题是 {theme}"]
    return faults + axe(page) + pictures(page, log)


def shoot(page: Page, setting: Setting) -> None:
    """整页的截图写到 ``_build/screenshots``。"""
    path = page.url.partition("/book/")[2].removesuffix(".html").replace("/", "-")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{path}-{setting}.png", full_page=True)


def test_page_has_no_fault(visitor: Visitor, page_name: str) -> None:
    found, mine = [], turn(ALL, page_names().index(page_name))
    for setting in dict.fromkeys([HOME, *mine]):
        with visitor.open(page_name, setting) as (page, log):
            rules = CHECKS if setting == HOME else ()
            faults = {rule.__name__: rule(page, log) for rule in rules}
            faults["look"] = look(page, log, setting)
            if setting in mine:
                shoot(page, setting)
        found += [f"{page_name} {setting} {name}：{x}" for name in faults for x in faults[name]]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("setting", ALL, ids=str)
def test_open_search_has_no_axe_violation(visitor: Visitor, setting: Setting) -> None:
    with visitor.open("intro", setting) as (page, _):
        page.locator(".search-open").click()
        page.locator(".search-dialog input").fill("张量")
        page.locator(".search-hits mark").first.wait_for()
        assert axe(page) == []


@pytest.mark.parametrize("setting", [PHONE_LIGHT, PHONE_DARK], ids=str)
def test_open_contents_have_no_axe_violation(visitor: Visitor, setting: Setting) -> None:
    with visitor.open("intro", setting) as (page, _):
        page.locator(".toc-fold > summary").click()
        page.locator(".nav-open").click()
        assert axe(page) == []


def test_one_faint_word_among_many_is_found(visitor: Visitor) -> None:
    with visitor.open("glossary") as (page, _):
        words = page.locator(".article p")
        words.nth(words.count() // 3).evaluate("word => { word.style.color = '#ccc'; }")
        faults = axe(page, everything=False)
    assert faults and all(fault.startswith("color-contrast: ") for fault in faults)


def test_no_displayed_formula_scrolls_on_a_phone(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name, Setting("light", (390, 844))) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        page.evaluate("document.fonts.ready")
        wide = page.evaluate(
            """[...document.querySelectorAll(".math-block")]
            .filter(box => box.scrollWidth > box.clientWidth)
            .map(box => box.querySelector("annotation").textContent)"""
        )
        assert wide == []


def test_every_page_has_its_turn_and_every_setting_its_pages() -> None:
    pages = range(17)
    seen = [turn(ALL, i, full=False) for i in pages]
    assert all(len(settings) == 1 for settings in seen)
    assert all(sum(setting in settings for settings in seen) >= 4 for setting in ALL)
    assert [turn(ALL, i, full=True) for i in pages] == [list(ALL)] * len(pages)
    assert spread(range(10), 4) == [0, 3, 6, 9] and spread("ab", 4) == ["a", "b"]
