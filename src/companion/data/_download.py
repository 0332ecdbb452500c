"""下载：几个地址轮流试，断了接着下，摘要对了才放到最终的位置。

一次请求怎么发、怎么接着上次写，在 ``fetch.py``；只用标准库。
"""

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from companion.data._fetch import Failed, Meter, fetch
from companion.errors import ArgumentError, DownloadError

_HEX_DIGITS = {"sha256": 64, "md5": 32}


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
    pause_s: float = 1.0,
    max_bytes: int = 4 << 30,
    progress: bool = True,
) -> Path:
    """内容与摘要相符的文件 ``folder/name``：已经有就不联网，没有就下载。

    地址轮流试：一轮里每个地址试一次，一轮都不成就歇一会儿再来。断在半路，收到的部分留在
    ``name.part``，下一次（换个地址、换个进程也行）接着下；接出来的内容不对，就从头再下一次。
    摘要相符才改名成 ``name``，所以那里要么没有，要么是完整的；坏的旧文件也到这时才被换掉。
    几个进程同时要同一个文件，只有一个去下载，别的等它。

    设了环境变量 ``COMPANION_OFFLINE`` 就不联网，只在它指的文件夹里找：先找同样的相对路径，
    再找同名的文件。

    Args:
        name: 文件名，可以带子文件夹，如 ``"MNIST/raw/train-labels-idx1-ubyte.gz"``。
        urls: 几个地址，内容相同，http、https 或 file。
        digest: ``"sha256:…"``、``"md5:…"``，或光是 64 位的 sha256。
        folder: 放在哪个文件夹；``None`` 是 ``data_folder()``。
        timeout_s: 连接、以及每一次等数据，最多等几秒。
        retries: 一共几轮，也就是一个地址最多试几次。404 这样再试也没用的，只试一次。
        pause_s: 第一轮之后歇几秒，以后每次加倍。
        max_bytes: 文件最多几字节。
        progress: 要不要显示进度。

    Returns:
        文件的路径；``COMPANION_OFFLINE`` 里找到的，就是它在那里的路径。

    Raises:
        ArgumentError: 文件名、地址、摘要的写法不对，或 ``retries`` 小于 1。
        DownloadError: 哪个地址都没有成功，或者磁盘写不进去。
    """
    _check_arguments(name, urls, digest, retries)
    target = (data_folder() if folder is None else Path(folder)) / name
    if matches(target, digest):
        return target
    if offline := os.environ.get("COMPANION_OFFLINE"):
        return _carried(name, urls, digest, Path(offline).expanduser())
    show = Meter(target.name, progress)
    get = partial(fetch, timeout_s=timeout_s, max_bytes=max_bytes, progress=show)
    try:
        with alone(target):
            if not matches(target, digest):  # 等的时候，别的进程可能已经下载好了
                _fill(get, target, urls, digest, retries, pause_s)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{target} 写不进去：{error}。原来的文件没有动；腾出空间、改好权限，或换一个文件夹"
            "（环境变量 COMPANION_DATA），再运行一次。"
        ) from error
    return target


def matches(path: Path, digest: str) -> bool:
    """文件在，并且内容与 ``digest``（写法同 ``download``）相符。"""
    kind, value = _parse(digest)
    return path.is_file() and _digest_of(path, kind) == value


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """一次只让一个进程（或线程）进去准备 ``path``，别的在门口等；进程死了，系统替它让出来。

    锁是旁边的空文件 ``.名字.lock``，用完不删：删它的一瞬间，别人可能正等着它。
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        if not _try_lock(file):
            print(f"另一个进程正在准备 {path.name}，等它结束。")
            while not _try_lock(file):
                time.sleep(0.1)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # 有的网络文件系统没有锁：不拦，写坏了有摘要发现
        return True
    return True


def _fill(
    get: Callable[[str, Path], None],
    target: Path,
    urls: Sequence[str],
    digest: str,
    retries: int,
    pause_s: float,
) -> None:
    """一轮一轮地试，直到 ``target`` 是要的内容。"""
    part = target.with_name(f"{target.name}.part")
    if matches(part, digest):  # 上一次下完了，没来得及改名
        part.replace(target)
        return
    reasons: dict[str, str] = {}
    hopeless: set[str] = set()
    for turn in range(retries):
        if turn and len(hopeless) < len(reasons):
            time.sleep(pause_s * 2 ** (turn - 1))
        for url in urls:
            if url in hopeless:
                continue
            try:
                _get_checked(get, url, part, digest)
            except Failed as failure:
                reasons[url] = failure.reason
                if not failure.again:
                    hopeless.add(url)
            else:
                part.replace(target)
                return
    advice = "检查网络后再运行一次，收到的部分还在，会接着下；或者用别的办法取得这个文件，"
    raise DownloadError(_report(target, digest, reasons, advice))


def _get_checked(get: Callable[[str, Path], None], url: str, part: Path, digest: str) -> None:
    """下载并核对；接着上次下的不对，就从头再下一次：两次之间文件可能换过。"""
    resumed = part.exists()
    get(url, part)
    kind, value = _parse(digest)
    actual = _digest_of(part, kind)
    if actual == value:
        return
    part.unlink()
    if not resumed:
        raise Failed(f"下载完了，但内容不对，{kind} 是 {actual}", again=False)
    _get_checked(get, url, part, digest)


def _carried(name: str, urls: Sequence[str], digest: str, offline: Path) -> Path:
    """``COMPANION_OFFLINE`` 里内容相符的那个文件。"""
    places = list(dict.fromkeys([offline / name, offline / PurePosixPath(name).name]))
    for path in places:
        if matches(path, digest):
            return path
    seen = "、".join(str(path) for path in places if path.is_file())
    why = f"{seen} 的内容不对。" if seen else f"{offline} 里没有它。"
    reasons = dict.fromkeys(urls, "没有试，因为设了环境变量 COMPANION_OFFLINE")
    raise DownloadError(
        _report(offline / name, digest, reasons, f"{why}请在能上网的机器上取得它，")
    )


def _report(target: Path, digest: str, reasons: dict[str, str], advice: str) -> str:
    """错误的全文：要什么、试了哪些地址、怎么补上。"""
    lines = [f"没有拿到 {target.name}，它的 {' 是 '.join(_parse(digest))}。试过的地址："]
    lines += [f"  {url}：{reason}" for url, reason in reasons.items()]
    return "\n".join([*lines, f"{advice}放进文件夹 {target.parent}。"])


def _digest_of(path: Path, kind: str) -> str:
    with path.open("rb") as file:  # 认内容，不是防伪造：禁用 md5 的系统也放行
        return hashlib.file_digest(
            file, lambda: hashlib.new(kind, usedforsecurity=False)
        ).hexdigest()


def _parse(digest: str) -> tuple[str, str]:
    """摘要的种类和十六进制的值。"""
    kind, _, value = digest.lower().rpartition(":")
    kind = kind or "sha256"
    if kind not in _HEX_DIGITS or not re.fullmatch(f"[0-9a-f]{{{_HEX_DIGITS[kind]}}}", value):
        raise ArgumentError(
            f"digest 应为 sha256:（64 位十六进制）或 md5:（32 位），实际是 {digest!r}。"
        )
    return kind, value


def _check_arguments(name: str, urls: Sequence[str], digest: str, retries: int) -> None:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or re.search(r"[\\:]", name):
        raise ArgumentError(
            f"name 应为文件夹以内的相对路径，如 'a.gz'、'sub/a.gz'，实际是 {name!r}。"
        )
    wrong = [url for url in urls if not url.startswith(("http://", "https://", "file://"))]
    if isinstance(urls, str) or not urls or wrong:
        raise ArgumentError(
            f"urls 应为一列 http://、https:// 或 file:// 地址，至少一个，实际是 {urls!r}。"
        )
    if retries < 1:
        raise ArgumentError(f"retries 应至少是 1，实际是 {retries}。")
    _parse(digest)
