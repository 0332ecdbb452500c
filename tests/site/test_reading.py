"""读者会做的动作：换主题、开目录、复制代码、展开提示，键盘都够得到。"""

from __future__ import annotations

import pytest

from .conftest import HTML, Visitor
from .settings import DARK, PHONE, PHONE_LIGHT

CHAPTER = next(iter(sorted(HTML.glob("chapters/01_*.html"))), HTML / "intro.html")
NAME = CHAPTER.relative_to(HTML).with_suffix("").as_posix()
needs_chapter = pytest.mark.skipif(NAME == "intro", reason="第 1 章不在这份网站里")


def test_theme_choice_survives_a_new_page(visitor: Visitor) -> None:
    with visitor.open("intro") as (page, _):
        page.locator(".theme-switch").click()  # 跟随系统 → 浅色
        page.locator(".theme-switch").click()  # → 深色
        page.goto(f"{visitor.base}glossary.html")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_skip_link_is_the_first_stop_and_lands_on_the_text(visitor: Visitor) -> None:
    with visitor.open("intro") as (page, _):
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_phone_menu_opens_and_closes(visitor: Visitor) -> None:
    with visitor.open("intro", PHONE_LIGHT) as (page, _):
        page.locator(".nav-open").click()
        assert page.locator("#site-nav a").first.bounding_box()["y"] < PHONE[1]  # type: ignore[index]
        page.keyboard.press("Escape")
        assert page.locator("#site-nav a").first.bounding_box()["y"] > PHONE[1]  # type: ignore[index]


@needs_chapter
def test_copy_button_copies_exactly_the_code(visitor: Visitor) -> None:
    with visitor.open(NAME) as (page, _):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        box = page.locator(".cell_input:visible").first
        code = box.locator("pre").inner_text().rstrip()
        box.hover()
        box.locator("button.copy").click()
        box.get_by_text("已复制").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == code


@needs_chapter
def test_a_refused_clipboard_is_said_and_breaks_nothing(visitor: Visitor) -> None:
    with visitor.open(NAME) as (page, log):
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(Error()); }")
        box = page.locator(".cell_input:visible").first
        box.hover()
        box.locator("button.copy").click()
        box.get_by_text("没有复制成").wait_for()
        assert log.problems() == []


@needs_chapter
def test_copy_buttons_do_not_lie_over_code_on_a_phone(visitor: Visitor) -> None:
    with visitor.open(NAME, PHONE_LIGHT) as (page, _):
        over = page.evaluate(
            """[...document.querySelectorAll("button.copy")].filter(button => {
              const code = button.parentElement.querySelector("pre").getBoundingClientRect();
              const own = button.getBoundingClientRect();
              return own.height && own.top < code.bottom;
            }).length"""
        )
        assert over == 0


@needs_chapter
def test_contents_on_a_phone_lead_to_their_heading_and_fold_again(visitor: Visitor) -> None:
    with visitor.open(NAME, PHONE_LIGHT) as (page, _):
        page.locator(".toc-fold > summary").click()
        link = page.locator(".toc-fold a").nth(5)
        anchor = link.evaluate("link => decodeURIComponent(link.hash.slice(1))")
        link.click()
        page.wait_for_timeout(300)
        top = page.evaluate("id => document.getElementById(id).getBoundingClientRect().top", anchor)
        assert 0 <= top < 156
        assert not page.locator(".toc-fold").evaluate("fold => fold.open")


@needs_chapter
def test_print_is_light_with_every_fold_open_and_the_screen_comes_back(visitor: Visitor) -> None:
    with visitor.open(NAME, DARK) as (page, _):
        closed = "document.querySelectorAll('article details:not([open])').length"
        before = page.evaluate(closed)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(closed) == 0 < before
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(closed) == before
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@needs_chapter
def test_hint_and_solution_open_without_scripts(visitor: Visitor) -> None:
    context = visitor.browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{visitor.base}{NAME}.html")
    solution = page.locator("details.solution").first
    assert not solution.locator("pre").first.is_visible()
    solution.locator("summary").first.click()
    assert solution.locator("pre").first.is_visible()
    context.close()


@needs_chapter
def test_wide_code_can_be_scrolled_by_keyboard(visitor: Visitor) -> None:
    with visitor.open(NAME, PHONE_LIGHT) as (page, _):
        unreachable = page.evaluate(
            """[...document.querySelectorAll("article pre, article .table-box")]
            .filter(box => box.scrollWidth > box.clientWidth && box.tabIndex < 0).length"""
        )
        assert unreachable == 0


@needs_chapter
def test_chapter_offers_its_notebook_for_download(visitor: Visitor) -> None:
    with visitor.open(NAME) as (page, _):
        link = page.locator(".book-facts a[download]").first
        answer = page.request.get(link.evaluate("link => link.href"))
        assert answer.ok and answer.json()["nbformat"] == 4
