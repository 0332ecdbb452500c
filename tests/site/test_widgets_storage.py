"""浏览器里存着的回答：不像回答的不信，存不下也照常作答。"""

import os
from pathlib import Path

import pytest

from companion.book import bet, quiz

from .conftest import QUESTIONS, figure, shown

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="没有 chromium，开不了浏览器")
STALE = [
    "99 MB",
    "",
    "evil",
    "constructor",
    "__proto__",
    "undefined",
    "null",
    "<b>0</b>",
    "x" * 9999,
]


@pytest.mark.parametrize("value", STALE, ids=lambda value: repr(value[:12]))
def test_stored_answer_that_is_none_of_the_options_counts_as_no_answer(show, value):
    page = show(bet("ch99.bytes"), quiz("ch99.two", when="before"), quiz("ch99.two", when="after"))
    keys = ["bet:ch99.bytes", "quiz:ch99.two:before:bytes", "quiz:ch99.two:after:bytes"]
    for key in keys:
        page.evaluate(
            "([key, value]) => localStorage.setItem(`companion:${key}`, value)", [key, value]
        )
    page.reload()
    assert shown(figure(page, "bet"))["state"] == "open"
    assert [shown(node)["score"] for node in figure(page, "quiz").all()] == ["已答 0 / 2"] * 2
    figure(page, "bet").get_by_role("button", name="24 MB").click()
    assert shown(figure(page, "bet"))["state"] == "wrong"


@pytest.mark.parametrize("value", ["", "   ", "\n", "x" * 1_000_000])
def test_stored_text_that_cannot_be_an_answer_counts_as_no_answer(show, value):
    page = show(bet("ch99.shape"))
    page.evaluate("value => localStorage.setItem('companion:bet:ch99.shape', value)", value)
    page.reload()
    assert shown(figure(page, "bet"))["state"] == "open"
    assert page.get_by_role("textbox").input_value() == ""


def test_options_that_differ_only_in_case_are_two_options(show, tmp_path):
    text = QUESTIONS.replace('"48 MB"', '"`x.T`"').replace('"`0`"', '"`x.t`"')
    (tmp_path / "ch98.toml").write_text(text, encoding="utf-8")
    node = figure(show(bet("ch98.bytes")), "bet")
    node.get_by_role("button", name="x.T").first.click()
    assert shown(node)["state"] == "wrong"
    assert "那是复制一份。" in node.get_by_role("status").inner_text()


def test_bet_works_where_the_store_is_full(show):
    page = show(bet("ch99.bytes"))
    page.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('满了'); }")
    page.reload()
    figure(page, "bet").get_by_role("button", name="0", exact=True).click()
    assert shown(figure(page, "bet"))["state"] == "right"
