"""每一页：不连外网、控制台安静、无障碍零违规、手机上不横向滚动。"""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from .conftest import PHONE, Visitor

SCHEMES = ("light", "dark")


def test_page_loads_in_silence_with_the_outside_blocked(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name) as (page, log):
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.wait_for_load_state("networkidle")
        assert log.problems() == []
        assert page.evaluate("document.documentElement.lang") == "zh-CN"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_page_has_no_axe_violation(visitor: Visitor, page_name: str, scheme: str) -> None:
    with visitor.open(page_name, scheme=scheme) as (page, _):
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        results = Axe().run(page)
        found = [
            f"{item['id']}: {node['html'][:160]}"
            for item in results.response["violations"]
            for node in item["nodes"]
        ]
        assert found == []


def test_phone_page_does_not_scroll_sideways(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name, size=PHONE) as (page, _):
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]


def test_every_heading_and_figure_has_a_name(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name) as (page, _):
        assert page.locator("h1").count() == 1
        assert page.title().startswith(page.locator("h1").inner_text().rstrip("#").strip())
        assert page.locator("article img:not([alt]), article img[alt='']").count() == 0
