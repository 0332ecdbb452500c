"""本机网站服务：端口、地址、文件类型。"""

import socket
import threading
import urllib.request

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


def test_pages_and_scripts_are_served_with_their_types(tmp_path):
    (tmp_path / "book.js").write_text("1", encoding="utf-8")
    with serve.open_server(tmp_path, 18000) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/book.js"
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=10) as answer:
                assert answer.headers["Content-Type"] == "text/javascript"
                assert answer.read() == b"1"
        finally:
            server.shutdown()
            thread.join()


def test_ctrl_c_says_where_the_pages_stay(monkeypatch, tmp_path):
    def interrupt(_server):
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.Server, "serve_forever", interrupt)
    with pytest.raises(Interrupted) as caught:
        serve.serve(tmp_path)
    assert "_build/html" in caught.value.line
