import hashlib
import io
import os
import signal
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

import pytest

from companion.data import _download as module
from companion.data import data_folder, download
from companion.data._download import matches, store
from companion.errors import ArgumentError, DownloadError
from tests.companion.data.loopback import (
    Site,
    cut,
    endless,
    error,
    redirect,
    serve,
    silent,
    wait_until,
)
from tests.faults.children import run_child, start_child, wait_child

BODY = bytes(range(256)) * 8  # 2048 字节
SHA = hashlib.sha256(BODY).hexdigest()
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"
OK = b"HTTP/1.1 200 OK\r\n"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="没有 fork，装不出另一个进程")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("COMPANION_DATA", "COMPANION_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "_TIMEOUT_S", 5)


@pytest.fixture
def site():
    with serve(Site()) as site:
        site.files["/a.bin"] = site.files["/b.bin"] = BODY
        yield site


def get(site, folder, *paths, digest=SHA):
    return download("x.bin", [site.url + path for path in paths or ("/a.bin",)], digest, folder)


def visible(folder):
    """锁以外的全部，包括没收拾的临时文件。"""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# 下载成功


@pytest.mark.parametrize("digest", [SHA, f"sha256:{SHA}", SHA.upper(), MD5, MD5.upper()])
def test_a_file_with_the_right_digest_is_put_in_place_and_nothing_else_is_left(
    site, tmp_path, digest
):
    path = get(site, tmp_path / "new", digest=digest)
    assert path == tmp_path / "new" / "x.bin"
    assert path.read_bytes() == BODY
    assert visible(path.parent) == ["x.bin"]


def test_a_good_file_that_is_already_there_costs_no_request_and_no_lock(site, tmp_path):
    (tmp_path / "x.bin").write_bytes(BODY)
    assert get(site, tmp_path).read_bytes() == BODY
    assert site.requests == []
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_bad_file_is_replaced_only_after_a_good_download(site, tmp_path):
    old = tmp_path / "x.bin"
    old.write_bytes(b"old")
    with pytest.raises(DownloadError):
        get(site, tmp_path, "/missing")
    assert old.read_bytes() == b"old"
    assert get(site, tmp_path).read_bytes() == BODY


def test_a_name_may_hold_a_folder(site, tmp_path):
    path = download("子/x-1.tar.gz", [f"{site.url}/a.bin"], SHA, tmp_path)
    assert path == tmp_path / "子" / "x-1.tar.gz"


def test_without_a_folder_the_file_goes_where_companion_data_points(site, tmp_path, monkeypatch):
    assert data_folder() == Path.home() / ".cache" / "companion"
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "data"))
    assert get(site, None) == tmp_path / "data" / "x.bin"


# 出错与重试


@pytest.mark.parametrize("fault", [cut(700), error(500), error(503), error(429)])
def test_a_failure_is_followed_by_another_try(site, tmp_path, fault):
    site.script = [fault]
    assert get(site, tmp_path).read_bytes() == BODY
    assert len(site.requests) == 2
    assert visible(tmp_path) == ["x.bin"]


def test_every_address_is_tried_before_any_is_tried_again(site, tmp_path):
    site.script = [error(500)] * 4
    with pytest.raises(DownloadError):
        get(site, tmp_path, "/a.bin", "/b.bin")
    assert site.requests == ["/a.bin", "/b.bin"] * 2


def test_a_cut_connection_never_leaves_a_half_file(site, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"old")
    site.script = [cut(700)] * 2
    with pytest.raises(DownloadError, match="到第 700 字节断了，还差 1348 字节"):
        get(site, tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == b"old"
    assert visible(tmp_path) == ["x.bin"]


def test_wrong_bytes_never_get_the_final_name(site, tmp_path):
    site.files["/a.bin"] = BODY[:-1] + b"!"
    (tmp_path / "x.bin").write_bytes(b"old")
    with pytest.raises(DownloadError, match="下载完了，但内容不对"):
        get(site, tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == b"old"
    assert visible(tmp_path) == ["x.bin"]


def test_the_right_file_from_a_second_address_follows_wrong_bytes_from_the_first(site, tmp_path):
    site.files["/a.bin"] = b"not this"
    assert get(site, tmp_path, "/a.bin", "/b.bin").read_bytes() == BODY


def test_a_length_that_is_too_short_is_found_by_the_digest(site, tmp_path):
    site.script = [lambda handler, body: handler.answer(200, body, Content_Length=1000)] * 2
    with pytest.raises(DownloadError, match="内容不对"):
        get(site, tmp_path)


def test_a_dead_first_address_leaves_the_file_to_the_second(site, tmp_path):
    dead = Site()
    dead.server_close()
    urls = [f"{dead.url}/a.bin", f"{site.url}/a.bin"]
    assert download("x.bin", urls, SHA, tmp_path).read_bytes() == BODY


def test_when_every_address_fails_the_error_names_each_and_says_what_to_do(site, tmp_path):
    site.files["/bad"] = b"bad"
    with pytest.raises(DownloadError) as caught:
        get(site, tmp_path, "/none", "/bad")
    text = str(caught.value)
    assert f"{site.url}/none：HTTP 404" in text
    assert f"{site.url}/bad：下载完了，但内容不对" in text
    assert "没有拿到 x.bin" in text
    assert SHA in text
    assert f"放进文件夹 {tmp_path}" in text


@pytest.mark.parametrize("length", [2048, None])
def test_a_file_larger_than_the_limit_is_refused(site, tmp_path, length, monkeypatch):
    site.script = [lambda handler, body: handler.answer(200, body, Content_Length=length)] * 2
    monkeypatch.setattr(module, "MOST_BYTES", 2047)
    with pytest.raises(DownloadError, match="超过了 2047"):
        get(site, tmp_path)
    assert visible(tmp_path) == []
    monkeypatch.setattr(module, "MOST_BYTES", 2048)
    assert get(site, tmp_path).read_bytes() == BODY


def test_terminal_escapes_from_a_server_are_shown_and_long_talk_is_cut(site, tmp_path):
    site.script = [error(404, "\x1b[2J" + "!" * 60_000)] * 2
    with pytest.raises(DownloadError, match=r"HTTP 404 \\x1b\[2J!") as caught:
        get(site, tmp_path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# 没完没了的服务器


ENDLESS = {
    "silence": silent,
    "endless 1xx": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "slow 1xx": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
    "dripping status": endless(b"", b"H", 0.02),
    "dripping header": endless(OK + b"X: ", b"x", 0.02),
    "dripping body": endless(OK + b"Content-Length: 2048\r\n\r\n", b"x", 0.02),
    "dripping chunk size": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0", 0.02),
    "chunk extensions": endless(
        OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 60_000 + b"\r\nx\r\n", 0.02
    ),
    "trailers": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: x\r\n"),
    "redirect body": endless(
        b"HTTP/1.1 302 Found\r\nLocation: /a.bin\r\n\r\n" + b"x" * 9999, b"x", 0.02
    ),
}


@pytest.mark.parametrize("fault", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_server_that_never_comes_to_an_end_is_left_for_the_next(
    site, tmp_path, fault, monkeypatch
):
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.15)
    site.script = [fault]
    start = time.monotonic()
    assert get(site, tmp_path, "/a.bin", "/b.bin").read_bytes() == BODY
    assert time.monotonic() - start < 3 * 0.15 + 1
    assert visible(tmp_path) == ["x.bin"]
    if fault is not silent:  # 没有留着连接在后台接着收
        wait_until(site.left.is_set)


@pytest.mark.parametrize(
    "fault",
    [
        endless(OK + b"\r\n", b"x" * 4096),
        endless(OK, b"X: x\r\n"),
        endless(OK + b"X: ", b"x" * 4096),
        endless(b"", b"x" * 4096),
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"f" * 4096),
        lambda handler, body: redirect("/a.bin?")(handler, body),
    ],
    ids=["body", "headers", "header", "status", "chunk size", "redirect"],
)
def test_a_flood_ends_at_a_limit(site, tmp_path, fault, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    site.script = [fault]
    assert get(site, tmp_path, "/a.bin", "/b.bin").read_bytes() == BODY
    assert visible(tmp_path) == ["x.bin"]


def test_redirects_in_a_circle_come_to_an_end(site, tmp_path):
    site.script = [redirect("/a.bin")] * 100
    with pytest.raises(DownloadError, match="HTTP 302"):
        get(site, tmp_path)
    assert len(site.requests) < 40


def test_a_slow_but_steady_server_is_not_left(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.2)
    large = BODY * 160  # 五个 64 KiB，共 0.8 秒
    site.files["/a.bin"] = large

    def steady(handler, body):
        handler.answer(200, b"", Content_Length=len(body))
        for start in range(0, len(body), 16384):
            handler.wfile.write(body[start : start + 16384])
            handler.server.over.wait(0.04)

    site.script = [steady]
    digest = hashlib.sha256(large).hexdigest()
    assert get(site, tmp_path, digest=digest).read_bytes() == large
    assert site.requests == ["/a.bin"]


JUNK = [
    b"",
    b"\0" * 100,
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 999999 OK\r\n\r\n",
    b"HTTP/1.1 -1 OK\r\n\r\n",
    b"HTTP/1.1 206 Partial Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\n\r\n",
    OK + "Content-Length: ²\r\n\r\n".encode("latin-1"),
    OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    OK + b"Content-Length: -5\r\n\r\nabc",
    OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 50_000 + b"\r\nabc",
    OK + b"Transfer-Encoding: chunked\r\n\r\n400\r\nabc",
    *(
        b"HTTP/1.1 302 Found\r\nLocation: " + to + b"\r\n\r\n"
        for to in (
            *(b"http://[::1/", b"http://127.0.0.1:99999/", b"http://127.0.0.1:x/"),
            *(b"http://a b/", b"http://" + b"a" * 70 + b".invalid/", b"\xff\xfe", b"http:///x"),
            *(b"http://u:p@127.0.0.1/", b"/\x01", b"http://127.0.0.1:1/"),
        )
    ),
]


@pytest.mark.parametrize("answer", JUNK, ids=range(len(JUNK)))
def test_whatever_a_server_says_only_that_address_fails(site, tmp_path, answer):
    site.script = [lambda handler, body: handler.wfile.write(answer)]
    assert get(site, tmp_path, "/a.bin", "/b.bin").read_bytes() == BODY
    site.script = [lambda handler, body: handler.wfile.write(answer)] * 2
    with pytest.raises(DownloadError, match="没有拿到 x"):
        get(site, tmp_path / "alone")


# 跳转


def test_a_redirect_to_another_http_address_is_followed(site, tmp_path):
    site.script = [redirect("/b.bin")]
    assert get(site, tmp_path).read_bytes() == BODY
    assert site.requests == ["/a.bin", "/b.bin"]


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_a_redirect_to_another_scheme_is_refused(site, tmp_path, scheme):
    secret = tmp_path / "secret"
    secret.write_bytes(BODY)
    site.script = [redirect(secret.as_uri().replace("file", scheme, 1))] * 2
    with pytest.raises(DownloadError, match=f"HTTP 302 .*{scheme}://"):
        get(site, tmp_path)
    assert visible(tmp_path) == ["secret"]


@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_a_redirect_from_https_back_to_http_is_refused(site, scheme):
    request, body = Request("https://127.0.0.1/a"), io.BytesIO()
    with pytest.raises(HTTPError, match=f"不跟到 {scheme}://127"):
        module._Web().redirect_request(request, body, 302, "", {}, f"{scheme}://127.0.0.1/a")
    assert body.closed


# 不联网


@pytest.mark.parametrize("place", ["sub/x.bin", "x.bin"])
def test_an_offline_folder_is_used_instead_of_the_network(site, tmp_path, monkeypatch, place):
    carried = tmp_path / "usb" / place
    carried.parent.mkdir(parents=True)
    carried.write_bytes(BODY)
    monkeypatch.setenv("COMPANION_OFFLINE", str(tmp_path / "usb"))
    assert download("sub/x.bin", [f"{site.url}/a.bin"], SHA, tmp_path / "data") == carried
    assert site.requests == []
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("content", [None, b"bad"])
def test_a_file_missing_offline_is_described_well_enough_to_fetch_it(
    site, tmp_path, monkeypatch, content
):
    if content is not None:
        (tmp_path / "x.bin").write_bytes(content)
    monkeypatch.setenv("COMPANION_OFFLINE", str(tmp_path))
    with pytest.raises(DownloadError, match="那里没有它，或内容不对") as caught:
        get(site, tmp_path / "data")
    text = str(caught.value)
    for part in ("没有拿到 x.bin", SHA, f"{site.url}/a.bin", f"文件夹 {tmp_path}。"):
        assert part in text
    assert site.requests == []


# 有敌意的文件夹


@pytest.fixture
def precious(tmp_path):
    """文件夹外面的一个文件，怎么下载都不许碰。"""
    path = tmp_path / "precious"
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"


PLANTED = {
    "link": lambda path, precious: path.symlink_to(precious),
    "hard link": lambda path, precious: path.hardlink_to(precious),
    "dangling link": lambda path, precious: path.symlink_to(precious.with_name("none")),
    "circle": lambda path, precious: path.symlink_to(path),
    "pipe": lambda path, precious: os.mkfifo(path),
    "link to a device": lambda path, precious: path.symlink_to("/dev/zero"),
    "file without end": lambda path, precious: path.symlink_to("/proc/kmsg"),
    "sparse": lambda path, precious: [path.touch(), os.truncate(path, 1 << 42)],
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="没有管道")
@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED.keys())
def test_what_lies_at_the_place_is_neither_trusted_nor_written_through(
    site, tmp_path, precious, plant
):
    plant(tmp_path / "x.bin", precious)
    assert not matches(tmp_path / "x.bin", SHA)
    assert get(site, tmp_path).read_bytes() == BODY
    assert not (tmp_path / "x.bin").is_symlink()
    assert visible(tmp_path) == ["precious", "x.bin"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="没有管道")
@pytest.mark.parametrize("name", [".tmp-x.bin-01234567", ".x.bin.lock", "x.bin.part"])
@pytest.mark.parametrize("plant", list(PLANTED.values())[:5], ids=list(PLANTED)[:5])
def test_neither_temporary_files_nor_the_lock_can_be_turned_against_others(
    site, tmp_path, precious, plant, name
):
    plant(tmp_path / name, precious)
    try:
        get(site, tmp_path)
    except DownloadError as error:
        assert "写不进去" in str(error)
    else:
        assert (tmp_path / "x.bin").read_bytes() == BODY


@pytest.mark.parametrize("name", ["x.bin", ".x.bin.lock"])
def test_a_folder_in_the_way_is_reported_before_anything_is_asked(site, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DownloadError, match="写不进去"):
        get(site, tmp_path)
    assert site.requests == []


def test_a_link_to_the_right_file_serves_as_the_file(site, tmp_path):
    (tmp_path / "there").write_bytes(BODY)
    (tmp_path / "x.bin").symlink_to(tmp_path / "there")
    assert get(site, tmp_path) == tmp_path / "x.bin"
    assert site.requests == []


@pytest.mark.parametrize("folder", ["a\0b", "\ud800", "x" * 5000, "file/under"])
def test_a_folder_that_cannot_be_is_a_download_error(site, tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="写不进去"):
        get(site, tmp_path / folder)


@needs_fork
def test_a_full_disk_keeps_the_old_file_and_is_not_blamed_on_the_network(site, tmp_path):
    import resource

    (tmp_path / "x.bin").write_bytes(b"old")

    def with_little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(DownloadError, match=r"写不进去：.*too large.*原来的文件没有动"):
            get(site, tmp_path)

    assert run_child(with_little_room) == 0
    assert (tmp_path / "x.bin").read_bytes() == b"old"
    assert visible(tmp_path) == ["x.bin"]
    assert len(site.requests) == 1


# 几个进程、几个线程


def test_two_threads_that_want_the_same_file_download_it_once(site, tmp_path):
    started, go_on = threading.Event(), threading.Event()

    def slow(handler, body):
        started.set()
        go_on.wait(10)
        handler.answer(200, body)

    site.script = [slow]
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(get(site, tmp_path))) for _ in "ab"]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    time.sleep(0.05)
    go_on.set()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in paths] == [BODY, BODY]
    assert len(site.requests) == 1


@needs_fork
def test_while_one_process_downloads_another_waits(tmp_path, capsys):
    site = Site()  # 先分出子进程，再开服务器的线程
    site.files["/a.bin"] = BODY
    started, go_on = threading.Event(), threading.Event()

    def slow(handler, body):
        started.set()
        go_on.wait(10)
        handler.answer(200, body)

    site.script = [slow]
    child = start_child(lambda: get(site, tmp_path))
    with serve(site):
        assert started.wait(10)
        waiter = threading.Thread(target=get, args=(site, tmp_path))
        waiter.start()
        wait_until(lambda: "等它结束" in capsys.readouterr().out)
        go_on.set()
        waiter.join()
        assert wait_child(child) == 0
    assert len(site.requests) == 1
    assert visible(tmp_path) == ["x.bin"]


@needs_fork
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("where", ["receiving", "writing"])
def test_a_stopped_process_leaves_no_lock_no_half_file_and_litter_only_for_a_while(
    tmp_path, how, where, monkeypatch
):
    site = Site()
    site.files["/a.bin"] = BODY
    half_sent = threading.Event()

    def half(handler, body):
        handler.answer(200, body[:700], Content_Length=len(body))
        half_sent.set()
        handler.server.over.wait(60)

    site.script = [half] if where == "receiving" else []

    def child_work():
        if where == "writing":
            monkeypatch.setattr("companion._common.sync_file", lambda _: time.sleep(60))
        try:
            get(site, tmp_path)
        except KeyboardInterrupt:
            os._exit(7 if visible(tmp_path) == [] else 8)

    monkeypatch.setattr(module, "_TIMEOUT_S", 60)
    child = start_child(child_work)
    with serve(site):
        if where == "receiving":
            assert half_sent.wait(10)
        else:
            wait_until(lambda: len(visible(tmp_path)) == 1)
        os.kill(child, how)
        assert wait_child(child) == (-how if how == signal.SIGKILL else 7)
        assert not (tmp_path / "x.bin").exists()
        assert get(site, tmp_path).read_bytes() == BODY
    assert visible(tmp_path) == ["x.bin"]


def test_the_litter_of_other_files_is_left_alone(site, tmp_path):
    for name in (".tmp-y.bin-01234567", ".tmp-x.bin-0123456789", "tmp-x.bin-01234567"):
        (tmp_path / name).touch()
    before = visible(tmp_path)
    get(site, tmp_path)
    assert visible(tmp_path) == sorted([*before, "x.bin"])


def test_an_error_inside_gives_the_turn_to_the_next(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "x", SHA, stop)
    store(tmp_path / "x", SHA, lambda: BODY)
    assert (tmp_path / "x").read_bytes() == BODY


# 参数


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/../../x", "a/../b", "/etc/x", "a//b", "a/", "./a", "~/a"),
        *("C:\\x", "a\\b", "C:x", "con", "a/NUL.txt", "com1", "x.", "x ", "x. ", " x", "a./b"),
        *("a\0b", "a\nb", "\x1b[2J", "\u202etxt", "\ud800", "x" * 300, "字" * 100, "*", "a?b"),
        *(".hidden", "-x", 5, None, b"x", Path("x"), ["x"]),
    ],
)
def test_a_name_that_is_not_safe_everywhere_is_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"name 应为文件夹以内的相对路径.*实际是"):
        download(name, ["http://127.0.0.1/x"], SHA, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "urls",
    [
        *([], (), None, 5, "http://127.0.0.1/x", b"http://127.0.0.1/x", {"http://127.0.0.1/"}),
        *([5], [None], [b"http://127.0.0.1/x"], ["http://127.0.0.1/x", 5], [""]),
        *(["ftp://127.0.0.1/x"], ["file:///etc/passwd"], ["x.gz"], ["http:/x"], ["//x"]),
        *(["http://"], ["http:///x"], ["http://:80/"], ["http://u:p@127.0.0.1/x"]),
        *(["http://u@127.0.0.1/x"], ["http://127.0.0.1:x/"], ["http://127.0.0.1:-1/"]),
        *(["http://127.0.0.1/a b"], ["http://127.0.0.1/a\nb"], ["http://127.0.0.1/\0"]),
        *(["http://127.0.0.1:99999/"], ["http://%/"], ["http://1#x"]),
        *(["http://127.0.0.1/é"], ["http://127.0.0.1/\u202e"], ["http://例子/x"], ["http://[::1"]),
        *(["http://127.0.0.1\\@x/"], ["http://127.0.0.1/x\r\nHost: y"], ["http://127.0.0.1/x\n"]),
    ],
)
def test_addresses_other_than_plain_http_and_https_are_refused(tmp_path, urls):
    with pytest.raises(ArgumentError, match="urls 应为一列"):
        download("x", urls, SHA, tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1:0", "127.0.0.1:65536", "..", "a" * 70, "[::::]"])
def test_an_address_that_leads_nowhere_is_a_failed_address(tmp_path, host):
    with pytest.raises(DownloadError, match="没有拿到 x"):
        download("x", [f"http://{host}/x"], SHA, tmp_path)


@pytest.mark.parametrize(
    "digest",
    ["", "abc", SHA[:-1], f"{SHA}\n", "md4:", f"md5:{SHA}", f"sha1:{SHA}", None, 5, b"x", "٣" * 64],
)
def test_a_digest_of_another_form_is_refused(tmp_path, digest):
    with pytest.raises(ArgumentError, match="digest 应为"):
        download("x", ["http://127.0.0.1/x"], digest, tmp_path)


@pytest.mark.parametrize("folder", [5, b"x", ["x"], "~no-such-user/x"])
def test_a_folder_that_is_no_path_is_refused(tmp_path, folder):
    with pytest.raises(ArgumentError, match="文件夹应为路径"):
        download("x", ["http://127.0.0.1/x"], SHA, folder)


@pytest.mark.parametrize("variable", ["COMPANION_DATA", "COMPANION_OFFLINE"])
def test_a_home_that_nobody_has_is_refused(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    monkeypatch.setenv(variable, "~no-such-user")
    with pytest.raises(ArgumentError, match="文件夹应为路径"):
        download("x", ["http://127.0.0.1/x"], SHA)


def test_only_a_file_with_the_digest_matches(tmp_path, monkeypatch):
    path = tmp_path / "x"
    assert not matches(path, SHA)
    path.write_bytes(BODY)
    assert matches(path, SHA)
    assert matches(path, MD5)
    assert not matches(path, "0" * 64)
    assert not matches(tmp_path, SHA)
    monkeypatch.setattr(module, "MOST_BYTES", 2048)
    assert matches(path, SHA)
    monkeypatch.setattr(module, "MOST_BYTES", 2047)
    assert not matches(path, SHA)


def test_only_one_line_is_printed_and_none_when_the_file_is_there(site, tmp_path, capsys):
    get(site, tmp_path)
    get(site, tmp_path)
    assert capsys.readouterr().out == "下载 x.bin…\n"
