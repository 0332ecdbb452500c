"""MNIST、Fashion-MNIST、CIFAR-10：下载、核对、解开，再交给 torchvision 自己的类去读。

地址、文件名和 md5 都取自 torchvision 的类，这里一个也没有抄。做这本书的机器连不上那些服务器：
测试用的是格式相同的小文件和本机的服务器，真正的地址没有试过。连不上就用 ``mirrors`` 指别的
地址，或用环境变量 ``COMPANION_OFFLINE`` 指一个手工带来的文件夹（见 ``download.py``）。
"""

import gzip
import importlib
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from companion.data._download import alone, data_folder, download, matches
from companion.errors import DataError

Transform = Callable[[Any], Any] | None


def mnist(
    folder: str | Path | None = None,
    train: bool = True,
    transform: Transform = None,
    mirrors: Sequence[str] = (),
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
        DownloadError: 哪个地址都没有成功。
        ModuleNotFoundError: 没有装 torchvision。
    """
    return _from_gz("MNIST", folder, train, transform, mirrors)


def fashion_mnist(
    folder: str | Path | None = None,
    train: bool = True,
    transform: Transform = None,
    mirrors: Sequence[str] = (),
) -> Any:
    """``torchvision.datasets.FashionMNIST``：格式和数目同 MNIST，图是十类衣物。

    参数、返回值和错误同 ``mnist``；四个文件的名字也相同，放在 ``FashionMNIST/raw/``。
    """
    return _from_gz("FashionMNIST", folder, train, transform, mirrors)


def cifar10(
    folder: str | Path | None = None,
    train: bool = True,
    transform: Transform = None,
    mirrors: Sequence[str] = (),
) -> Any:
    """``torchvision.datasets.CIFAR10``：50000（训练）或 10000（测试）张 32×32 彩色照片，十类。

    参数和错误同 ``mnist``；要的是一个 ``cifar-10-python.tar.gz``，解开在
    ``cifar-10-batches-py/``，解开的每个文件也核对 md5。

    Returns:
        样本是 ``(图, 类别编号)``；``.data`` 是 NumPy 数组，形状 ``(n, 32, 32, 3)``，``uint8``，
        ``.targets`` 是整数的列表。

    Raises:
        DataError: 压缩包里有要写到文件夹外面的条目，或缺了文件。
    """
    kind = _datasets().CIFAR10
    root = _root(folder)
    batches = root / kind.base_folder

    def is_ready() -> bool:
        listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
        return all(matches(batches / name, f"md5:{md5}") for name, md5 in listed)

    if not is_ready():
        urls = [*_join(mirrors, kind.filename), kind.url]
        archive = download(kind.filename, urls, f"md5:{kind.tgz_md5}", root)
        _unpack(batches, is_ready, lambda: _extract_tar(archive, batches))
    return kind(root, train=train, transform=transform)


def _from_gz(
    name: str,
    folder: str | Path | None,
    train: bool,
    transform: Transform,
    mirrors: Sequence[str],
) -> Any:
    kind = getattr(_datasets(), name)
    root = _root(folder)
    for file, md5 in kind.resources:
        place = f"{name}/raw/{file}"  # 两个数据集的文件同名，靠文件夹分开
        archive = download(place, _join([*mirrors, *kind.mirrors], file), f"md5:{md5}", root)
        _extract_gz(archive, (root / place).with_suffix(""))
    return kind(root, train=train, transform=transform)


def _datasets() -> Any:
    try:
        return importlib.import_module("torchvision.datasets")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "读这些数据集要用 torchvision，这里没有装。请先 pip install torchvision。"
        ) from error


def _root(folder: str | Path | None) -> Path:
    return data_folder() if folder is None else Path(folder)


def _join(bases: Sequence[str], name: str) -> list[str]:
    return [f"{base.rstrip('/')}/{name}" for base in bases]


def _unpack(target: Path, is_ready: Callable[[], bool], unpack: Callable[[], None]) -> None:
    """``target`` 还没有解好就解；几个进程同时来，只有一个去解。"""
    if not is_ready():  # 解好了就不碰锁：文件夹可以是只读的
        with alone(target):
            if not is_ready():
                unpack()


def _extract_gz(archive: Path, target: Path) -> None:
    """把 ``archive`` 解成 ``target``；先解到旁边再改名，不会只解出一半。"""

    def is_ready() -> bool:
        with archive.open("rb") as file:
            file.seek(-4, 2)  # gzip 的最后 4 字节是解开后的长度
            size = int.from_bytes(file.read(), "little")
        return target.is_file() and target.stat().st_size == size

    def unpack() -> None:
        fresh = target.with_name(f".{target.name}.part")
        with gzip.open(archive) as packed, fresh.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        fresh.replace(target)

    _unpack(target, is_ready, unpack)


def _extract_tar(archive: Path, target: Path) -> None:
    """把 ``archive`` 里的文件夹 ``target.name`` 放到 ``target``，坏的旧文件夹这时才换掉。"""
    if not hasattr(tarfile, "data_filter"):
        raise DataError(
            "解开 tar 要用 Python 3.11.4 起才有的检查，实际的更旧，它拦不住写到文件夹外面的包。"
            "请升级 Python 的小版本。"
        )
    fresh = target.with_name(f".{target.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)  # 上一次解到一半留下的
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(fresh, filter="data")
        if not (fresh / target.name).is_dir():
            raise DataError(f"{archive} 里应有文件夹 {target.name}，实际没有。换一个来源重新下载。")
        if target.exists():
            target.rename(fresh / "old")
        (fresh / target.name).rename(target)
    except tarfile.TarError as error:
        raise DataError(
            f"{archive} 应是只在自己文件夹里写东西的 tar，实际是：{error}。不要用它，换一个来源。"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
