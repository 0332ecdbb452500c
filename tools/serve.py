"""在本机打开建好的网站：只听 127.0.0.1，端口被占就用下一个。"""

from __future__ import annotations

import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, NoReturn
from urllib.parse import unquote

from tools.preflight import Stop
from tools.steps import Interrupted

__all__ = ["built_file", "open_server", "serve"]

FIRST_PORT, TRIES = 8000, 100
TYPES = {  # 写明文件类型：Windows 注册表里 .js 可能登记成纯文本
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}
SAID = {404: "没有这一页。", 501: "只能读，不能这样请求。"}


def built_file(folder: Path, target: str) -> Path | None:
    """请求 ``target``（如 ``"/intro.html?q=1"``）要的文件；只给网站里的，其余都是 None。

    不列目录，不给点号开头的文件，不跟着链接走到 ``folder`` 外面。
    """
    try:
        path = unquote(target.partition("?")[0].partition("#")[0], errors="strict")
        first, *parts = path.split("/")
        parts = [*parts[:-1], parts[-1] or "index.html"] if parts else [""]
        if first or not all(map(_is_plain, parts)):
            return None
        root = folder.resolve()
        file = root.joinpath(*parts).resolve()
        inside = file.relative_to(root).parts  # 链接指到外面时是 ValueError
        return file if all(map(_is_plain, inside)) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # 名字太长、不是 UTF-8、链接绕成了圈
        return None


def _is_plain(part: str) -> bool:
    """路径的一段是普通的名字：不是空的，不是 ``..`` 和隐藏文件，没有盘符、反斜线和控制字符。"""
    return part.isprintable() and part[:1] not in ("", ".") and not set(part) & set("\\:")


class Handler(SimpleHTTPRequestHandler):
    """静态文件，不打印访问记录。"""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES
    timeout = 60  # 秒；连上了却不说话的，不等它

    def send_head(self) -> BinaryIO | None:
        """找到文件就发头，返回打开的文件；找不到就发 404。"""
        target = self.requestline.split()[1]  # self.path 已被改过：开头的几个 / 并成了一个
        self.file = built_file(Path(self.directory), target)
        if self.file is None:
            self.send_error(404)
            return None
        return super().send_head()

    def translate_path(self, _path: str) -> str:
        """要发的文件，``send_head`` 已经找好了。"""
        return str(self.file)

    def send_error(self, code: int, *_said: object) -> None:
        """一行中文，不带请求里的任何字。"""
        body = f"{int(code)}：{SAID.get(code, '看不懂这个请求。')}\n".encode()
        self.send_response(code)
        self.send_header("Connection", "close")
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        """不让浏览器猜类型。"""
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, *_arguments) -> None:
        """什么也不打印。"""


class Server(ThreadingHTTPServer):
    # Windows 上复用地址会抢走别人正在用的端口
    allow_reuse_address = os.name != "nt"

    def handle_error(self, request, client_address) -> None:
        """浏览器中途走了不算出错，不打印。"""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


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
