import hashlib
import io
import os
import signal
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

import pytest

from companion.data import _fetch as fetch
from companion.data import data_folder, download
from companion.data._download import alone, matches
from companion.errors import ArgumentError, DownloadError
from tests.companion.data.loopback import (
    Site,
    cut,
    error,
    ignore_range,
    redirect,
    serve,
    silent,
    wait_until,
)
from tests.faults.children import start_child, wait_child

BODY = bytes(range(256)) * 8  # 2048 字节
SHA = hashlib.sha256(BODY).hexdigest()
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("COMPANION_DATA", "COMPANION_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site():
    with serve(Site()) as site:
        site.files["/a.bin"] = site.files["/b.bin"] = BODY
        yield site


def get(site, folder, *paths, digest=SHA, **options):
    """不歇、不显示进度的 ``download``。"""
    urls = [site.url + path for path in paths or ("/a.bin",)]
    options = {"pause_s": 0, "progress": False, "timeout_s": 5} | options
    return download("x.bin", urls, digest, folder, **options)


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# 下载成功


@pytest.mark.parametrize("digest", [SHA, f"sha256:{SHA}", SHA.upper(), MD5])
def test_a_file_with_the_right_digest_is_put_in_place_and_nothing_else_is_left(
    site, tmp_path, digest
):
    path = get(site, tmp_path / "new", digest=digest)
    assert path == tmp_path / "new" / "x.bin"
    assert path.read_bytes() == BODY
    assert visible(path.parent) == ["x.bin"]


def test_a_good_file_that_is_already_there_costs_no_request(site, tmp_path):
    (tmp_path / "x.bin").write_bytes(BODY)
    assert get(site, tmp_path).read_bytes() == BODY
    assert site.requests == []


def test_a_bad_file_is_replaced_only_after_a_good_download(site, tmp_path):
    old = tmp_path / "x.bin"
    old.write_bytes(b"old")
    with pytest.raises(DownloadError):
        get(site, tmp_path, "/missing")
    assert old.read_bytes() == b"old"
    assert get(site, tmp_path).read_bytes() == BODY


def test_a_name_may_hold_a_folder(site, tmp_path):
    path = download("sub/x.bin", [f"{site.url}/a.bin"], SHA, tmp_path, progress=False)
    assert path == tmp_path / "sub" / "x.bin"


def test_a_file_address_needs_no_server(tmp_path):
    (tmp_path / "来源.bin").write_bytes(BODY)
    url = (tmp_path / "来源.bin").as_uri()
    assert download("x.bin", [url], SHA, tmp_path, progress=False).read_bytes() == BODY


def test_a_missing_file_address_is_tried_once(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("没有用的重试"))
    with pytest.raises(DownloadError, match="No such file"):
        download("x.bin", [(tmp_path / "none").as_uri()], SHA, tmp_path)


def test_without_a_folder_the_file_goes_where_companion_data_points(site, tmp_path, monkeypatch):
    assert data_folder() == Path.home() / ".cache" / "companion"
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "data"))
    assert get(site, None) == tmp_path / "data" / "x.bin"


# 断点续传


def test_a_cut_connection_is_resumed_at_the_first_missing_byte(site, tmp_path):
    site.script = [cut(700)]
    assert get(site, tmp_path).read_bytes() == BODY
    assert site.requests == [("/a.bin", None), ("/a.bin", "bytes=700-")]


def test_another_address_continues_what_the_first_one_began(site, tmp_path):
    site.script = [cut(700)]
    assert get(site, tmp_path, "/a.bin", "/b.bin").read_bytes() == BODY
    assert site.requests == [("/a.bin", None), ("/b.bin", "bytes=700-")]


def test_what_a_failed_call_received_is_kept_for_the_next_call(site, tmp_path):
    site.script = [cut(700)]
    with pytest.raises(DownloadError, match="应有 2048 字节，到第 700 字节断了"):
        get(site, tmp_path, retries=1)
    assert (tmp_path / "x.bin.part").read_bytes() == BODY[:700]
    assert get(site, tmp_path, retries=1).read_bytes() == BODY
    assert site.requests[1:] == [("/a.bin", "bytes=700-")]


def test_a_server_that_ignores_ranges_sends_everything_again(site, tmp_path):
    site.script = [cut(700), ignore_range]
    assert get(site, tmp_path).read_bytes() == BODY
    assert site.requests[1:] == [("/a.bin", "bytes=700-")]


def test_a_cut_while_everything_is_sent_again_does_not_lose_the_old_bytes(site, tmp_path):
    site.script = [cut(700), cut(100)]
    assert get(site, tmp_path).read_bytes() == BODY
    assert [span for _, span in site.requests] == [None, "bytes=700-", "bytes=700-"]


@pytest.mark.parametrize("part", [b"?" * 700, BODY + b"tail", b"?" * 9999])
@pytest.mark.parametrize("script", [[], [ignore_range]])
def test_a_part_of_another_file_is_thrown_away(site, tmp_path, part, script):
    (tmp_path / "x.bin.part").write_bytes(part)
    site.script = list(script)
    assert get(site, tmp_path, retries=1).read_bytes() == BODY
    assert len(site.requests) == (1 if script else 2)
    assert visible(tmp_path) == ["x.bin"]


def test_a_complete_part_costs_no_request(site, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(BODY)
    assert get(site, tmp_path).read_bytes() == BODY
    assert site.requests == []
    assert visible(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("span", ["bytes 0-2047/2048", "bytes 701-2047/2048", "nonsense", None])
def test_an_answer_with_another_range_than_asked_is_not_used(site, tmp_path, span):
    (tmp_path / "x.bin.part").write_bytes(BODY[:700])
    site.script = [lambda handler, body: handler.answer(206, body[700:], Content_Range=span)]
    assert get(site, tmp_path).read_bytes() == BODY
    assert site.requests == [("/a.bin", "bytes=700-"), ("/a.bin", None)]


# 出错与重试


def test_wrong_bytes_never_get_the_final_name(site, tmp_path):
    site.files["/a.bin"] = BODY[:-1] + b"!"
    (tmp_path / "x.bin").write_bytes(b"old")
    with pytest.raises(DownloadError, match=r"下载完了，但内容不对，sha256 是 [0-9a-f]{64}"):
        get(site, tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == b"old"
    assert len(site.requests) == 1  # 内容不对的地址，再试也是一样
    assert visible(tmp_path) == ["x.bin"]


def test_the_right_file_from_a_second_address_follows_wrong_bytes_from_the_first(site, tmp_path):
    site.files["/a.bin"] = b"not this"
    assert get(site, tmp_path, "/a.bin", "/b.bin").read_bytes() == BODY


def test_a_length_that_is_too_short_is_found_by_the_digest(site, tmp_path):
    site.script = [lambda handler, body: handler.answer(200, body, Content_Length=1000)]
    with pytest.raises(DownloadError, match="内容不对"):
        get(site, tmp_path)


def test_a_broken_chunked_answer_is_a_cut(site, tmp_path):
    def chunked(handler, body):
        handler.protocol_version = "HTTP/1.1"
        data = b"400\r\n" + body[:1024] + b"\r\n400\r\n" + body[1024:1500]
        handler.answer(200, data, Content_Length=None, Transfer_Encoding="chunked")
        handler.close_connection = True

    site.script = [chunked]
    assert get(site, tmp_path).read_bytes() == BODY
    assert len(site.requests) == 2


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(site, tmp_path, code):
    site.script = [error(code), error(code)]
    assert get(site, tmp_path).read_bytes() == BODY
    assert len(site.requests) == 3


@pytest.mark.parametrize("code", [403, 404])
def test_a_refusal_is_final_for_that_address(site, tmp_path, code):
    site.script = [error(code)]
    with pytest.raises(DownloadError, match=f"HTTP {code}"):
        get(site, tmp_path)
    assert len(site.requests) == 1


def test_a_silent_server_is_left_after_the_timeout(site, tmp_path):
    site.script = [silent]
    assert get(site, tmp_path, "/a.bin", "/b.bin", timeout_s=0.1).read_bytes() == BODY
    site.script = [silent]
    with pytest.raises(DownloadError, match=r"等了 0\.1 秒没有数据"):
        get(site, tmp_path / "other", timeout_s=0.1, retries=1)


def test_a_dead_first_address_leaves_the_file_to_the_second(site, tmp_path):
    dead = Site()
    dead.server_close()
    urls = [f"{dead.url}/a.bin", f"{site.url}/a.bin"]
    assert download("x.bin", urls, SHA, tmp_path, progress=False).read_bytes() == BODY


def test_when_every_address_fails_the_error_names_each_and_says_what_to_do(site, tmp_path):
    site.files["/bad"] = b"bad"
    with pytest.raises(DownloadError) as caught:
        get(site, tmp_path, "/none", "/bad")
    text = str(caught.value)
    assert f"{site.url}/none：HTTP 404" in text
    assert f"{site.url}/bad：下载完了，但内容不对" in text
    assert "没有拿到 x.bin" in text
    assert f"sha256 是 {SHA}" in text
    assert f"放进文件夹 {tmp_path}" in text


def test_the_pauses_between_rounds_double(site, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    site.script = [error(500)] * 8
    with pytest.raises(DownloadError):
        get(site, tmp_path, "/a.bin", "/b.bin", retries=4, pause_s=1.5)
    assert pauses == [1.5, 3, 6]
    assert len(site.requests) == 8


def test_no_pause_is_made_when_no_address_is_left(site, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("没有用的等待"))
    with pytest.raises(DownloadError):
        get(site, tmp_path, "/none", "/neither")


@pytest.mark.parametrize("length", [True, False])
def test_a_file_larger_than_the_limit_is_refused(site, tmp_path, length):
    if not length:
        site.script = [lambda handler, body: handler.answer(200, body, Content_Length=None)]
    why = "有 2048 字节，超过了" if length else "：超过了"  # 长度写在头里，正文就不读了
    with pytest.raises(DownloadError, match=f"{why} max_bytes = 2047"):
        get(site, tmp_path, max_bytes=2047)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0
    assert get(site, tmp_path, max_bytes=2048).read_bytes() == BODY


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="没有 /dev/full，装不出磁盘满了")
def test_a_full_disk_keeps_the_old_file_and_is_not_blamed_on_the_network(site, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"old")
    (tmp_path / "x.bin.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"写不进去：.*No space.*原来的文件没有动"):
        get(site, tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == b"old"
    assert len(site.requests) == 1


# 跳转


def test_a_redirect_to_another_http_address_is_followed_with_its_range(site, tmp_path):
    (tmp_path / "x.bin.part").write_bytes(BODY[:700])
    site.script = [redirect("/b.bin")]
    assert get(site, tmp_path).read_bytes() == BODY
    assert site.requests == [("/a.bin", "bytes=700-"), ("/b.bin", "bytes=700-")]


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_a_redirect_to_another_scheme_is_refused(site, tmp_path, scheme):
    secret = tmp_path / "secret"
    secret.write_bytes(BODY)
    site.script = [redirect(secret.as_uri().replace("file", scheme, 1))]
    with pytest.raises(DownloadError, match=f"HTTP 302 .*{scheme}://"):
        get(site, tmp_path)
    assert visible(tmp_path) == ["secret"]


def test_a_redirect_from_https_back_to_http_is_refused():
    request = Request("https://127.0.0.1/a")
    with pytest.raises(HTTPError, match="不跟到 http://127"):
        fetch._Redirects().redirect_request(request, None, 302, "", {}, "http://127.0.0.1/a")


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


@pytest.mark.parametrize(("content", "why"), [(None, "里没有它"), (b"bad", r"x\.bin 的内容不对")])
def test_a_file_missing_offline_is_described_well_enough_to_fetch_it(
    site, tmp_path, monkeypatch, content, why
):
    if content is not None:
        (tmp_path / "x.bin").write_bytes(content)
    monkeypatch.setenv("COMPANION_OFFLINE", str(tmp_path))
    with pytest.raises(DownloadError, match=why) as caught:
        get(site, tmp_path / "data")
    text = str(caught.value)
    for part in ("没有拿到 x.bin", f"sha256 是 {SHA}", f"{site.url}/a.bin", f"文件夹 {tmp_path}。"):
        assert part in text
    assert site.requests == []


# 几个进程、几个线程


def test_two_threads_that_want_the_same_file_download_it_once(site, tmp_path, capsys):
    started = threading.Event()
    go_on = threading.Event()

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
    wait_until(lambda: "等它结束" in capsys.readouterr().out)  # 第二个已经在门口
    go_on.set()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in paths] == [BODY, BODY]
    assert len(site.requests) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="没有 fork，装不出被杀死的进程")
def test_a_killed_process_leaves_its_bytes_and_no_lock(tmp_path):
    site = Site()  # 先分出子进程，再开服务器的线程
    site.files["/a.bin"] = BODY
    half_sent = threading.Event()

    def half(handler, body):
        handler.answer(200, body[:700], Content_Length=len(body))
        half_sent.set()
        handler.server.over.wait(60)

    site.script = [half]
    child = start_child(lambda: get(site, tmp_path, timeout_s=60))
    with serve(site):
        try:
            assert half_sent.wait(10)
            part = tmp_path / "x.bin.part"
            wait_until(lambda: part.exists() and part.stat().st_size == 700)
        finally:
            os.kill(child, signal.SIGKILL)
            assert wait_child(child) == -signal.SIGKILL
        assert get(site, tmp_path).read_bytes() == BODY
        assert site.requests == [("/a.bin", None), ("/a.bin", "bytes=700-")]


def test_a_file_system_without_locks_does_not_stop_anything(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(file, flags):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with alone(tmp_path / "x"), alone(tmp_path / "x"):
        pass


# 参数


@pytest.mark.parametrize("name", ["", ".", "../x", "a/../../x", "/etc/x", "C:\\x", "a\\b"])
def test_a_name_outside_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match="相对路径"):
        download(name, ["http://127.0.0.1/x"], SHA, tmp_path)


@pytest.mark.parametrize("urls", [[], "http://127.0.0.1/x", ["ftp://127.0.0.1/x"], ["x.gz"]])
def test_addresses_other_than_http_https_and_file_are_refused(tmp_path, urls):
    with pytest.raises(ArgumentError, match="urls 应为一列"):
        download("x", urls, SHA, tmp_path)


@pytest.mark.parametrize("digest", ["", "abc", SHA[:-1], "md4:", f"md5:{SHA}", f"sha1:{SHA}"])
def test_a_digest_of_another_form_is_refused(tmp_path, digest):
    with pytest.raises(ArgumentError, match="digest 应为"):
        download("x", ["http://127.0.0.1/x"], digest, tmp_path)


def test_at_least_one_round_is_needed(tmp_path):
    with pytest.raises(ArgumentError, match="retries"):
        download("x", ["http://127.0.0.1/x"], SHA, tmp_path, retries=0)


def test_only_a_file_with_the_digest_matches(tmp_path):
    path = tmp_path / "x"
    assert not matches(path, SHA)
    path.write_bytes(BODY)
    assert matches(path, SHA)
    assert matches(path, MD5)
    assert not matches(path, "0" * 64)
    assert not matches(tmp_path, SHA)


# 进度


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_one_line_redrawn_at_most_ten_times_a_second(monkeypatch):
    seconds = iter(step / 1000 for step in range(100_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(sys, "stdout", Terminal())
    bar = fetch.Meter("x.gz")
    start = time.monotonic()
    for done in range(2000):
        bar.show(done * 1000, 2_000_000)
    bar.show(2_000_000, 2_000_000, last=True)
    elapsed = time.monotonic() - start
    drawn = sys.stdout.getvalue().split("\r")[1:]
    assert 10 < len(drawn) <= 10 * elapsed + 2
    assert drawn[-1] == "x.gz：2000 / 2000 kB\n"
    assert "\n" not in "".join(drawn[:-1])


def test_elsewhere_a_short_download_is_one_plain_line(site, tmp_path, capsys):
    get(site, tmp_path, progress=True)
    assert capsys.readouterr().out == "x.bin：2 / 2 kB\n"


def test_elsewhere_a_long_download_adds_a_line_every_five_seconds(monkeypatch, capsys):
    seconds = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    bar = fetch.Meter("x.gz")
    for done in range(20):
        bar.show(done * 1000, None)
    lines = capsys.readouterr().out.splitlines()
    assert 3 <= len(lines) <= 4
    assert all(line.startswith("x.gz：") and line.endswith(" kB") for line in lines)


def test_progress_can_be_switched_off(site, tmp_path, capsys):
    get(site, tmp_path, progress=False)
    assert capsys.readouterr().out == ""
