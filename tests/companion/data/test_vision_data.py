"""真的服务器连不上：这里是格式相同的小文件，放在本机的服务器上，核对一步也不少。"""

import gzip
import hashlib
import io
import os
import pickle
import struct
import sys
import tarfile
import threading
from typing import ClassVar

import numpy as np
import pytest
import torch

from companion.data import _vision as vision
from companion.data import cifar10, fashion_mnist, mnist
from companion.errors import ArgumentError, DataError, DownloadError
from tests.companion.data.loopback import Site, cut, serve

datasets = pytest.importorskip("torchvision.datasets")
BOTH = pytest.mark.parametrize(
    ("load", "name"), [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")]
)


@pytest.fixture
def site(monkeypatch):
    for name in ("COMPANION_DATA", "COMPANION_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(Site()) as site:
        yield site


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx(array):
    """MNIST 的 idx 格式：类型和维数、每维的长度（大端），然后是数据；再用 gzip 压缩。"""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


@pytest.fixture
def idx_files(site, monkeypatch):
    """网站上有两套小的 idx 文件，torchvision 的表指着它们；返回写进去的图和标签。"""
    written = {}
    for seed, name in enumerate(["MNIST", "FashionMNIST"]):
        random = np.random.default_rng(seed)
        kind = getattr(datasets, name)
        resources = []
        for file, _ in kind.resources:
            shape = (5, 28, 28) if "images" in file else (5,)
            array = random.integers(0, 256 if "images" in file else 10, shape, np.uint8)
            content = idx(array)
            site.files[f"/{name}/{file}"] = content
            resources.append((file, md5(content)))
            written[name, file] = torch.from_numpy(array)
        monkeypatch.setattr(kind, "resources", resources)
        monkeypatch.setattr(kind, "mirrors", [f"{site.url}/{name}/"])
    return written


# MNIST 与 Fashion-MNIST


@BOTH
@pytest.mark.parametrize(("train", "prefix"), [(True, "train"), (False, "t10k")])
def test_the_loaded_images_and_labels_are_the_written_ones(
    idx_files, tmp_path, load, name, train, prefix
):
    data = load(tmp_path, train=train)
    assert type(data) is getattr(datasets, name)
    assert torch.equal(data.data, idx_files[name, f"{prefix}-images-idx3-ubyte.gz"])
    assert torch.equal(data.targets, idx_files[name, f"{prefix}-labels-idx1-ubyte.gz"].long())
    image, label = data[3]
    assert np.array_equal(np.asarray(image), data.data[3])
    assert label == data.targets[3]


def test_the_transform_is_applied_to_each_image(idx_files, tmp_path):
    data = mnist(tmp_path, transform=lambda image: image.size)
    assert data[0][0] == (28, 28)


@BOTH
def test_a_second_load_needs_no_network_and_writes_nothing(site, idx_files, tmp_path, load, name):
    load(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    site.requests.clear()
    load(tmp_path, train=False)
    assert site.requests == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_files_that_torchvision_downloaded_are_used_as_they_are(site, idx_files, tmp_path):
    datasets.MNIST(tmp_path, download=True)
    site.requests.clear()
    assert len(mnist(tmp_path)) == 5
    assert site.requests == []


def test_both_data_sets_live_in_one_folder_although_their_files_have_the_same_names(
    idx_files, tmp_path
):
    assert not torch.equal(mnist(tmp_path).data, fashion_mnist(tmp_path).data)
    assert torch.equal(mnist(tmp_path).data, idx_files["MNIST", "train-images-idx3-ubyte.gz"])


def test_the_mirrors_of_the_reader_come_before_those_of_torchvision(site, idx_files, tmp_path):
    site.files |= {
        path.replace("/MNIST", "/near"): body
        for path, body in site.files.items()
        if path.startswith("/MNIST")
    }
    mnist(tmp_path, mirrors=[f"{site.url}/near"])
    assert {path.split("/")[1] for path in site.requests} == {"near"}


def test_a_mirror_without_the_files_is_followed_by_those_of_torchvision(site, idx_files, tmp_path):
    assert len(mnist(tmp_path, mirrors=[f"{site.url}/nothing/"])) == 5


def test_an_archive_with_another_md5_is_not_unpacked(site, idx_files, tmp_path):
    site.files["/MNIST/train-images-idx3-ubyte.gz"] = idx(np.zeros((5, 28, 28), np.uint8))
    with pytest.raises(DownloadError, match="内容不对"):
        mnist(tmp_path)
    assert list(tmp_path.rglob("*ubyte")) == []


def test_an_archive_cut_half_way_is_asked_for_again(site, idx_files, tmp_path):
    site.script = [cut(100)]
    data = mnist(tmp_path, mirrors=[f"{site.url}/MNIST"])
    assert torch.equal(data.data, idx_files["MNIST", "train-images-idx3-ubyte.gz"])


def damage_by_cutting(path):
    path.write_bytes(path.read_bytes()[:100])


def damage_by_one_byte(path):
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


def replace_by_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = [damage_by_cutting, damage_by_one_byte]
DAMAGES += [replace_by_a_pipe] if hasattr(os, "mkfifo") else []


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unpacked_file_that_is_not_what_the_archive_holds_is_unpacked_again(
    site, idx_files, tmp_path, damage
):
    mnist(tmp_path)
    damage(tmp_path / "MNIST/raw/train-images-idx3-ubyte")
    site.requests.clear()
    assert torch.equal(mnist(tmp_path).data, idx_files["MNIST", "train-images-idx3-ubyte.gz"])
    assert site.requests == []


def test_an_unpacked_file_that_is_a_link_is_not_written_through(site, idx_files, tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").symlink_to(tmp_path / "precious")
    assert len(mnist(tmp_path)) == 5
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_folder_in_place_of_an_unpacked_file_is_reported(site, idx_files, tmp_path):
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").mkdir(parents=True)
    with pytest.raises(DownloadError, match="写不进去"):
        mnist(tmp_path)


IMAGES = np.zeros((5, 28, 28), np.uint8)
LABELS = np.zeros(5, np.uint8)
TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (TRAIN[1], idx(LABELS[:2])),
        (TRAIN[1], idx(LABELS + 10)),
        (TRAIN[1], idx(IMAGES)),
        (TRAIN[1], idx(LABELS[:0])),
        (TRAIN[0], idx(IMAGES[:4])),
        (TRAIN[0], idx(IMAGES[:0])),
        (TRAIN[0], idx(IMAGES[:, :14])),
        (TRAIN[0], idx(LABELS)),
        (TRAIN[0], gzip.compress(gzip.decompress(idx(IMAGES)) + b"x")),
        (TRAIN[0], gzip.compress(gzip.decompress(idx(IMAGES))[:-1])),
        (TRAIN[0], gzip.compress(b"\0\0\x0d" + gzip.decompress(idx(IMAGES))[3:])),
        (TRAIN[0], gzip.compress(b"")),
        (TRAIN[0], gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12)),
        (TRAIN[0], b"not gzip"),
        (TRAIN[0], idx(IMAGES)[:-9]),
        (TRAIN[0], idx(IMAGES)[:12] + b"\xff" * 40),
    ],
    ids=range(16),
)
def test_files_that_do_not_hold_the_images_and_labels_are_refused(
    site, idx_files, tmp_path, monkeypatch, file, content
):
    site.files[f"/MNIST/{file}"] = content
    digests = dict(datasets.MNIST.resources) | {file: md5(content)}
    monkeypatch.setattr(datasets.MNIST, "resources", list(digests.items()))
    with pytest.raises(DataError, match="换一个来源"):
        mnist(tmp_path)


@BOTH
def test_an_archive_that_unpacks_to_far_too_much_is_refused(
    site, idx_files, tmp_path, monkeypatch, load, name
):
    file, _ = getattr(datasets, name).resources[0]
    bomb = gzip.compress(bytes(20_000))
    site.files[f"/{name}/{file}"] = bomb
    monkeypatch.setattr(getattr(datasets, name), "resources", [(file, md5(bomb))])
    monkeypatch.setattr(vision, "MOST_BYTES", 10_000)
    with pytest.raises(DataError, match="至多 10000 字节"):
        load(tmp_path)


@pytest.mark.parametrize("mirrors", [[5], ["ftp://127.0.0.1"], ["x\0"]])
def test_mirrors_that_are_no_addresses_are_refused(idx_files, tmp_path, mirrors):
    for load in (mnist, fashion_mnist, cifar10):
        with pytest.raises(ArgumentError, match="urls 应为一列"):
            load(tmp_path, mirrors=mirrors)


@pytest.mark.parametrize("mirrors", [5, None, "http://127.0.0.1/", b"x", {"http://127.0.0.1/"}])
def test_mirrors_that_are_no_list_are_refused(idx_files, tmp_path, mirrors):
    for load in (mnist, fashion_mnist, cifar10):
        with pytest.raises(ArgumentError, match="mirrors 应为一列地址"):
            load(tmp_path, mirrors=mirrors)


def test_a_folder_that_is_no_path_is_refused(idx_files):
    for load in (mnist, fashion_mnist, cifar10):
        with pytest.raises(ArgumentError, match="文件夹应为路径"):
            load(5)


def test_the_data_folder_of_another_machine_serves_as_the_offline_folder(
    site, idx_files, tmp_path, monkeypatch
):
    mnist(tmp_path / "there")
    fashion_mnist(tmp_path / "there")
    site.requests.clear()
    monkeypatch.setenv("COMPANION_OFFLINE", str(tmp_path / "there"))
    for load, name in [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")]:
        data = load(tmp_path / "here")
        assert torch.equal(data.data, idx_files[name, "train-images-idx3-ubyte.gz"])
    assert site.requests == []


def test_the_default_folder_is_the_data_folder(idx_files, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    assert len(mnist()) == 5
    assert (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").exists()


# CIFAR-10


def tar(members):
    """内容表打成的 ``tar.gz``；内容是字符串的，是指向那里的符号链接。"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname, content = tarfile.SYMTYPE, content, b""
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Python2Pickler(pickle._Pickler):
    """写得与 Python 2 一样：真的 CIFAR-10 是它写的，字节串是那时的 str。"""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        short = len(text) < 256
        head = b"U" + struct.pack("B", len(text)) if short else b"T" + struct.pack("<i", len(text))
        self.write(head + text)
        self.memoize(text)

    dispatch[bytes] = save_str


def python2_pickle(value):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")  # 那时的模块名


@pytest.fixture
def batches():
    """六个批，每批四张图，键和类型与真的一样。"""
    random = np.random.default_rng(0)
    kind = datasets.CIFAR10
    return {
        name: {
            b"batch_label": b"small",
            b"labels": random.integers(0, 10, 4).tolist(),
            b"data": random.integers(0, 256, (4, 3072), np.uint8),
            b"filenames": [b"x.png"] * 4,
        }
        for name, _ in kind.train_list + kind.test_list
    }


@pytest.fixture
def publish(site, monkeypatch):
    """``publish(files)``：打包放上网站，torchvision 的表指着它，md5 都换成小文件的。"""
    kind = datasets.CIFAR10

    def publish(files, extra=()):
        folder = kind.base_folder
        packed = tar({f"{folder}/{name}": body for name, body in files.items()} | dict(extra))
        site.files["/cifar.tar.gz"] = packed
        monkeypatch.setattr(kind, "url", f"{site.url}/cifar.tar.gz")
        monkeypatch.setattr(kind, "tgz_md5", md5(packed))
        for table in ("train_list", "test_list"):
            names = [name for name, _ in getattr(kind, table)]
            monkeypatch.setattr(kind, table, [[name, md5(files[name])] for name in names])
        meta = kind.meta | {"md5": md5(files[kind.meta["filename"]])}
        monkeypatch.setattr(kind, "meta", meta)

    return publish


@pytest.fixture
def files(batches):
    packed = {name: python2_pickle(batch) for name, batch in batches.items()}
    names = [b"airplane", *[b"class %d" % i for i in range(1, 10)]]
    return packed | {"batches.meta": python2_pickle({b"label_names": names})}


@pytest.fixture
def archive(publish, files):
    publish(files)


def pixels(batches, names):
    return np.concatenate([batches[name][b"data"] for name in names])


@pytest.mark.parametrize("train", [True, False])
def test_the_loaded_photos_are_the_written_ones(archive, batches, tmp_path, train):
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    data = cifar10(tmp_path, train=train)
    assert type(data) is datasets.CIFAR10
    expected = pixels(batches, names).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert np.array_equal(data.data, expected)
    assert data.classes[:2] == ["airplane", "class 1"]
    assert data.targets == [label for name in names for label in batches[name][b"labels"]]


def test_a_second_load_of_the_photos_needs_no_network(site, archive, tmp_path):
    cifar10(tmp_path)
    site.requests.clear()
    cifar10(tmp_path, train=False)
    assert site.requests == []


def test_the_folder_alone_is_enough_without_the_archive(site, archive, tmp_path):
    cifar10(tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").unlink()
    site.requests.clear()
    assert len(cifar10(tmp_path)) == 20
    assert site.requests == []


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"x"), lambda path: path.unlink()]
)
def test_a_damaged_batch_is_unpacked_again_from_the_archive(site, archive, tmp_path, damage):
    whole = cifar10(tmp_path).data
    damage(tmp_path / "cifar-10-batches-py/data_batch_3")
    site.requests.clear()
    assert np.array_equal(cifar10(tmp_path).data, whole)
    assert site.requests == []
    visible = sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock"))
    assert visible == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_the_mirrors_of_the_reader_hold_the_archive_under_its_own_name(site, archive, tmp_path):
    site.files["/near/cifar-10-python.tar.gz"] = site.files.pop("/cifar.tar.gz")
    assert len(cifar10(tmp_path, mirrors=[f"{site.url}/near"])) == 20


LONG = "/".join(["d" * 100] * 10)  # 很长的链接链，骗得过 3.11 的 filter="data"


@pytest.mark.parametrize(
    "extra",
    [
        {"../evil": b"evil"},
        {"/tmp/evil-companion": b"evil"},
        {"a/../../evil": b"evil"},
        {"link": "../..", "link/evil": b"evil"},
        {"cifar-10-batches-py/../../evil": b"evil"},
        {"cifar-10-batches-py": "../..", "cifar-10-batches-py/evil": b"evil"},
        {LONG: "../" * 10, f"{LONG}/../../evil": b"evil"},
        {"cifar-10-batches-py/readme.html": b"-", "cifar-10-batches-py/evil": "/etc/passwd"},
    ],
    ids=["parent", "absolute", "nested", "link", "inside", "folder as link", "long", "more"],
)
def test_nothing_but_the_known_files_leaves_the_archive(publish, files, batches, tmp_path, extra):
    publish(files, extra)
    assert len(cifar10(tmp_path / "data")) == 20
    known = {f"data/cifar-10-batches-py/{name}" for name in [*batches, "batches.meta"]}
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    kept = {path for path in found if not path.endswith(".lock")}
    assert kept == known | {"data/cifar-10-python.tar.gz"}
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]
    assert not os.path.lexists("/tmp/evil-companion")


def replace_archive(site, monkeypatch, content):
    site.files["/cifar.tar.gz"] = content
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(content))


def bad_tar(kind):
    """一个包，里面那个已知的名字不是普通文件，或者大小是假的。"""
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.type, info.linkname = kind, "/etc/passwd"
    return gzip.compress(info.tobuf() + b"\0" * 1024)


def lying_size(size):
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.size = size
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) * 3 + b"\0" * 1024)


@pytest.mark.parametrize(
    "content",
    [
        *map(bad_tar, (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)),
        *map(bad_tar, (tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE)),
        *map(lying_size, (1 << 40, -512, -1024)),
        tar({"readme": b"-"}),
        tar({"cifar-10-batches-py/data_batch_1": b"wrong"}),
        tar({f"cifar-10-batches-py/{i}": b"" for i in range(5000)}),
        gzip.compress(b"x" * 5000),
        gzip.compress(b""),
        b"not gzip",
        tar({"a": b"-" * 5000})[:-30],
    ],
    ids=range(17),
)
def test_an_archive_without_the_files_is_refused_and_leaves_nothing(
    archive, site, monkeypatch, tmp_path, content
):
    replace_archive(site, monkeypatch, content)
    with pytest.raises(DataError, match="换一个来源"):
        cifar10(tmp_path)
    assert not (tmp_path / "cifar-10-batches-py").exists()


def test_a_packed_bomb_is_not_unpacked_whole(archive, site, tmp_path, monkeypatch):
    replace_archive(site, monkeypatch, gzip.compress(bytes(200_000)))
    monkeypatch.setattr(vision, "MOST_BYTES", 100_000)
    with pytest.raises(DataError, match="至多 100000 字节"):
        cifar10(tmp_path)


def test_two_threads_that_want_the_photos_download_them_once(site, archive, tmp_path):
    loaded = []
    threads = [threading.Thread(target=lambda: loaded.append(cifar10(tmp_path))) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(data) for data in loaded] == [20, 20, 20]
    assert len(site.requests) == 1


# 与 torchvision 的关系


def test_the_tables_of_torchvision_are_complete():
    for kind in (datasets.MNIST, datasets.FashionMNIST):
        assert len(kind.resources) == 4
        assert all(len(digest) == 32 for _, digest in kind.resources)
        assert all(mirror.startswith("http") for mirror in kind.mirrors)
    assert len(datasets.CIFAR10.tgz_md5) == 32
    assert datasets.CIFAR10.url.endswith(datasets.CIFAR10.filename)


def test_without_torchvision_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install torchvision"):
        mnist(tmp_path)
