"""清单 ``manifest.json``：存档里应有哪些文件、各是什么字节；按它核对，坏的存档一个也混不过去。

清单的最后一行是它前面全部字节的 sha256，所以清单自己被改动一位也查得出。
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from companion._common import sync_file
from companion.checkpoint._disk import DEEPEST, FileRecord, file_sizes, hash_file, open_regular
from companion.errors import (
    ArgumentError,
    CheckpointError,
    CorruptCheckpointError,
    NewerFormatError,
)

FORMAT = 1
MANIFEST = "manifest.json"
_MOST = 16 << 20  # 清单至多这么多字节
_DEEPEST = 50  # info 里的列表、字典至多套这么多层
ADVICE = "别再用它：newest_good(目录) 会找出最新的好存档。"


class Manifest(NamedTuple):
    """读出来的清单。"""

    info: dict[str, Any]
    files: dict[str, FileRecord]  # 文件名（相对存档，用 / 分隔）到它应有的样子


def write_manifest(directory: Path, info: Mapping[str, Any], files: dict[str, FileRecord]) -> None:
    """返回时 ``directory`` 里的清单已经写好，落了盘。

    Raises:
        ArgumentError: ``info`` 写不成 JSON。
    """
    listed = {name: record._asdict() for name, record in sorted(files.items())}
    content = {"format": FORMAT, "info": dict(info), "files": listed}
    try:
        body = json.dumps(content, ensure_ascii=False, indent=1).removesuffix("\n}").encode()
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"info 里应只有数、字符串、列表和字典，实际写不成 JSON：{error}。"
            "张量等大东西放进 state，数值先换成 Python 的 int、float。"
        ) from error
    with (directory / MANIFEST).open("xb") as file:
        file.write(_seal(body))
        sync_file(file)


def verify(path: str | Path) -> dict[str, Any]:
    """完好的存档的 ``info``；逐个文件比对大小和 sha256，不读任何张量。

    Raises:
        CorruptCheckpointError: 坏了；消息里写着哪个文件、怎么坏的。
        NewerFormatError: 格式比这个 companion 新。
    """
    path = Path(path)
    manifest = _check_sizes(path)
    for name, expected in manifest.files.items():
        with _reading(path, name), open_regular(path / name) as file:
            actual = hash_file(file, expected.bytes)
        if actual != expected:
            raise _corrupt(
                path,
                f"{name} 的 sha256 应为 {expected.sha256[:12]}…，实际是 {actual.sha256[:12]}…，"
                "内容被改动过",
            )
    return manifest.info


def read_info(path: Path) -> dict[str, Any]:
    """存档的 ``info``；只核对清单自己，别的文件好不好不管，所以很快。``Raises`` 同 ``verify``。"""
    return _read_manifest(path).info


def looks_whole(path: Path) -> bool:
    """清单没坏，文件一个不多、一个不少、大小都对；不算 sha256，所以很快。"""
    try:
        _check_sizes(path)
    except CheckpointError:
        return False
    return True


def read_files(path: Path) -> dict[str, FileRecord]:
    """清单里的每个文件应有的样子；同 ``read_info``，只核对清单自己。"""
    return _read_manifest(path).files


def _check_sizes(path: Path) -> Manifest:
    manifest = _read_manifest(path)
    with _reading(path, "这个目录"):
        sizes = file_sizes(path)
    for name, record in manifest.files.items():
        if name not in sizes:
            raise _corrupt(path, f"缺文件 {name}")
        if sizes[name] != record.bytes:
            raise _corrupt(path, f"{name} 应有 {record.bytes} 字节，实际有 {sizes[name]} 字节")
    for name in sorted(sizes):
        if name not in manifest.files and name != MANIFEST:
            raise _corrupt(path, f"多出文件 {name}；若是系统自己放的，删掉它就好")
    return manifest


def _read_manifest(path: Path) -> Manifest:
    with _reading(path, MANIFEST):
        if path.is_symlink():
            raise OSError("它是链接")
        with open_regular(path / MANIFEST) as file:
            raw = file.read(_MOST + 1)
    if len(raw) > _MOST:
        raise _corrupt(path, f"{MANIFEST} 应不超过 {_MOST} 字节，实际更大")
    if raw != _seal(raw[: -len(_seal(b""))]):
        raise _corrupt(path, f"{MANIFEST} 与它末行的 sha256 不符，清单被改动或截断过")
    try:
        content = json.loads(raw.decode())
        version = content["format"]
        if type(version) is not int or not 0 < version < 10**6:
            raise ValueError("format 应是不太大的正整数")
        if version <= FORMAT:
            return _parse(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _corrupt(path, f"{MANIFEST} 不是 companion 写的清单") from error
    raise NewerFormatError(
        f"存档 {path.name} 的格式是 {version}，这个 companion 只读得懂 {FORMAT} 及以前的。"
        "请升级 companion，或用当初存它的版本读。"
    )


def _parse(content: dict[str, Any]) -> Manifest:
    info, files = content["info"], content["files"]
    if type(info) is not dict or not _is_shallow(info):
        raise ValueError("info 应是不太深的字典")
    for name, record in files.items():
        size, sha256 = record["bytes"], record["sha256"]
        if record.keys() != {"bytes", "sha256"} or not _is_name(name):
            raise ValueError("files 里应是文件名和它的样子")
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise ValueError("bytes 应是 0 或更大的整数")
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError("sha256 应是 64 个十六进制数字")
    return Manifest(info, {name: FileRecord(**record) for name, record in files.items()})


def _is_name(name: str) -> bool:
    """是不是存档里面的一个文件名：相对的，不往上走，在哪个系统上都是这个意思。"""
    parts = name.split("/")
    good = name.isprintable() and not set(name) & set("\\:") and name != MANIFEST
    return good and len(parts) <= DEEPEST + 1 and not {"", ".", ".."} & set(parts)


def _is_shallow(value: Any, left: int = _DEEPEST) -> bool:
    """套得不太深，字符串都编得成 UTF-8（编不成就抛出 ``ValueError``）。"""
    if isinstance(value, str):
        value.encode()
    if not isinstance(value, dict | list):
        return True
    inside = [*value, *value.values()] if isinstance(value, dict) else value
    return left > 0 and all(_is_shallow(item, left - 1) for item in inside)


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    """读 ``path`` 里的 ``name`` 时，把系统的错误换成说得清的。"""
    try:
        yield
    except OSError as error:
        if path.is_symlink():
            raise CheckpointError(
                f"应给存档的目录自己，实际 {path} 是链接。请改给它指向的那个目录。"
            ) from error
        if not path.is_dir():
            raise CheckpointError(f"应有存档 {path}，实际没有这个目录。检查路径。") from error
        if any(path.glob("save-*")):
            raise CheckpointError(
                f"应给一个存档，实际给的 {path} 是放存档的目录。"
                "请用 newest_good(目录) 取最新的好存档，或用 saves(目录) 列出全部。"
            ) from error
        missing = isinstance(error, FileNotFoundError)
        raise _corrupt(
            path, f"缺文件 {name}" if missing else f"{name} 读不出来：{error}"
        ) from error


def _seal(body: bytes) -> bytes:
    """``body`` 加上写着它的 sha256 的末行；``body`` 是缺了末尾 ``}`` 的 JSON。"""
    return body + b',\n "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def _corrupt(path: Path, reason: str) -> CorruptCheckpointError:
    return CorruptCheckpointError(f"存档 {path.name} 坏了：{reason}。{ADVICE}")
