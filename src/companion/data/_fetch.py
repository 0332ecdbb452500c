"""一次请求：把一个地址的内容写进半成品文件，写过的部分不再要。全书只有这里联网。

试几个地址、几次，内容对不对，都由 ``download.py`` 决定；这里不看摘要。
"""

import re
import sys
import time
from collections.abc import Iterator
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

_CHUNK_BYTES = 1 << 16
_TRY_AGAIN = (408, 425, 429)  # 4xx 里，过一会儿再问可能就好的


class Failed(Exception):
    """一次请求没有成功。``reason`` 是一句话的原因，``again`` 是过一会儿再试有没有用。"""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again


class Meter:
    """下载到了哪里。终端上改写同一行，每秒至多 10 次；别处每 5 秒添一行。"""

    def __init__(self, name: str, visible: bool = True) -> None:
        self.name = name
        self.visible = visible
        self._terminal = sys.stdout.isatty()
        self._pause_s = 0.1 if self._terminal else 5.0
        self._next_s = time.monotonic() + self._pause_s

    def show(self, done_bytes: int, total_bytes: int | None, last: bool = False) -> None:
        """什么也不返回：到时候了就写一次；``last`` 那次一定写，并且换行。"""
        if not self.visible or (time.monotonic() < self._next_s and not last):
            return
        self._next_s = time.monotonic() + self._pause_s
        total = "" if total_bytes is None else f" / {total_bytes / 1000:.0f}"
        line = f"{self.name}：{done_bytes / 1000:.0f}{total} kB"
        if self._terminal:
            print(f"\r{line}", end="\n" if last else "", flush=True)
        else:
            print(line, flush=True)


class _Redirects(HTTPRedirectHandler):
    """跳转只跟到 http 和 https，并且不从 https 退回 http。"""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        if not newurl.startswith("https:" if req.type == "https" else ("http:", "https:")):
            raise HTTPError(req.full_url, code, f"不跟到 {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def fetch(
    url: str, part: Path, *, timeout_s: float, max_bytes: int, progress: Meter | None = None
) -> None:
    """什么也不返回：写完以后，``part`` 就是 ``url`` 的内容。

    ``part`` 已有的部分不再要（HTTP Range）；服务器不理会 Range 就从头覆盖，已有的字节在被
    覆盖之前都留着。中途断开，``part`` 留给下一次。

    Args:
        url: http、https 或 file 地址。
        part: 半成品文件，可以还不存在。
        timeout_s: 连接、以及每一次等数据，最多等几秒。
        max_bytes: 内容最多几字节，再多就不要了。
        progress: 每写一块报一次。

    Raises:
        Failed: 连不上、超时、断了、状态码不对、太大、跳转到了别的协议。
        OSError: 写不进 ``part``，例如磁盘满了。

    出处：RFC 9110 第 14 节（Range）。
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, have, timeout_s)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:  # 手里的比它的还长，不是同一个文件：从头来
            part.unlink()
            return fetch(url, part, timeout_s=timeout_s, max_bytes=max_bytes, progress=progress)
        raise _http_failure(error) from None
    with response:
        try:
            start, total = _span(response, have)
        except ValueError as error:
            part.unlink(missing_ok=True)
            raise Failed(str(error), again=True) from None
        if total is not None and total > max_bytes:
            raise Failed(f"有 {total} 字节，超过了 max_bytes = {max_bytes}", again=False)
        with part.open("r+b" if have else "wb") as file:
            file.seek(start)
            _copy(_chunks(response, timeout_s), file, total, max_bytes, progress)


def _open(url: str, have: int, timeout_s: float) -> Any:
    """服务器的回答，头已经读到；状态码不对的是 ``HTTPError``，别的失败是 ``Failed``。"""
    headers = {"User-Agent": "companion"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        return build_opener(_Redirects).open(Request(url, headers=headers), timeout=timeout_s)
    except HTTPError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise Failed(_reason(error, timeout_s), again=not url.startswith("file:")) from None


def _span(response: Any, have: int) -> tuple[int, int | None]:
    """回答的正文从文件的第几字节开始，文件共几字节（不知道时是 ``None``）。"""
    if response.status != 206:  # 200，或者 file 地址：给的是整个文件
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    header = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", header)
    if not found or int(found[1]) != have:
        raise ValueError(f"要的是第 {have} 字节往后，回答的是 {header!r}")
    return have, None if found[3] == "*" else int(found[3])


def _chunks(response: Any, timeout_s: float) -> Iterator[bytes]:
    """正文，一块一块；网络的错误在这里变成 ``Failed``，与写磁盘的错误分得开。"""
    try:
        while chunk := response.read1(_CHUNK_BYTES):
            yield chunk
    except (OSError, HTTPException) as error:
        raise Failed(_reason(error, timeout_s), again=True) from None


def _copy(
    chunks: Iterator[bytes],
    file: IO[bytes],
    total: int | None,
    max_bytes: int,
    progress: Meter | None,
) -> None:
    """把正文接在 ``file`` 的当前位置之后；写完了，多余的旧尾巴截掉。"""
    progress = progress or Meter("", visible=False)
    try:
        for chunk in chunks:
            file.write(chunk)
            file.flush()  # 进程被杀死，收到的也不丢
            if file.tell() > max_bytes:
                file.truncate(0)
                raise Failed(f"超过了 max_bytes = {max_bytes} 字节", again=False)
            progress.show(file.tell(), total)
    finally:
        progress.show(file.tell(), total, last=True)
    if total is not None and file.tell() != total:
        raise Failed(f"应有 {total} 字节，到第 {file.tell()} 字节断了", again=True)
    file.truncate()


def _http_failure(error: HTTPError) -> Failed:
    again = error.code >= 500 or error.code in _TRY_AGAIN
    return Failed(f"HTTP {error.code} {error.msg}", again)


def _reason(error: Exception, timeout_s: float) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"等了 {timeout_s:g} 秒没有数据"
    return f"{type(cause).__name__}：{cause}" if isinstance(cause, Exception) else str(cause)
