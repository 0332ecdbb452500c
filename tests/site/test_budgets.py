"""页面大小：空缓存首次打开时传输的字节，文本按 gzip；图片另算，不在预算里。"""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from .conftest import Visitor

KB = 1024
PLAIN, FORMULAS, WIDGET = 200 * KB, 200 * KB, 20 * KB  # 后两项是加在第一项上的


def transferred(visitor: Visitor, page: Page, name: str) -> dict[str, int]:
    """打开一页时各文件传输的字节：网址 → 字节；不含 PNG。"""
    session = page.context.new_cdp_session(page)
    urls: dict[str, str] = {}
    sizes: dict[str, int] = {}

    def received(event: dict[str, Any]) -> None:
        urls[event["requestId"]] = event["response"]["url"]

    def finished(event: dict[str, Any]) -> None:
        sizes[urls.get(event["requestId"], "?")] = int(event["encodedDataLength"])

    session.send("Network.enable")
    session.on("Network.responseReceived", received)
    session.on("Network.loadingFinished", finished)
    page.goto(f"{visitor.base}{name}.html", wait_until="networkidle")
    return {url: size for url, size in sizes.items() if not url.endswith(".png")}


def test_page_is_within_its_budget(visitor: Visitor, page_name: str) -> None:
    context = visitor.browser.new_context()
    try:
        page = context.new_page()
        sizes = transferred(visitor, page, page_name)
        has_formula = page.locator(".katex").count() > 0
        widgets = sum("/companion/" in url and url.endswith(".js") for url in sizes)
    finally:
        context.close()
    budget = PLAIN + FORMULAS * has_formula + WIDGET * widgets
    listing = "\n".join(f"{size:8d} {url}" for url, size in sorted(sizes.items()))
    assert sum(sizes.values()) <= budget, f"超出预算 {budget} 字节：\n{listing}"


def test_page_without_formulas_loads_no_formula_style(visitor: Visitor, page_name: str) -> None:
    with visitor.open(page_name) as (page, _):
        styles = page.locator("link[href*='katex']").count()
        assert (styles > 0) == (page.locator(".katex").count() > 0)
        assert page.locator("script[src*='mathjax' i]").count() == 0
