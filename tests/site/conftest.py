"""浏览器测试的公共部分：本机服务器、无头 Chromium、记录请求与控制台的页面。

被测的网站是 ``_build/html``；环境变量 ``BOOK_HTML`` 可以指到别处。
服务器像公网上的静态托管那样压缩文本，并把网站放在子路径下。
"""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Response, Route, sync_playwright

from companion.book import Widget
from companion.book.widgets import _questions as questions

from .settings import HOME, PHONE, Setting

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
WIDE = {"width": 1000, "height": 800}  # 只放组件的页面
QUESTIONS = """
[quizzes]
two = ["bytes", "shape"]

[bytes]
question = "转置一张照片要搬动多少字节？"
options = [
  { text = "48 MB", reason = "那是复制一份。" },
  { text = "`0`", correct = true, reason = "只换说明书。" },
  { text = "24 MB", reason = "一半也不用搬。" },
]

[shape]
question = "`(3, 1)` 加 `(4,)` 的形状是？"
kind = "typed"
placeholder = "如 (2, 3)"
answers = ["(3, 4)"]
reason = "右对齐再拉长。"
default = "还不对，从右往左一维一维对。"
wrong = [{ text = "(4, 3)", reason = "两维的次序反了。" }]
"""


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
    """一个页面上发生的坏事：想连外网、请求失败、控制台有话说；还有每个文件传了多少字节。"""

    blocked: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    def problems(self) -> list[str]:
        return [*self.blocked, *self.failed, *self.console]


class Visitor:
    """打开网站页面的人；每次都是新的浏览器上下文，不带缓存。"""

    def __init__(self, browser: Browser, base: str) -> None:
        self.browser, self.base = browser, base

    @contextmanager
    def open(
        self, name: str, setting: Setting = HOME, *, tail: str = "", script: str = ""
    ) -> Iterator[tuple[Page, Log]]:
        """打开 ``name``（如 ``chapters/01_tensors``），给出页面与它的记录。

        ``tail`` 接在网址后面（``#锚点``、``?查询``）；``script`` 赶在页面的脚本之前运行。
        """
        width, height = setting.size
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=setting.scheme,  # type: ignore[arg-type]
            locale="zh-CN",
            has_touch=setting.size == PHONE,
        )
        try:
            page, log = context.new_page(), Log()
            self._watch(page, log)
            if script:
                page.add_init_script(script)
            page.goto(f"{self.base}{name}.html{tail}", wait_until="networkidle")
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
        self._weigh(page, log)

    def _weigh(self, page: Page, log: Log) -> None:
        session, urls = page.context.new_cdp_session(page), {}

        def received(event: dict[str, Any]) -> None:
            urls[event["requestId"]] = event["response"]["url"]

        def finished(event: dict[str, Any]) -> None:
            log.sizes[urls.get(event["requestId"], "?")] = int(event["encodedDataLength"])

        session.on("Network.responseReceived", received)
        session.on("Network.loadingFinished", finished)
        session.send("Network.enable")


def page_names() -> list[str]:
    """网站里给人读的每一页，不含 ``.html``；还没构建时为空表。"""
    pages = sorted(HTML.glob("*.html")) + sorted(HTML.glob("chapters/*.html"))
    names = [path.relative_to(HTML).with_suffix("").as_posix() for path in pages]
    return [name for name in names if name not in ("index", "404")]


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
    """``visitor.open("intro", Setting("dark", PHONE))`` 给出页面与记录。"""
    return Visitor(browser, site_url)


@pytest.fixture
def show(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Page]]:
    """`show(组件, …)` 在干净的浏览器里打开一页；页面的报错和外部请求都算失败。"""
    (tmp_path / "ch99.toml").write_text(QUESTIONS, encoding="utf-8")
    monkeypatch.setattr(questions, "BETS", tmp_path)
    troubles: list[str] = []
    contexts = []

    def open_page(*widgets: Widget, theme: str = "light", **options: Any) -> Page:
        body = "\n".join(f'<div class="output text_html">{w._repr_html_()}</div>' for w in widgets)
        path = tmp_path / "页面.html"
        path.write_text(
            f'<!doctype html><html lang="zh-CN" data-theme="{theme}"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>组件</title></head>'
            f"<body><main><h1>组件</h1>{body}</main></body></html>",
            encoding="utf-8",
        )
        context = browser.new_context(**{"viewport": WIDE} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda r: r.url.startswith("file:") or troubles.append(r.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def figure(page: Page, name: str) -> Locator:
    return page.locator(f'[data-widget="{name}"]')


def press(control: Locator, *keys: str) -> None:
    """只用键盘：把焦点移过去，再按键。"""
    control.focus()
    for key in keys:
        control.page.keyboard.press(key)


def shown(node: Locator) -> dict[str, str]:
    return node.evaluate("node => ({...node.dataset})")
