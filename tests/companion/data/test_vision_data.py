"""真的服务器连不上：这里是格式相同的小文件，放在本机的服务器上，核对一步也不少。"""

import gzip
import hashlib
import io
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
from companion.data._download import alone
from companion.errors import DataError, DownloadError
from tests.companion.data.loopback import Site, cut, serve, wait_until

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
    assert {path.split("/")[1] for path, _ in site.requests} == {"near"}


def test_a_mirror_without_the_files_is_followed_by_those_of_torchvision(site, idx_files, tmp_path):
    assert len(mnist(tmp_path, mirrors=[f"{site.url}/nothing/"])) == 5


def test_an_archive_with_another_md5_is_not_unpacked(site, idx_files, tmp_path):
    site.files["/MNIST/train-images-idx3-ubyte.gz"] = idx(np.zeros((5, 28, 28), np.uint8))
    with pytest.raises(DownloadError, match="内容不对"):
        mnist(tmp_path)
    assert list(tmp_path.rglob("*ubyte")) == []


def test_an_archive_cut_half_way_is_completed(site, idx_files, tmp_path):
    site.script = [cut(100)]
    data = mnist(tmp_path, mirrors=[f"{site.url}/MNIST"])
    assert torch.equal(data.data, idx_files["MNIST", "train-images-idx3-ubyte.gz"])
    assert site.requests[1][1] == "bytes=100-"


def test_a_truncated_unpacked_file_is_unpacked_again(site, idx_files, tmp_path):
    mnist(tmp_path)
    unpacked = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    unpacked.write_bytes(unpacked.read_bytes()[:100])
    site.requests.clear()
    assert torch.equal(mnist(tmp_path).data, idx_files["MNIST", "train-images-idx3-ubyte.gz"])
    assert site.requests == []


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


@pytest.mark.parametrize(
    "extra",
    [{"../evil": b"evil"}, {"a/../../evil": b"evil"}, {"link": "../..", "link/evil": b"evil"}],
    ids=["parent", "nested", "link"],
)
def test_an_archive_that_writes_outside_its_folder_is_refused(publish, files, tmp_path, extra):
    publish(files, extra)
    with pytest.raises(DataError, match="只在自己文件夹里写东西"):
        cifar10(tmp_path / "data")
    names = [path.name for path in tmp_path.rglob("*") if not path.name.endswith(".lock")]
    assert sorted(names) == ["cifar-10-python.tar.gz", "data"]


def test_a_python_that_cannot_check_an_archive_does_not_unpack_it(archive, tmp_path, monkeypatch):
    monkeypatch.delattr(vision.tarfile, "data_filter")
    with pytest.raises(DataError, match=r"Python 3\.11\.4"):
        cifar10(tmp_path)
    assert not (tmp_path / "cifar-10-batches-py").exists()


def test_an_archive_without_the_folder_is_refused(publish, files, site, monkeypatch, tmp_path):
    publish(files)
    site.files["/cifar.tar.gz"] = tar({"readme": b"-"})
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(site.files["/cifar.tar.gz"]))
    with pytest.raises(DataError, match="应有文件夹 cifar-10-batches-py"):
        cifar10(tmp_path)


def test_two_threads_that_want_the_photos_download_and_unpack_them_once(
    site, archive, tmp_path, monkeypatch
):
    unpacked = []
    extract = vision._extract_tar
    monkeypatch.setattr(
        vision, "_extract_tar", lambda *paths: (unpacked.append(paths), extract(*paths))
    )
    loaded = []
    threads = [threading.Thread(target=lambda: loaded.append(cifar10(tmp_path))) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(data) for data in loaded] == [20, 20, 20]
    assert len(unpacked) == 1
    assert len(site.requests) == 1


def test_who_had_to_wait_does_not_unpack_what_another_has_just_unpacked(tmp_path, capsys):
    ready = threading.Event()
    arguments = (tmp_path / "x", ready.is_set, lambda: pytest.fail("解了第二次"))
    waiter = threading.Thread(target=vision._unpack, args=arguments)
    with alone(tmp_path / "x"):
        waiter.start()
        wait_until(lambda: "等它结束" in capsys.readouterr().out)
        ready.set()
    waiter.join()


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
