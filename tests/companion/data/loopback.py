"""本机上的一个网站：记下每个请求，按剧本出错。下载的测试用它当对面的服务器。"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site(ThreadingHTTPServer):
    """``files`` 是路径到内容的表；``script`` 里的每一项管一个请求，用完了就照常回答。"""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.script: list[Callable[[_Handler, bytes], None]] = []
        self.requests: list[tuple[str, str | None]] = []  # 路径和 Range
        self.over = threading.Event()  # 测试结束了，等着的回答都放行

    def handle_error(self, request, client_address) -> None:
        """客户端中途走开是测试要的，不往屏幕上写。"""


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Range"]))
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
        elif self.server.script:
            self.server.script.pop(0)(self, body)
        else:
            good(self, body)

    def log_message(self, *args) -> None:
        pass

    def answer(self, code: int, body: bytes, **headers: object) -> None:
        self.send_response(code)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


def good(handler: _Handler, body: bytes) -> None:
    """照规矩回答，懂得 Range。"""
    found = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
    if not found:
        return handler.answer(200, body)
    start = int(found[1])
    if start >= len(body):
        return handler.answer(416, b"", Content_Range=f"bytes */{len(body)}")
    span = f"bytes {start}-{len(body) - 1}/{len(body)}"
    handler.answer(206, body[start:], Content_Range=span)


def cut(after: int):
    """答应给全部，写到第 ``after`` 字节就断开。"""

    def fault(handler: _Handler, body: bytes) -> None:
        handler.answer(200, body[:after], Content_Length=len(body))

    return fault


def error(code: int):
    return lambda handler, body: handler.send_error(code)


def redirect(to: str):
    return lambda handler, body: handler.answer(302, b"", Location=to)


def ignore_range(handler: _Handler, body: bytes) -> None:
    handler.answer(200, body)


def silent(handler: _Handler, body: bytes) -> None:
    """收了请求，一个字节也不答。"""
    handler.server.over.wait(60)


def wait_until(condition: Callable[[], bool]) -> None:
    """等到 ``condition()`` 成立；等不到就算失败。"""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("等了 10 秒")


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """在另一个线程里开门，离开时关门。"""
    thread = threading.Thread(target=site.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield site
    finally:
        site.over.set()
        site.shutdown()
        thread.join()
        site.server_close()
