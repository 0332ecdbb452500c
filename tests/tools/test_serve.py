"""本机网站服务：端口、地址、文件类型。"""

import contextlib
import http.client
import os
import socket
import threading

import pytest

from tools import serve
from tools.preflight import Stop
from tools.steps import Interrupted


@pytest.fixture
def taken_port():
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        yield busy.getsockname()[1]


def test_a_taken_port_moves_on_to_a_free_one(taken_port, tmp_path):
    with serve.open_server(tmp_path, taken_port) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert taken_port < server.server_address[1] < taken_port + serve.TRIES


def test_no_free_port_is_said_plainly(taken_port, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "TRIES", 1)
    with pytest.raises(Stop, match=str(taken_port)):
        serve.open_server(tmp_path, taken_port)


@pytest.fixture
def site(tmp_path):
    """正在提供一个小网站的端口；网站旁边有不该给人的文件。"""
    folder = tmp_path / "网 站"
    for name in (
        "index.html",
        "book.js",
        "图 1.svg",
        "chapters/a.html",
        ".buildinfo",
        ".git/config",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    (tmp_path / "secret.txt").write_text("秘密", encoding="utf-8")
    if os.name != "nt":  # Windows 建链接要管理员
        (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
        (folder / "up").symlink_to(tmp_path)
        (folder / "hidden.txt").symlink_to(folder / ".buildinfo")
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "same.js").symlink_to(folder / "book.js")
        os.mkfifo(folder / "pipe")
    with serve.open_server(folder, 18000) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ask(port, target, method="GET", **headers):
    """一问一答：``(状态, 头, 正文)``；``target`` 原样写进请求。"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection._validate_path = lambda _: None  # 客户端也会拦，这里要的就是写坏的
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("target", "text", "kind"),
    [
        ("/book.js", "book.js", "text/javascript"),
        ("/", "index.html", "text/html"),
        ("/chapters/a.html?q=/../..", "chapters/a.html", "text/html"),
        ("/%E5%9B%BE%201.svg", "图 1.svg", "image/svg+xml"),
    ],
)
def test_built_files_are_served_with_their_types(site, target, text, kind):
    status, headers, body = ask(site, target)
    assert (status, headers["Content-Type"], body) == (200, kind, text)
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, body = ask(site, target, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(text.encode())), "")


def test_a_file_the_browser_already_has_is_not_sent_again(site):
    _, headers, _ = ask(site, "/book.js")
    since = {"If-Modified-Since": headers["Last-Modified"]}
    assert ask(site, "/book.js", **since)[0] == 304


@pytest.mark.skipif(os.name == "nt", reason="Windows 建链接要管理员")
def test_a_link_to_another_built_file_is_served(site):
    assert ask(site, "/same.js")[2] == "book.js"


OUTSIDE = ["/../secret.txt", "/chapters/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt"]
OUTSIDE += ["/%2e%2e%2fsecret.txt", "/..%5csecret.txt", "/..\\secret.txt", "/%252e%252e/secret.txt"]
OUTSIDE += ["/%c0%ae%c0%ae/secret.txt", "/.%00./secret.txt", "/out.txt", "/up/secret.txt", "/up/"]
OUTSIDE += [
    "//etc/passwd",
    "/etc/passwd",
    "///etc/passwd",
    "/%2fetc%2fpasswd",
    "/C:/Windows/win.ini",
]
OUTSIDE += ["http://127.0.0.1/book.js", "file:///etc/passwd", "*", "book.js", "?", "//book.js"]
HIDDEN = ["/.buildinfo", "/.git/config", "/%2ebuildinfo", "/hidden.txt", "/./book.js", "/.", "/.."]
FOLDERS = [
    "/chapters",
    "/chapters/",
    "/chapters//",
    "/chapters//a.html",
    "/book.js/",
    "/loop",
    "/pipe",
]
BROKEN = [
    "/%00",
    "/a%00.html",
    "/%",
    "/%zz",
    "/%ff",
    "/%0d%0aX-Evil:%201",
    "/%1b[2J",
    "/" + "a" * 300,
]
BROKEN += [
    "/" + "a" * 60_000,
    "/" + "a/" * 20_000,
    "/" + "../" * 20_000,
    "/book.js%20",
    "/book.js::$DATA",
]


@pytest.mark.parametrize("target", OUTSIDE + HIDDEN + FOLDERS + BROKEN, ids=lambda t: repr(t[:40]))
def test_anything_else_is_a_short_page_that_says_so(site, target, capfd):
    status, headers, body = ask(site, target)
    assert (status, body) == (404, "404：没有这一页。\n")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff" and "X-Evil" not in headers
    assert ask(site, target, "HEAD")[::2] == (404, "")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get"])
def test_nothing_but_reading_is_allowed(site, method, capfd):
    status, _, body = ask(site, "/book.js", method)
    assert (status, body) == (501, "501：只能读，不能这样请求。\n")
    assert capfd.readouterr() == ("", "")


LONG = b"a" * 70_000
NOT_REQUESTS = {
    "blank": b"\r\n",
    "no target": b"GET\r\n\r\n",
    "no such version": b"GET / HTTP/9\r\n\r\n",
    "not text": b"\xff\xfe\r\n\r\n",
    "endless target": b"GET /" + LONG,
    "too many headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "endless header": b"GET / HTTP/1.1\r\nA: " + LONG,
    "gone at once": b"",
}


@pytest.mark.parametrize("said", NOT_REQUESTS.values(), ids=list(NOT_REQUESTS))
def test_what_is_not_a_request_prints_no_traceback(site, said, capfd):
    with (
        socket.create_connection(("127.0.0.1", site), timeout=10) as browser,
        contextlib.suppress(OSError),  # 服务器可能先挂断
    ):
        browser.sendall(said)
        browser.shutdown(socket.SHUT_WR)
        browser.recv(100)
    assert ask(site, "/book.js")[0] == 200  # 还在工作
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_says_where_the_pages_stay(monkeypatch, tmp_path):
    def interrupt(_server):
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.Server, "serve_forever", interrupt)
    with pytest.raises(Interrupted) as caught:
        serve.serve(tmp_path)
    assert "_build/html" in caught.value.line
