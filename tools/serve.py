"""在本机打开建好的网站：只听 127.0.0.1，端口被占就用下一个。"""

from __future__ import annotations

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

from tools.preflight import Stop
from tools.steps import Interrupted

__all__ = ["open_server", "serve"]

FIRST_PORT, TRIES = 8000, 100


TYPES = {  # 写明文件类型：Windows 注册表里 .js 可能登记成纯文本
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}


class Handler(SimpleHTTPRequestHandler):
    """静态文件，不打印访问记录。"""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def log_message(self, *_arguments) -> None:
        """什么也不打印。"""


class Server(ThreadingHTTPServer):
    # Windows 上复用地址会抢走别人正在用的端口
    allow_reuse_address = os.name != "nt"


def open_server(folder: Path, first_port: int = FIRST_PORT) -> Server:
    """返回已占好端口的服务器；端口从 ``first_port`` 起，取第一个空着的。

    Raises:
        Stop: 连着 100 个端口都被占。
    """
    handler = partial(Handler, directory=str(folder))
    for port in range(first_port, first_port + TRIES):
        try:
            return Server(("127.0.0.1", port), handler)
        except OSError:
            continue
    raise Stop(f"{first_port} 到 {first_port + TRIES - 1} 的端口都被占着：请关掉几个程序再试。")


def serve(folder: Path) -> NoReturn:
    """一直提供 ``folder`` 里的网页。

    Raises:
        Interrupted: 按了 Ctrl-C。
    """
    with open_server(folder) as server:
        port = server.server_address[1]
        taken = f"（{FIRST_PORT} 被占，换到 {port}）" if port != FIRST_PORT else ""
        print(f"打开 http://127.0.0.1:{port}/ {taken}，按 Ctrl-C 停下", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            raise Interrupted("已停下，网页还在 _build/html。") from None
