"""旧引擎：没有 Chromium 78 之后的成员和 WebAssembly，本地存储也不让用；读、押、操作、搜索都还行。

语法和样式的检查在 tests/tools/test_scripts.py。
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from .conftest import HTML, Log, Visitor, figure, shown
from .settings import PHONE_LIGHT
from .test_search import ask

LACKS = Path(__file__).with_name("chromium_78_lacks.toml").read_text(encoding="utf-8")
OLD = (
    f"const LACKS = {json.dumps(tomllib.loads(LACKS)['members'])};"
    """
(() => {
  const owners = Object.entries(LACKS).map(([path, names]) =>
    [path.split(".").reduce((owner, name) => owner && owner[name], window), names.split(" ")]);
  for (const [owner, names] of owners) for (const name of names) if (owner) delete owner[name];
  delete window.WebAssembly;
  for (const name of ["localStorage", "sessionStorage", "indexedDB"]) {
    Object.defineProperty(window, name, { get() { throw new Error("不让用"); } });
  }
})();"""
)
CHAPTER = "chapters/01_tensors"
pytestmark = pytest.mark.skipif(
    not (HTML / f"{CHAPTER}.html").is_file(), reason="第 1 章不在这份网站里"
)


@pytest.fixture(scope="module")
def chapter(visitor: Visitor) -> Iterator[tuple[Page, Log]]:
    with visitor.open(CHAPTER, PHONE_LIGHT, script=OLD) as (page, log):
        yield page, log
        assert log.problems() == []


def test_the_engine_under_test_is_an_old_one(chapter: tuple[Page, Log]) -> None:
    old = "[Array.prototype.at, Object.hasOwn, document.body.replaceChildren, window.WebAssembly]"
    assert chapter[0].evaluate(f"{old}.every(found => found === undefined)")
    assert chapter[0].evaluate("() => { try { localStorage; } catch { return '不让用'; } }")


def test_page_can_be_read(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name, PHONE_LIGHT, script=OLD) as (page, log):
        page.locator(".theme-switch").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        page.locator(".nav-open").click()
        assert page.locator("#site-nav a").first.is_visible()
        assert page.locator("[data-widget]:not([data-ready])").count() == 0
        assert log.problems() == []


def answer(question: Locator) -> None:
    """选第一项，或者填 7。"""
    if question.locator(".cw-input").count():
        question.locator(".cw-input").fill("7")
        question.locator("form button").click()
    else:
        question.locator(".cw-option").first.click()


def test_every_bet_is_judged(chapter: tuple[Page, Log]) -> None:
    bets = figure(chapter[0], "bet").all()
    for bet in bets:
        answer(bet)
    assert bets and {shown(bet)["state"] for bet in bets} == {"right", "wrong"}


def test_quiz_keeps_score(chapter: tuple[Page, Log]) -> None:
    quiz = figure(chapter[0], "quiz").first
    questions = quiz.locator("[data-bet]").all()
    for question in questions:
        answer(question)
    assert re.fullmatch(rf"答对 \d+ / {len(questions)}", shown(quiz)["score"])


def test_figures_can_be_operated(chapter: tuple[Page, Log]) -> None:
    page, _ = chapter
    strides, indexing, broadcasting = (
        figure(page, name).first for name in ("strides", "indexing", "broadcasting")
    )
    strides.get_by_role("button", name=".T").click()
    assert (shown(strides)["shape"], shown(strides)["stride"]) == ("(4, 3)", "(1, 4)")
    indexing.get_by_role("textbox").fill("1:3, ::2")
    assert shown(indexing)["shape"] == "(2, 3)"
    broadcasting.get_by_role("button", name="(2, 3) + (3,)").click()
    assert shown(broadcasting)["result"] == "(2, 3)"


def test_pasted_message_leads_to_its_entry(visitor: Visitor) -> None:
    with visitor.open("chapters/B1_errors", script=OLD) as (page, log):
        page.fill("#lookup-text", "mat1 and mat2 shapes cannot be multiplied (64x3 and 9x1)")
        assert page.locator(".lookup-answer a").get_attribute("href") == "#err-matmul"
        assert log.problems() == []


BROKEN = {
    "no_wasm": "delete window.WebAssembly;",
    "wasm_forbidden": "WebAssembly.Module = function () { throw new Error('不让用'); };",
}


@pytest.mark.parametrize("trouble", BROKEN.values(), ids=BROKEN)
def test_search_answers_where_the_index_cannot_run(visitor: Visitor, trouble: str) -> None:
    with visitor.open("glossary", script=trouble) as (page, _):
        hits = ask(page, "广播")
        assert hits and hits[0].endswith(f"{CHAPTER}.html#sec-broadcast"), hits


def test_search_answers_where_the_index_does_not_arrive(visitor: Visitor) -> None:
    with visitor.open("glossary") as (page, _):
        page.route("**/pagefind/**", lambda route: route.abort())
        hits = ask(page, "广播")
        assert hits and hits[0].endswith(f"{CHAPTER}.html#sec-broadcast"), hits


def test_search_that_found_no_index_tries_again(visitor: Visitor) -> None:
    with visitor.open("glossary", script=OLD) as (page, _):
        page.route("**/search_sections.js", lambda route: route.abort())
        assert ask(page, "广播") == []
        assert "读不到搜索索引" in page.locator(".search-status").inner_text()
        page.unroute("**/search_sections.js")
        assert ask(page, "广播") != []
