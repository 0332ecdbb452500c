"""下载：几个地址轮流试，边收边算摘要，摘要对了才放到最终的位置。全书只有这里联网。

服务器和文件夹都不当成可信的：等多久、收多少有上限，只读普通文件，只写新建的临时文件。
"""

import glob
import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from companion._common import TEMPORARY, FileLock, replacing
from companion.errors import ArgumentError, DownloadError

_PAUSE_S = 1.0  # 两轮之间歇几秒
_SLOWEST = 4096  # 平均每秒至少要收到几字节
_CHUNK = 1 << 16
_ONE_THREAD = threading.Lock()  # FileLock 只管进程之间
_PART = r"(?!(?:con|prn|aux|nul|(?:com|lpt)\d)(?:[./]|$))\w(?:[\w.+-]*\w)?"
_NAME = re.compile(f"{_PART}(?:/{_PART})*", re.IGNORECASE)
_HOST = r"(?:[\w.-]+|\[[\da-f:.]+\])(?::[0-6]?\d{1,4})?"
_ADDRESS = re.compile(rf"https?://{_HOST}(?:[/?][!-~]*)?", re.I | re.A)
_DIGEST = re.compile(r"(?:sha256:)?[\da-f]{64}|md5:[\da-f]{32}", re.I | re.A)


def data_folder() -> Path:
    """数据放在哪里：环境变量 ``COMPANION_DATA``，没有设就是 ``~/.cache/companion``。"""
    return Path(os.environ.get("COMPANION_DATA") or "~/.cache/companion").expanduser()


def download(
    name: str,
    urls: Sequence[str],
    digest: str,
    folder: str | Path | None = None,
    *,
    timeout_s: float = 20.0,
    retries: int = 3,
    max_bytes: int = 4 << 30,
    progress: bool = True,
) -> Path:
    """内容与摘要相符的文件 ``folder/name``：已经有就不联网，没有就下载。

    摘要相符才改名成 ``name``，坏的旧文件也到这时才被换掉。几个进程同时要，只有一个去下载。
    设了环境变量 ``COMPANION_OFFLINE`` 就不联网，只在它指的文件夹里找 ``name``，或同名的文件。

    Args:
        name: 文件名，可以带子文件夹，如 ``"MNIST/raw/train-labels-idx1-ubyte.gz"``。
        urls: 几个 http 或 https 地址，内容相同，轮流试。
        digest: ``"sha256:…"``、``"md5:…"``，或光是 64 位的 sha256。
        folder: 放在哪个文件夹；``None`` 是 ``data_folder()``。
        timeout_s: 连接、以及每一次等数据，最多等几秒；从查域名算起，每过两倍这么久，收到的
            正文平均每秒不到 4 KiB，也算失败。
        retries: 一个地址最多试几次。
        max_bytes: 文件最多几字节；已经有的文件，再大就当作不对。
        progress: 慢的时候要不要显示进度。

    Returns:
        文件的路径；``COMPANION_OFFLINE`` 里找到的，就是它在那里的路径。

    Raises:
        ArgumentError: 哪个参数的写法不对。
        DownloadError: 哪个地址都没有成功，或者磁盘写不进去。
    """
    _check_arguments(name, urls, digest, timeout_s, retries, max_bytes)
    target = (data_folder() if folder is None else Path(folder)) / name
    if matches(target, digest, max_bytes):
        return target
    if offline := os.environ.get("COMPANION_OFFLINE"):
        target = Path(offline).expanduser() / name
        for place in (target, Path(offline).expanduser() / target.name):
            if matches(place, digest, max_bytes):
                return place
        reason = "没有试，因为设了环境变量 COMPANION_OFFLINE，而那里没有它，或内容不对"
        raise _missing(target, digest, dict.fromkeys(urls, reason))
    reasons = {}
    with turn_to_write(target):
        for turn in range(retries):
            time.sleep(_PAUSE_S if turn else 0)
            for url in urls:
                if matches(target, digest, max_bytes):  # 等的时候，别的进程可能已经下载好了
                    return target
                try:
                    return _get(url, target, digest, timeout_s, max_bytes, progress)
                except _Failed as failure:
                    reasons[url] = str(failure)[:300]  # 服务器的话可以很长
    raise _missing(target, digest, reasons)


def matches(path: Path, digest: str, max_bytes: int) -> bool:
    """是普通文件（或指着它的链接），不超过 ``max_bytes``，内容与 ``digest`` 相符。"""
    kind = "md5" if digest.lower().startswith("md5:") else "sha256"
    hasher = hashlib.new(kind, usedforsecurity=False)  # 禁用 md5 的系统也放行
    try:
        size = path.stat().st_size
        if size > max_bytes or not path.is_file():
            return False
        with path.open("rb") as file:  # 只读 size 字节：/proc 里有读不到头的“普通文件”
            for left in range(size, 0, -_CHUNK):
                hasher.update(file.read(min(left, _CHUNK)))
    except (OSError, ValueError):  # 没有，读不了，不像路径
        return False
    return digest.lower().endswith(hasher.hexdigest())


@contextmanager
def turn_to_write(path: Path) -> Iterator[None]:
    """一次只让一个进程、一个线程进去写 ``path``，别的在门口等；写不进去是 ``DownloadError``。"""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("那里已经有一个同名的文件夹")
        with _ONE_THREAD, ExitStack() as stack:
            stack.callback(lock.release)
            if not lock.acquire():
                print(f"另一个进程正在准备 {path.name}，等它结束。")
                while not lock.acquire():
                    time.sleep(0.1)
            for old in path.parent.glob(f"{TEMPORARY}{glob.escape(path.name)}-????????"):
                old.unlink()  # 被杀死的进程留下的
            yield
    except (OSError, ValueError) as error:
        raise DownloadError(
            f"{path} 写不进去：{error}。原来的文件没有动；腾出空间、改好权限，或换一个文件夹"
            "（环境变量 COMPANION_DATA），再运行一次。"
        ) from error


class _Failed(Exception):
    """一个地址没有成功，和它的原因。"""


class _Web(HTTPSHandler, HTTPHandler, HTTPRedirectHandler):
    """urllib 的开法，加上两条：随时停得下来；跳转只到 http、https，不从 https 退回 http。"""

    got = 0  # 收到的正文有几字节
    _over = False
    _socket: socket.socket | None = None
    _response: HTTPResponse | None = None

    def stop(self) -> None:
        """正在别的线程里等的读，马上结束；还没连上的，连上就停。"""
        self._over = True
        if self._socket:
            with suppress(OSError):  # 对面已经断开
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._response:
            self._response.close()

    def do_open(self, http_class: Any, req: Request, **options: Any) -> HTTPResponse:
        req.add_header("User-Agent", "companion")  # 有的服务器不理 urllib 自己的名字
        kind: Any = type("Connection", (http_class,), {"response_class": self._answer})
        return super().do_open(kind, req, **options)

    def _answer(self, connected: socket.socket, *args: Any, **options: Any) -> HTTPResponse:
        self._socket = connected
        if self._over:
            self.stop()
        self._response = HTTPResponse(connected, *args, **options)
        return self._response

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        fp.close()  # 跳转的正文不读：它可以没有尽头
        if not _ADDRESS.fullmatch(newurl) or newurl[:5].lower() < req.type:  # 'http:' < 'https'
            raise HTTPError(req.full_url, code, f"不跟到 {newurl}", headers, None)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _get(
    url: str, target: Path, digest: str, timeout_s: float, max_bytes: int, progress: bool
) -> Path:
    """在另一个线程里下载，这里只看钟：收得太慢就叫停，查域名这样停不下来的也不等。"""
    web, pool = _Web(), ThreadPoolExecutor(1)

    def store() -> Path:
        with closing(web), replacing(target) as fresh:
            response = _asked(lambda: build_opener(web).open(url, timeout=timeout_s))
            with fresh.open("xb") as file:
                while chunk := _asked(lambda: response.read1(_CHUNK)):
                    web.got += len(chunk)
                    if web.got + (response.length or 0) > max_bytes:
                        raise _Failed(f"超过了 max_bytes = {max_bytes} 字节")
                    file.write(chunk)
            if response.length:
                raise _Failed(f"到第 {web.got} 字节断了，还差 {response.length} 字节")
            if not matches(fresh, digest, max_bytes):
                raise _Failed("下载完了，但内容不对")
        return target

    done = pool.submit(store)
    try:
        before = 0
        while not wait([done], 2 * timeout_s).done:
            if web.got - before < 2 * timeout_s * _SLOWEST:
                raise _Failed(f"太慢，{2 * timeout_s:g} 秒里只收到正文 {web.got - before} 字节")
            before = web.got
            if progress:
                print(f"{target.name}：已下载 {before / 1e6:.1f} MB", flush=True)
        return done.result()
    finally:
        web.stop()
        wait([done], 1)
        pool.shutdown(wait=False)


def _asked(ask: Callable[[], Any]) -> Any:
    """``ask()``；它只碰网络，所以无论什么错误，都是这个地址没有成功。"""
    try:
        return ask()
    except HTTPError as error:
        error.close()
        raise _Failed(f"HTTP {error.code} {error.msg}") from None
    except Exception as error:
        raise _Failed(f"{type(error).__name__}：{error}") from None


def _missing(target: Path, digest: str, reasons: dict[str, str]) -> DownloadError:
    lines = [f"没有拿到 {target.name}，它的摘要是 {digest}。试过的地址："]
    lines += [f"  {url}：{reason}" for url, reason in reasons.items()]
    lines += [f"检查网络后再运行一次；或者用别的办法取得它，放进文件夹 {target.parent}。"]
    return DownloadError("\n".join(lines))


def _check_arguments(
    name: Any, urls: Any, digest: Any, timeout_s: Any, retries: Any, max_bytes: Any
) -> None:
    def check(label: str, value: Any, kind: Any, good: Callable[[Any], object], rule: str) -> None:
        if not isinstance(value, kind) or not good(value):
            raise ArgumentError(f"{label} 应为{rule}，实际是 {value!r:.300}。请照这样改。")

    rule = "文件夹以内的相对路径，每段是字母、数字和 . + - _，至多 200 字节，如 'sub/a.gz'"
    check("name", name, str, lambda n: _NAME.fullmatch(n) and len(n.encode()) <= 200, rule)
    rule = "一列 http:// 或 https:// 地址，至少一个，不带密码，汉字和空格写成 %XX"
    check("urls", urls, list | tuple, len, rule)
    for url in urls:
        check("urls", url, str, _ADDRESS.fullmatch, rule)
    rule = " sha256:（64 位十六进制）或 md5:（32 位）"
    check("digest", digest, str, _DIGEST.fullmatch, rule)
    rule = "大于 0、至多 3600 的数"
    check("timeout_s", timeout_s, int | float, lambda seconds: 0 < seconds <= 3600, rule)
    check("retries", retries, int, lambda number: number > 0, "大于 0 的整数")
    check("max_bytes", max_bytes, int, lambda number: number > 0, "大于 0 的整数")
