"""每一页：不连外网、控制台安静、无障碍零违规、手机上不横向滚动。"""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from .conftest import DESKTOP, PHONE, Visitor

SCHEMES = ("light", "dark")


def test_page_loads_in_silence_with_the_outside_blocked(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name) as (page, log):
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.wait_for_load_state("networkidle")
        assert log.problems() == []
        assert page.evaluate("document.documentElement.lang") == "zh-CN"


def violations(page: Page) -> list[str]:
    """axe 找到的毛病，一处一行。"""
    return [
        f"{item['id']}: {node['html'][:160]}"
        for item in Axe().run(page).response["violations"]
        for node in item["nodes"]
    ]


@pytest.mark.parametrize(("scheme", "size"), [("light", DESKTOP), ("dark", PHONE)])
def test_page_has_no_axe_violation(
    visitor: Visitor, page_name: str, scheme: str, size: tuple[int, int]
) -> None:
    with visitor.open(page_name, scheme=scheme, size=size) as (page, _):
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert violations(page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_open_search_has_no_axe_violation(
    visitor: Visitor, scheme: str, size: tuple[int, int]
) -> None:
    with visitor.open("intro", scheme=scheme, size=size) as (page, _):
        page.locator(".search-open").click()
        page.locator(".search-dialog input").fill("张量")
        page.locator(".search-hits mark").first.wait_for()
        assert violations(page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_open_contents_have_no_axe_violation(visitor: Visitor, scheme: str) -> None:
    with visitor.open("intro", scheme=scheme, size=PHONE) as (page, _):
        page.locator(".toc-fold > summary").click()
        page.locator(".nav-open").click()
        assert violations(page) == []


def test_phone_page_does_not_scroll_sideways(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name, size=PHONE) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]


def test_no_displayed_formula_scrolls_on_a_phone(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name, size=(390, 844)) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        page.evaluate("document.fonts.ready")
        wide = page.evaluate(
            """[...document.querySelectorAll(".math-block")]
            .filter(box => box.scrollWidth > box.clientWidth)
            .map(box => box.querySelector("annotation").textContent)"""
        )
        assert wide == []


def test_every_heading_and_figure_has_a_name(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name) as (page, _):
        assert page.locator("h1").count() == 1
        assert page.title().startswith(page.locator("h1").inner_text().rstrip("#").strip())
        assert page.locator("article img:not([alt]), article img[alt='']").count() == 0
