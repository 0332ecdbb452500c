"""站内搜索：常问的词，第一条就是讲它的那一节；读不到索引时有备用页。"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from .conftest import HTML, Visitor

CHAPTER_1 = "chapters/01_tensors.html"
ANSWERS = {  # 查询 → 哪些小节算答对
    "广播": ["sec-broadcast"],
    "步幅": ["sec-views"],
    "视图": ["sec-views", "sec-index"],
    "reshape": ["sec-views"],
    "形状不匹配": ["sec-broadcast"],
    "不连续": ["sec-views"],
    "stride": ["sec-views"],
}


@pytest.fixture(scope="module")
def page(visitor: Visitor) -> Iterator[Page]:
    with visitor.open("intro") as (page, _):
        yield page


def ask(page: Page, query: str) -> list[str]:
    """在 Ctrl-K 搜索框里输入 ``query``，返回结果的地址。"""
    if not page.locator("dialog.search-dialog").evaluate("box => box.open"):
        page.keyboard.press("Control+k")
    page.locator(".search-dialog input").fill("")
    page.locator(".search-status:empty").wait_for(state="attached")
    page.locator(".search-dialog input").fill(query)
    page.locator(".search-status:not(:empty)").wait_for()
    return [link.get_attribute("href") or "" for link in page.locator(".search-hits a").all()]


@pytest.mark.skipif(not (HTML / CHAPTER_1).is_file(), reason="第 1 章不在这份网站里")
@pytest.mark.parametrize(("query", "sections"), ANSWERS.items())
def test_first_hit_is_the_section_that_teaches_it(
    page: Page, query: str, sections: list[str]
) -> None:
    hits = ask(page, query)
    assert hits and hits[0].endswith(tuple(f"{CHAPTER_1}#{name}" for name in sections)), hits


def test_every_hit_leads_to_an_existing_place(page: Page, visitor: Visitor) -> None:
    for url in ask(page, "张量"):
        path, _, anchor = url.partition("#")
        name = path.removeprefix("/book/")
        assert f'id="{anchor}"' in (HTML / name).read_text(encoding="utf-8"), url


def test_a_modern_engine_does_not_fetch_the_whole_text(visitor: Visitor) -> None:
    with visitor.open("intro") as (page, _):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        assert ask(page, "广播")
        assert any("/pagefind/" in url for url in asked)
        assert not any("search_" in url for url in asked), asked


def test_nonsense_finds_nothing_and_says_so(page: Page) -> None:
    assert ask(page, "zzzqqqxxx") == []
    assert "没有找到" in page.locator(".search-status").inner_text()


def test_hits_mark_the_words_that_were_asked(page: Page) -> None:
    ask(page, "广播")
    assert page.locator(".search-hits mark").first.inner_text() == "广播"


@pytest.mark.parametrize(("query", "word"), [("张量形状", "张量"), ("torch.float16", "float16")])
def test_fallback_page_finds_sections_and_marks_the_words(
    visitor: Visitor, query: str, word: str
) -> None:
    with visitor.open("search", tail=f"?q={query}") as (page, log):
        page.wait_for_selector("#search-results li a")
        marks = page.locator("#search-results mark").all_inner_texts()
        assert any(word in mark for mark in marks) and log.problems() == []


@pytest.mark.skipif(not (HTML / CHAPTER_1).is_file(), reason="第 1 章不在这份网站里")
@pytest.mark.parametrize(("query", "sections"), ANSWERS.items())
def test_fallback_page_lists_the_section_that_teaches_it_among_the_first(
    visitor: Visitor, query: str, sections: list[str]
) -> None:
    with visitor.open("search", tail=f"?q={query}") as (page, _):
        links = page.locator("#search-results li a").all()[:5]
        hits = [link.get_attribute("href") or "" for link in links]
        assert any(hit == f"/book/{CHAPTER_1}#{name}" for hit in hits for name in sections), hits
