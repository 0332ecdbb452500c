"""浏览器测试的公共部分：本机服务器、无头 Chromium、记录请求与控制台的页面。

被测的网站是 ``_build/html``；环境变量 ``BOOK_HTML`` 可以指到别处。
服务器像公网上的静态托管那样压缩文本，并把网站放在子路径下。
"""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, Response, Route, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
HTML = Path(os.environ.get("BOOK_HTML", ROOT / "_build" / "html"))
PREFIX = "/book/"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1440, 900), (375, 812)


class Handler(SimpleHTTPRequestHandler):
    """发网站的文件；文本用 gzip 压缩，网站在 ``/book/`` 下面。"""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path.split("?")[0].removeprefix(PREFIX[:-1])))
        if not path.is_file():
            self.send_error(404)
            return
        body, kind = path.read_bytes(), self.guess_type(path)
        packed = not kind.startswith(("image/png", "font/"))
        body = gzip.compress(body, 6) if packed else body
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass
class Log:
    """一个页面上发生的坏事：想连外网、请求失败、控制台有话说。"""

    blocked: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        return [*self.blocked, *self.failed, *self.console]


class Visitor:
    """打开网站页面的人；每次都是新的浏览器上下文，不带缓存。"""

    def __init__(self, browser: Browser, base: str) -> None:
        self.browser, self.base = browser, base

    @contextmanager
    def open(
        self, name: str, *, scheme: str = "light", size: tuple[int, int] = DESKTOP
    ) -> Iterator[tuple[Page, Log]]:
        """打开 ``name``（如 ``chapters/01_tensors``），给出页面与它的记录。"""
        context = self.browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,  # type: ignore[arg-type]
            locale="zh-CN",
            has_touch=size == PHONE,
        )
        page, log = context.new_page(), Log()
        self._watch(page, log)
        page.goto(f"{self.base}{name}.html", wait_until="networkidle")
        try:
            yield page, log
        finally:
            context.close()

    def _watch(self, page: Page, log: Log) -> None:
        def route(route: Route, request: Request) -> None:
            if request.url.startswith((self.base, "data:", "blob:")):
                route.continue_()
            else:
                log.blocked.append(f"想连站外：{request.url}")
                route.abort()

        def response(response: Response) -> None:
            if response.status >= 400:
                log.failed.append(f"{response.status} {response.url}")

        page.route("**/*", route)
        page.on("response", response)
        page.on("requestfailed", lambda request: log.failed.append(f"请求失败：{request.url}"))
        page.on("console", lambda message: log.console.append(f"控制台：{message.text}"))
        page.on("pageerror", lambda error: log.console.append(f"脚本出错：{error}"))


def page_names() -> list[str]:
    """网站里给人读的每一页，不含 ``.html``；还没构建时为空表。"""
    pages = sorted(HTML.glob("*.html")) + sorted(HTML.glob("chapters/*.html"))
    names = [path.relative_to(HTML).with_suffix("").as_posix() for path in pages]
    return [name for name in names if name != "index"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "page_name" in metafunc.fixturenames:
        metafunc.parametrize("page_name", page_names() or ["intro"])


@pytest.fixture(scope="session")
def site_dir() -> Path:
    """建好的网站所在的文件夹。"""
    if not (HTML / "intro.html").is_file():
        pytest.fail(f"{HTML} 里没有网站。先运行 make book。")
    return HTML


@pytest.fixture(scope="session")
def site_url(site_dir: Path) -> Iterator[str]:
    """网站的地址，以 ``/`` 结尾，只在本机能连。"""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site_dir)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def visitor(browser: Browser, site_url: str) -> Visitor:
    """``visitor.open("intro", scheme="dark", size=(375, 812))`` 给出页面与记录。"""
    return Visitor(browser, site_url)
