"""下载，全书只有这里联网。服务器和文件夹都不可信：等多久、收多少有上限，只碰普通文件。"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from companion._common import TEMPORARY, FileLock, replacing, say
from companion.errors import ArgumentError, DownloadError

Folder = str | Path | None
MOST_BYTES = 512 << 20  # 文件整个读进内存，再大就不收；CIFAR-10 解开约 184 MB
_TIMEOUT_S = 20.0  # 每次等网络；收到正文以前、正文每 64 KiB，各最多两倍这么久
_ONE_THREAD = threading.Lock()  # FileLock 只管进程之间
_PART = r"(?!(?:con|prn|aux|nul|(?:com|lpt)\d)(?:[./]|$))\w(?:[\w.+-]*\w)?"
_NAME = re.compile(f"(?i){_PART}(/{_PART})*")
_ADDRESS = re.compile(r"(?ia)https?://([\w.-]+|\[[\da-f:.]+\])(:[0-6]?\d{1,4})?([/?][!-~]*)?")
_DIGEST = re.compile(r"(?ia)(sha256:)?[\da-f]{64}|md5:[\da-f]{32}")


def data_folder(folder: Folder = None) -> Path:
    """数据放在 ``folder``；``None`` 是环境变量 ``COMPANION_DATA``，或 ``~/.cache/companion``。"""
    chosen = os.environ.get("COMPANION_DATA") or "~/.cache/companion" if folder is None else folder
    try:
        return Path(chosen).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(f"文件夹应为路径，实际是 {chosen!r:.300}：{error}。请改正。") from error


def download(name: str, urls: Sequence[str], digest: str, folder: Folder = None) -> Path:
    """内容与摘要相符的文件 ``folder/name``：已经有就不联网，没有就下载，每个地址最多试两次。

    摘要相符才写成 ``name``，坏的旧文件也到这时才被换掉。几个进程同时要，只有一个去下载。
    设了环境变量 ``COMPANION_OFFLINE`` 就不联网，返回它指的文件夹里的 ``name``，或同名的文件。
    写法不对是 ``ArgumentError``；哪个地址都没有成功，或磁盘写不进去，是 ``DownloadError``。

    Args:
        name: 文件名，可以带子文件夹，如 ``"MNIST/raw/train-labels-idx1-ubyte.gz"``。
        urls: 几个 http 或 https 地址，内容相同，轮流试；文件至多 512 MiB。
        digest: ``"sha256:…"``、``"md5:…"``，或光是 64 位的 sha256。
        folder: 放在哪个文件夹；``None`` 是 ``data_folder()``。
    """
    _check(name, urls, digest)
    target = data_folder(folder) / name
    if offline := os.environ.get("COMPANION_OFFLINE"):
        for place in (target, data_folder(offline) / name, data_folder(offline) / target.name):
            if matches(place, digest):
                return place
        raise DownloadError(
            f"没有拿到 {name}，摘要是 {digest}。设了 COMPANION_OFFLINE，所以不联网，而那里没有它，"
            f"或内容不对。从 {' 或 '.join(urls)} 取得它，放进文件夹 {offline}。"
        )
    store(target, digest, lambda: _from_any(urls, digest, target))
    return target


def store(path: Path, digest: str, make: Callable[[], bytes | bytearray]) -> None:
    """``path`` 的内容与 ``digest`` 不符，就写成 ``make()``；一次只让一个进程、一个线程去做。"""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    if matches(path, digest):  # 文件夹可以是只读的
        return
    with _ONE_THREAD:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError("那里已经有一个同名的文件夹")
            if not lock.acquire():
                say(f"另一个进程正在准备 {path.name}，等它结束。")
                while not lock.acquire():
                    time.sleep(0.1)
            for old in path.parent.glob(f"{TEMPORARY}{path.name}-????????"):
                old.unlink()  # 被杀死的进程留下的
            if not matches(path, digest):  # 等的时候，别的进程可能已经写好了
                content = make()
                with replacing(path) as fresh, fresh.open("xb") as file:
                    file.write(content)
        except DownloadError:
            raise
        except (OSError, ValueError) as error:
            raise DownloadError(
                f"{path} 写不进去：{error}。原来的文件没有动；换个文件夹。"
            ) from error
        finally:
            lock.release()


def fits(content: bytes | bytearray, digest: str) -> bool:
    kind = "md5" if digest.lower().startswith("md5:") else "sha256"
    hasher = hashlib.new(kind, content, usedforsecurity=False)  # 禁用 md5 的系统也放行
    return digest.lower().endswith(hasher.hexdigest())


def matches(path: Path, digest: str) -> bool:
    """是普通文件（或指着它的链接），不超过 ``MOST_BYTES``，内容与 ``digest`` 相符。"""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES or not path.is_file():
            return False
        with path.open("rb") as file:  # 只读 size 字节：/proc 里有读不到头的“普通文件”
            return fits(file.read(size), digest)
    except (OSError, ValueError):  # 没有，读不了，不像路径
        return False


class _Web(HTTPSHandler, HTTPHandler, HTTPRedirectHandler):
    """urllib 的开法，加上两条：读到 ``deadline`` 为止；跳转只到 http(s)，不从 https 退回 http。"""

    deadline = 0.0

    def do_open(self, http_class: Any, req: Request, **options: Any) -> HTTPResponse:
        kind: Any = type("Connection", (http_class,), {"response_class": self._response})
        return super().do_open(kind, req, **options)

    def _response(self, *args: Any, **options: Any) -> Any:
        response: Any = HTTPResponse(*args, **options)
        raw = response.fp.raw  # 头和正文的每个字节都从它来，一次读等多久由 socket 管
        read = raw.readinto

        def read_in_time(buffer: Any) -> Any:
            if time.monotonic() > self.deadline:
                raise TimeoutError("太慢")
            return read(buffer)

        raw.readinto = read_in_time
        return response

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        fp.close()  # 跳转的正文不读：它可以没有尽头
        if not _ADDRESS.fullmatch(newurl) or newurl[:5].lower() < req.type:  # 'http:' < 'https'
            raise HTTPError(req.full_url, code, f"不跟到 {newurl}", headers, None)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _from_any(urls: Sequence[str], digest: str, target: Path) -> bytearray:
    say(f"下载 {target.name}…", flush=True)
    reasons = {}
    for url in [*urls, *urls]:
        try:
            content = _from_one(url)
        except HTTPError as error:
            error.close()
            reasons[url] = f"HTTP {error.code} {error.msg!s:.300}"  # 服务器的话可以很长
        except Exception as error:
            reasons[url] = f"{type(error).__name__}：{error!s:.300}"
        else:
            if fits(content, digest):
                return content
            reasons[url] = "下载完了，但内容不对"
    tried = "".join(f"\n  {url}：{reason}" for url, reason in reasons.items())
    advice = f"检查网络后再运行一次；或者用别的办法取得它，放进文件夹 {target.parent}。"
    raise DownloadError(f"没有拿到 {target.name}，摘要是 {digest}。试过的地址：{tried}\n{advice}")


def _from_one(url: str) -> bytearray:
    web, content = _Web(), bytearray()
    request = Request(url, headers={"User-Agent": "companion"})  # 有的服务器不理 urllib 自己的名字
    web.deadline = time.monotonic() + 2 * _TIMEOUT_S
    with build_opener(web).open(request, timeout=_TIMEOUT_S) as response:
        while piece := response.read(1 << 16):
            content += piece
            if len(content) + (response.length or 0) > MOST_BYTES:
                raise ValueError(f"超过了 {MOST_BYTES} 字节")
            web.deadline = time.monotonic() + 2 * _TIMEOUT_S
        if response.length:
            raise EOFError(f"到第 {len(content)} 字节断了，还差 {response.length} 字节")
    return content


def _check(name: Any, urls: Any, digest: Any) -> None:
    if not (isinstance(name, str) and _NAME.fullmatch(name) and len(name.encode()) <= 200):
        raise ArgumentError(f"name 应为文件夹以内的相对路径，如 'a/b-1.gz'，实际是 {name!r:.300}。")
    good = isinstance(urls, list | tuple) and urls
    if not good or not all(isinstance(url, str) and _ADDRESS.fullmatch(url) for url in urls):
        raise ArgumentError(f"urls 应为一列 http(s):// 地址，不带密码，实际是 {urls!r:.300}。")
    if not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise ArgumentError(f"digest 应为 sha256:… 或 md5:…，实际是 {digest!r:.300}。请补全。")
