"""本机上的一个网站：记下每个请求，按剧本出错。下载的测试用它当对面的服务器。"""

from __future__ import annotations

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
        self.requests: list[str] = []
        self.left = threading.Event()  # 有一个客户端在回答写完以前走了
        self.over = threading.Event()  # 测试结束了，等着的回答都放行

    def handle_error(self, request, client_address) -> None:
        """客户端中途走开是测试要的，不往屏幕上写。"""
        self.left.set()


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
        elif self.server.script:
            self.server.script.pop(0)(self, body)
        else:
            self.answer(200, body)

    def log_message(self, *args) -> None:
        pass

    def answer(self, code: int, body: bytes, **headers: object) -> None:
        self.send_response(code)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


def cut(after: int):
    """答应给全部，写到第 ``after`` 字节就断开。"""

    def fault(handler: _Handler, body: bytes) -> None:
        handler.answer(200, body[:after], Content_Length=len(body))

    return fault


def error(code: int, reason: str | None = None):
    def fault(handler: _Handler, body: bytes) -> None:
        handler.send_response(code, reason)
        handler.end_headers()

    return fault


def redirect(to: str):
    return lambda handler, body: handler.answer(302, b"", Location=to)


def silent(handler: _Handler, body: bytes) -> None:
    """收了请求，一个字节也不答。"""
    handler.server.over.wait(60)


def endless(start: bytes, again: bytes, pause_s: float = 0.0):
    """先写 ``start``，再一遍一遍写 ``again``，直到客户端走开。"""

    def fault(handler: _Handler, body: bytes) -> None:
        handler.wfile.write(start)
        while not handler.server.over.wait(pause_s):
            handler.wfile.write(again)

    return fault


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
