"""MNIST、Fashion-MNIST、CIFAR-10：下载、核对、解开，再交给 torchvision 自己的类去读。

地址、文件名和 md5 都取自 torchvision 的类，这里一个也没有抄。做这本书的机器连不上那些服务器：
测试用的是格式相同的小文件和本机的服务器。连不上就用 ``mirrors`` 指别的地址，或用环境变量
``COMPANION_OFFLINE`` 指一个手工带来的文件夹（见 ``_download.py``）。
"""

import gzip
import hashlib
import importlib
import io
import math
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from companion._common import replacing
from companion.data._download import data_folder, download, matches, turn_to_write
from companion.errors import DataError

Folder = str | Path | None
Transform = Callable[[Any], Any] | None
Mirrors = Sequence[str]

_MOST_BYTES = 256 << 20  # 最大的是解开的 CIFAR-10，约 184 MB


def mnist(
    folder: Folder = None, train: bool = True, transform: Transform = None, mirrors: Mirrors = ()
) -> Any:
    """``torchvision.datasets.MNIST``：60000（训练）或 10000（测试）张 28×28 手写数字。

    Args:
        folder: 放在哪个文件夹，``None`` 是 ``data_folder()``；里面是 torchvision 的布局
            ``MNIST/raw/``，torchvision 下载过的可以直接用。
        train: 训练部分，还是测试部分；两部分总是一起下载。
        transform: 作用在每张 PIL 图上。
        mirrors: 先试的地址，每个都是装着四个 ``.gz`` 的文件夹，如
            ``"https://…/mnist/"``；都不成再试 torchvision 的。

    Returns:
        样本是 ``(图, 类别编号)``；``.data`` 形状 ``(n, 28, 28)``，``uint8``，
        ``.targets`` 形状 ``(n,)``，``int64``。

    Raises:
        DownloadError: 哪个地址都没有成功，或者磁盘写不进去。
        DataError: 文件下载对了，里面却不是这个数据集。
        ModuleNotFoundError: 没有装 torchvision。
    """
    return _from_gz("MNIST", folder, train, transform, mirrors)


def fashion_mnist(
    folder: Folder = None, train: bool = True, transform: Transform = None, mirrors: Mirrors = ()
) -> Any:
    """``torchvision.datasets.FashionMNIST``：格式和数目同 MNIST，图是十类衣物。

    参数、返回值和错误同 ``mnist``；四个文件的名字也相同，放在 ``FashionMNIST/raw/``。
    """
    return _from_gz("FashionMNIST", folder, train, transform, mirrors)


def cifar10(
    folder: Folder = None, train: bool = True, transform: Transform = None, mirrors: Mirrors = ()
) -> Any:
    """``torchvision.datasets.CIFAR10``：50000（训练）或 10000（测试）张 32×32 彩色照片，十类。

    参数和错误同 ``mnist``；要的是一个 ``cifar-10-python.tar.gz``，只从里面取那七个文件，放在
    ``cifar-10-batches-py/``，每个都核对 md5。

    Returns:
        样本是 ``(图, 类别编号)``；``.data`` 是 NumPy 数组，形状 ``(n, 32, 32, 3)``，``uint8``，
        ``.targets`` 是整数的列表。
    """
    kind = _datasets().CIFAR10
    root = data_folder() if folder is None else Path(folder)
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    wanted = {f"{kind.base_folder}/{name}": md5 for name, md5 in listed}
    if not all(matches(root / name, f"md5:{md5}", _MOST_BYTES) for name, md5 in wanted.items()):
        urls = [*_inside(mirrors, kind.filename), kind.url]
        digest = f"md5:{kind.tgz_md5}"
        archive = download(kind.filename, urls, digest, root, max_bytes=_MOST_BYTES)
        for name, content in _members(archive, wanted).items():
            _put(root / name, content)
    return kind(root, train=train, transform=transform)


def _from_gz(name: str, folder: Folder, train: bool, transform: Transform, mirrors: Mirrors) -> Any:
    kind = getattr(_datasets(), name)
    root = data_folder() if folder is None else Path(folder)
    if any((old := root / name / "processed").glob("*.pt")):
        raise DataError(f"{old} 是旧版 torchvision 存的，会先被读到，却没法核对。请把它移走。")
    counts: dict[str, int] = {}
    for file, md5 in kind.resources:
        place = f"{name}/raw/{file}"  # 两个数据集的文件同名，靠文件夹分开
        urls = _inside([*mirrors, *kind.mirrors], file)
        archive = download(place, urls, f"md5:{md5}", root, max_bytes=_MOST_BYTES)
        content = _unzipped(archive)
        count = _samples(content, (28, 28) if "images" in file else ())
        if count == 0 or count != counts.setdefault(file.split("-")[0], count):
            rule = "idx 格式的 28×28 的图或 0–9 的标签，图和标签一样多"
            raise DataError(f"{archive} 应是{rule}，实际不是。换一个来源。")
        _put((root / place).with_suffix(""), content)
    return kind(root, train=train, transform=transform)


def _samples(content: bytes, shape: tuple[int, ...]) -> int:
    """idx 文件里有几个形状是 ``shape`` 的样本；格式、长度、标签有一样不对，是 0。"""
    count = int.from_bytes(content[4:8], "big")
    head = struct.pack(f">4B{1 + len(shape)}I", 0, 0, 8, 1 + len(shape), count, *shape)
    good = content.startswith(head) and len(content) == len(head) + count * math.prod(shape)
    return count if good and (shape or max(content[8:], default=0) < 10) else 0


def _unzipped(archive: Path) -> bytes:
    """解开的内容；压缩包可以解出几百倍，所以至多 ``_MOST_BYTES``。"""
    try:
        with gzip.open(archive) as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{archive} 应是 gzip 压缩的，实际：{error}。换一个来源。") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{archive} 解开应至多 {_MOST_BYTES} 字节，实际还要多。换一个来源。")
    return content


def _members(archive: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    """tar 包里名字和 md5 都在 ``wanted`` 里的普通文件；别的条目都不碰。"""
    packed = io.BytesIO(_unzipped(archive))
    found = {}
    with suppress(Exception), tarfile.open(fileobj=packed, mode="r:") as tar:  # 坏包什么错都有
        for member in islice(tar, 100):  # 坏包可以没有尽头
            if member.name in wanted and member.isreg() and not member.issparse():
                content = cast(IO[bytes], tar.extractfile(member)).read()
                if _md5(content) == wanted[member.name]:
                    found[member.name] = content
    if lost := "、".join(wanted.keys() - found.keys()):
        raise DataError(f"{archive} 里应有 {lost}，实际没有，或内容不对。换一个来源。")
    return found


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _put(path: Path, content: bytes) -> None:
    """``path`` 的内容成为 ``content``；本来就是，就不写：文件夹可以是只读的。"""
    if not matches(path, f"md5:{_md5(content)}", len(content)):
        with turn_to_write(path), replacing(path) as fresh, fresh.open("xb") as file:
            file.write(content)


def _datasets() -> Any:
    try:
        return importlib.import_module("torchvision.datasets")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "读这些数据集要用 torchvision，这里没有装。请先 pip install torchvision。"
        ) from error


def _inside(bases: Sequence[str], name: str) -> list[str]:
    return [f"{str(base).rstrip('/')}/{name}" for base in bases]
