"""读者会做的动作：换主题、开目录、复制代码、展开提示，键盘都够得到。"""

from __future__ import annotations

import pytest

from .conftest import HTML, ROOT, Visitor
from .settings import DARK, HOME, PHONE, PHONE_LIGHT, Setting

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
@pytest.mark.parametrize("setting", [HOME, PHONE_LIGHT], ids=str)
def test_copy_buttons_do_not_lie_over_code(visitor: Visitor, setting: Setting) -> None:
    with visitor.open(NAME, setting) as (page, _):
        over = page.evaluate(
            """[...document.querySelectorAll("button.copy")].filter(button => {
              const code = document.createRange(), own = button.getBoundingClientRect();
              code.selectNodeContents(button.parentElement.querySelector("pre"));
              return [...code.getClientRects()].some(line => line.width && own.height
                && line.right > own.left && line.left < own.right
                && line.bottom > own.top && line.top < own.bottom);
            }).length"""
        )
        assert over == 0


@needs_chapter
def test_long_lines_of_code_are_folded_on_a_phone_and_only_there(visitor: Visitor) -> None:
    wide = """[...document.querySelectorAll(".cell_input pre")]
      .filter(box => box.clientWidth && box.scrollWidth > box.clientWidth).length"""
    lines = "[...document.querySelectorAll('.long')].filter(line => line.offsetHeight)"
    with visitor.open(NAME, PHONE_LIGHT) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        assert page.evaluate(wide) == 0 < page.evaluate(f"{lines}.length")
        assert (
            page.evaluate("parseFloat(getComputedStyle(document.querySelector('pre')).fontSize)")
            >= 12.5
        )
    with visitor.open(NAME) as (page, _):
        assert page.evaluate(f"{lines}.every(line => getComputedStyle(line).display === 'inline')")


@needs_chapter
def test_what_scrolls_sideways_has_a_shadow_at_its_edge(visitor: Visitor) -> None:
    with visitor.open(NAME, PHONE_LIGHT) as (page, _):
        plain = page.evaluate(
            """[...document.querySelectorAll("article pre, article .table-box")]
            .filter(box => box.scrollWidth > box.clientWidth)
            .filter(box => !getComputedStyle(box).backgroundImage.includes("gradient")).length"""
        )
        assert plain == 0


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


@pytest.mark.parametrize("name", [f"chapters/{p.stem}" for p in ROOT.glob("chapters/*.ipynb")])
def test_every_notebook_page_offers_its_notebook_for_download(visitor: Visitor, name: str) -> None:
    if not (HTML / f"{name}.html").is_file():
        pytest.skip("这一页不在这份网站里")
    with visitor.open(name) as (page, _):
        link = page.locator(".book-facts a[download]").first
        answer = page.request.get(link.evaluate("link => link.href"))
        assert answer.ok and answer.json()["nbformat"] == 4
