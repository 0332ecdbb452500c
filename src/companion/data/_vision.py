"""MNIST、Fashion-MNIST、CIFAR-10：下载、核对，交给 torchvision 去读。没有试过真的服务器。"""

import gzip
import hashlib
import importlib
import io
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from companion.data._download import MOST_BYTES, Folder, data_folder, download, fits, matches, store
from companion.errors import ArgumentError, DataError


def mnist(
    folder: Folder = None, train: bool = True, transform: Any = None, mirrors: Sequence[str] = ()
) -> Any:
    """``torchvision.datasets.MNIST``：60000（训练）或 10000（测试）张 28×28 手写数字。

    样本是 ``(图, 类别编号)``；``.data`` 形状 ``(n, 28, 28)``，``uint8``，``.targets`` 形状
    ``(n,)``，``int64``。错误同 ``download``；下载对了，里面却不是这个数据集，是 ``DataError``。

    Args:
        folder: 里面是 torchvision 的布局 ``MNIST/raw/``；``None`` 是 ``data_folder()``。
        train: 训练部分，还是测试部分；两部分总是一起下载。
        transform: 作用在每张 PIL 图上的函数，或 ``None``。
        mirrors: 先试的地址，每个都是装着那几个压缩包的文件夹，如 ``"https://…/mnist/"``。
    """
    return _from_gz("MNIST", folder, train, transform, mirrors)


def fashion_mnist(
    folder: Folder = None, train: bool = True, transform: Any = None, mirrors: Sequence[str] = ()
) -> Any:
    """``torchvision.datasets.FashionMNIST``：十类衣物的图，其余同 ``mnist``。"""
    return _from_gz("FashionMNIST", folder, train, transform, mirrors)


def cifar10(
    folder: Folder = None, train: bool = True, transform: Any = None, mirrors: Sequence[str] = ()
) -> Any:
    """``torchvision.datasets.CIFAR10``：50000（训练）或 10000（测试）张 32×32 彩色照片，十类。

    参数和错误同 ``mnist``。``.data`` 是 NumPy 数组，形状 ``(n, 32, 32, 3)``，``uint8``；
    ``.targets`` 是整数的列表。从压缩包里只取那七个文件，放在 ``cifar-10-batches-py/``。
    """
    kind, root = _datasets().CIFAR10, data_folder(folder)
    urls = [*_inside(mirrors, kind.filename), kind.url]
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    wanted = {f"{kind.base_folder}/{name}": md5 for name, md5 in listed}
    if not all(matches(root / name, f"md5:{md5}") for name, md5 in wanted.items()):
        archive = download(kind.filename, urls, f"md5:{kind.tgz_md5}", root)
        packed, found = io.BytesIO(_unzipped(archive)), {}
        with suppress(Exception), tarfile.open(fileobj=packed, mode="r:") as tar:
            for member in islice(tar, 100):  # 坏包可以没有尽头
                if member.name in wanted and member.isreg() and not member.issparse():
                    content = tar.extractfile(member).read()  # type: ignore[union-attr]
                    if fits(content, f"md5:{wanted[member.name]}"):
                        found[member.name] = content
        if lost := "、".join(wanted.keys() - found.keys()):
            raise DataError(f"{archive} 里应有 {lost}，实际没有，或内容不对。换一个来源。")
        for name, content in found.items():
            _put(root / name, content)
    return kind(root, train=train, transform=transform)


def _from_gz(name: str, folder: Folder, train: bool, transform: Any, mirrors: Sequence[str]) -> Any:
    kind, root = getattr(_datasets(), name), data_folder(folder)
    counts: dict[str, bytes] = {}
    for file, md5 in kind.resources:
        place = f"{name}/raw/{file}"  # 两个数据集的文件同名，靠文件夹分开
        urls = _inside(mirrors, file) + _inside(kind.mirrors, file)
        archive = download(place, urls, f"md5:{md5}", root)
        content = _unzipped(archive)
        n = counts.setdefault(file[:5], content[4:8])  # 同一部分的图和标签一样多
        images = "images" in file
        head = b"\0\0\x08\x03" + n + b"\0\0\0\x1c" * 2 if images else b"\0\0\x08\x01" + n
        size, body = int.from_bytes(n, "big") * (784 if images else 1), content[len(head) :]
        if not (content.startswith(head) and len(body) == size > 0 and (images or max(body) < 10)):
            raise DataError(f"{archive} 应是 idx 格式、一样多的图和标签，实际不是。换一个来源。")
        _put((root / place).with_suffix(""), content)
    return kind(root, train=train, transform=transform)


def _unzipped(archive: Path) -> bytes:
    """解开的内容；压缩包可以解出几百倍，所以至多 ``MOST_BYTES``。"""
    try:
        with gzip.open(archive) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise OSError(f"解开应至多 {MOST_BYTES} 字节")
    except Exception as error:  # 坏包什么错都有
        raise DataError(f"{archive} 解不开：{error}。换一个来源。") from error
    return content


def _put(path: Path, content: bytes) -> None:
    store(path, hashlib.sha256(content).hexdigest(), lambda: content)


def _datasets() -> Any:
    try:
        return importlib.import_module("torchvision.datasets")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("这要用 torchvision，请先 pip install torchvision。") from error


def _inside(bases: Sequence[str], name: str) -> list[str]:
    if not isinstance(bases, list | tuple):
        raise ArgumentError(f"mirrors 应为一列地址，实际是 {bases!r:.300}。只有一个也放进列表。")
    return [f"{str(base).rstrip('/')}/{name}" for base in bases]
