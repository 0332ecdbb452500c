"""给人看的截图：每一页的电脑与手机、浅色与深色，写到 ``_build/screenshots``。"""

from __future__ import annotations

import pytest

from .conftest import DESKTOP, HTML, PHONE, Visitor

SHOTS = HTML.parent / "screenshots"
EAGER = "document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })"
LOADED = "Promise.all([...document.images].map(image => image.decode()))"  # 有一张坏的就失败


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_screenshot_shows_every_picture(
    visitor: Visitor, page_name: str, device: str, size: tuple[int, int], scheme: str
) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with visitor.open(page_name, scheme=scheme, size=size) as (page, _):
        page.evaluate(EAGER)
        page.evaluate(LOADED)
        name = f"{page_name.replace('/', '-')}-{device}-{scheme}.png"
        page.screenshot(path=SHOTS / name, full_page=True)
        assert (SHOTS / name).stat().st_size > 0
