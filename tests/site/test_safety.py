"""什么都不信：网址里的查询、浏览器里存着的值、混进页面的脚本，都弄不坏也弄不停一页。"""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from .conftest import HTML, Visitor, page_names
from .settings import DARK, turn

SCRIPT = "<script>document.title='坏了'</script><img src=x onerror=\"document.title='坏了'\">"
MEMBERS = ["constructor", "__proto__", "toString", "hasOwnProperty", "valueOf", "__defineGetter__"]
MEMBERS += ["isPrototypeOf", "prototype", "length", "name", "constructor prototype", "__PROTO__"]
HOSTILE = [*MEMBERS, SCRIPT, "a" * 5000, "张量" * 3000, ".*+?^${}()|[]\\", "(a+)+$", "%", "\0", "-"]
HOSTILE += ["\ud83d", "İİİ", "&q=1#", "  ", "张 量 " * 500, "javascript:alert(1)", "\u202e"]


def encoded(query: str) -> str:
    return quote(query.encode("utf-8", "surrogatepass"))


def test_fallback_page_answers_any_query_and_stays_quiet(visitor: Visitor) -> None:
    with visitor.open("search") as (page, log):
        for query in HOSTILE:
            name = ascii(query[:24])
            page.goto(f"{visitor.base}search.html?q={encoded(query)}", wait_until="networkidle")
            status = page.locator("#search-progress").inner_text()
            assert re.fullmatch(r"(\d+ 节(，列出前 30 节)?|没有找到。换个说法试试。)?", status), (
                name
            )
            assert page.locator("#search-results img, #search-results script").count() == 0, name
            assert page.locator("#search-results li").count() <= 30, name
            assert page.title().startswith("搜索") and log.problems() == [], name


def test_fallback_page_survives_a_badly_encoded_query(visitor: Visitor) -> None:
    with visitor.open("search") as (page, log):
        for raw in ["%", "%ff", "%zz", "%E5%BC", "q=1&q=2", "%00", "+", ""]:
            page.goto(f"{visitor.base}search.html?q={raw}", wait_until="networkidle")
            assert page.locator(".search-page input").is_visible(), raw
            assert log.problems() == [], raw


def test_search_dialog_answers_any_query_one_after_another(visitor: Visitor) -> None:
    with visitor.open("intro") as (page, log):
        page.keyboard.press("Control+k")
        box, title = page.locator(".search-dialog input"), page.title()
        for query in [*MEMBERS, SCRIPT, "张量" * 3000, "(a+)+$", "\u202e"]:
            box.fill("")
            page.locator(".search-status:empty").wait_for(state="attached")
            box.evaluate(
                "(input, text) => { input.value = text; input.dispatchEvent(new Event('input')); }",
                query,
            )
            page.locator(".search-status:not(:empty)").wait_for()
            assert page.locator(".search-hits img, .search-hits script").count() == 0, query
            assert page.title() == title and log.problems() == [], query


MODES = ["evil", "", "constructor", "__proto__", "toString", "undefined", "Dark", "x" * 1_000_000]


def test_unknown_stored_mode_counts_as_following_the_system(visitor: Visitor) -> None:
    with visitor.open("intro", DARK) as (page, log):
        for mode in MODES:
            page.evaluate("mode => localStorage.setItem('mode', mode)", mode)
            page.reload(wait_until="networkidle")
            switch, name = page.locator(".theme-switch"), repr(mode[:12])
            assert switch.get_attribute("title") == "切换主题（现在：跟随系统）", name
            assert page.evaluate("document.documentElement.dataset.theme") == "dark", name
            switch.click()
            assert switch.get_attribute("title") == "切换主题（现在：浅色）", name
            assert page.evaluate("localStorage.getItem('mode')") == "light", name
            assert log.problems() == [], name


BLOCKED = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('不让用'); }})"
FULL_STORE = (
    "Storage.prototype.setItem = () => { throw new DOMException('满了', 'QuotaExceededError'); }"
)
STRANGE = "Storage.prototype.getItem = () => '{\"a\": 1}'"


TROUBLES = {"blocked": BLOCKED, "full": FULL_STORE, "strange": STRANGE}


def test_page_works_without_usable_storage(visitor: Visitor, page_name: str) -> None:
    faults = []
    for name in turn(list(TROUBLES), page_names().index(page_name)):
        with visitor.open(page_name, script=TROUBLES[name]) as (page, log):
            page.locator(".theme-switch").click()
            theme = page.evaluate("document.documentElement.dataset.theme")
            faults += [f"{page_name} {name}：主题是 {theme}"] * (theme != "light")
            faults += [f"{page_name} {name}：undefined"] * ("undefined" in page.content())
            faults += [f"{page_name} {name}：{problem}" for problem in log.problems()]
    assert not faults, "\n".join(faults)


ADD = "(() => {{ const s = document.createElement('script'); {}; document.head.append(s); }})()"
PASTE = "document.body.insertAdjacentHTML('beforeend', '{}')"
SMUGGLED = [
    ADD.format("s.textContent = 'document.title = 1'"),
    ADD.format("s.src = 'data:text/javascript,document.title=1'"),
    PASTE.format('<img src="data:," onerror="document.title=1">'),
    PASTE.format('<a id=x href="javascript:document.title=1">')
    + ", document.getElementById('x').click()",
]


@pytest.mark.parametrize("smuggled", SMUGGLED, ids=["inline", "data", "handler", "link"])
def test_script_smuggled_into_a_page_does_not_run(visitor: Visitor, smuggled: str) -> None:
    with visitor.open("intro") as (page, _):
        page.evaluate(smuggled)
        page.wait_for_load_state("networkidle")
        assert page.title() != "1"


def test_nothing_can_be_sent_elsewhere(visitor: Visitor) -> None:
    with visitor.open("intro") as (page, log):
        said = page.evaluate("fetch('http://127.0.0.1:9/').then(() => '通了', () => '不通')")
        assert said == "不通" and log.blocked == []  # 浏览器自己拦下，请求没有出门


@pytest.mark.parametrize("name", ["intro", "search"])
def test_page_opened_from_a_folder_works_under_the_policy(browser: Browser, name: str) -> None:
    """双击打开的网页：脚本、样式都在，备用搜索页找得到。"""
    context = browser.new_context(locale="zh-CN", color_scheme="dark")
    try:
        page, console = context.new_page(), []
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        page.goto((HTML / f"{name}.html").as_uri() + "?q=广播")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.locator(".theme-switch").click()
        assert page.evaluate("document.styleSheets.length") >= 2
        if name == "search":
            page.locator(".search-page input").fill("步幅")
            page.keyboard.press("Enter")
            page.wait_for_selector("#search-results li a mark")
            page.locator("#search-results li a").first.click()
            page.wait_for_selector(".article section[id]")
        assert console == []
    finally:
        context.close()
