"""发出去的每个文件都有归属，别人的都附着许可；公开地址没定之前，页面里不写它。"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, Visitor

sys.path.insert(0, str(ROOT / "site"))
shipped = pytest.importorskip("book_ext.shipped", reason="没有装建站的依赖")


def test_every_file_of_the_site_is_ours_or_named_with_its_license(site_dir: Path) -> None:
    assert shipped.uncovered(site_dir) == []


@pytest.mark.parametrize("work", shipped.WORKS, ids=lambda work: work.slug)
def test_work_of_others_is_shipped_with_its_license_and_named(site_dir: Path, work) -> None:
    assert [path for pattern in work.files for path in site_dir.glob(pattern)]
    text = (site_dir / "licenses" / f"{work.slug}.txt").read_text(encoding="utf-8")
    assert "Copyright" in text
    assert "Permission is hereby granted" in text or "SIL OPEN FONT LICENSE" in text
    page = (site_dir / "licenses.html").read_text(encoding="utf-8")
    assert work.name in page and f"licenses/{work.slug}.txt" in page


def test_every_license_can_be_read(visitor: Visitor) -> None:
    with visitor.open("licenses") as (page, _):
        addresses = [link.evaluate("a => a.href") for link in page.locator(".article a").all()]
        assert len(addresses) == len(shipped.WORKS)
        assert all(page.request.get(address).ok for address in addresses)


def test_placeholder_address_is_not_published(site_dir: Path) -> None:
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    if "baseurl: https://example.org" not in config:
        pytest.skip("公开地址已经定了")
    for path in site_dir.rglob("*.html"):
        head = path.read_text(encoding="utf-8").partition("</head>")[0]
        assert not re.search(r"example\.org|rel=\"canonical\"|og:url", head), path
    assert not (site_dir / "sitemap.xml").exists()
