"""报错词典的输入框：贴一行，指到那一条；没有的说怎么办；不联网。"""

from __future__ import annotations

import pytest

from .conftest import Visitor
from .settings import PHONE_DARK, PHONE_LIGHT, Setting

MESSAGE = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x3 and 9x1)"


@pytest.mark.parametrize("setting", [PHONE_LIGHT, PHONE_DARK], ids=str)
def test_pasted_message_leads_to_its_entry(visitor: Visitor, setting: Setting) -> None:
    with visitor.open("chapters/B1_errors", setting) as (page, log):
        page.fill("#lookup-text", MESSAGE)
        page.click(".lookup-answer a")
        page.wait_for_function("location.hash === '#err-matmul'")
        assert page.locator("#err-matmul").count() == 1
        assert page.locator(".lookup-answer code").count() == 1 and log.problems() == []


def test_entry_of_the_other_page_is_reached(visitor: Visitor) -> None:
    with visitor.open("chapters/B2_old") as (page, log):
        page.fill("#lookup-text", MESSAGE)
        page.click(".lookup-answer a")
        page.wait_for_url("**/B1_errors.html#err-matmul")
        assert log.problems() == []


def test_unknown_message_gets_an_answer(visitor: Visitor) -> None:
    with visitor.open("chapters/B1_errors") as (page, _):
        page.fill("#lookup-text", "division by zero")
        assert "没找到这一条" in page.inner_text(".lookup-answer")
        assert page.locator(".lookup-answer a").count() == 0
        page.fill("#lookup-text", "")
        assert page.inner_text(".lookup-answer") == ""
