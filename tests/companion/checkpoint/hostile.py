"""伪造存档要用的：重新封好的清单，手写的 pickle 和 zip，进程里的类和函数的一张快照。"""

import hashlib
import inspect
import json
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

from companion.checkpoint import _archive, _chunks, _dcp
from companion.checkpoint._manifest import _seal


def write_sealed(save, content):
    """任意内容的清单，末行的 sha256 是对的。"""
    body = json.dumps(content, indent=1).removesuffix("\n}").encode()
    (save / "manifest.json").write_bytes(_seal(body))


def reseal(save, change=lambda content: None):
    """照文件现在的样子重写清单，改一改，再封好。"""
    content = json.loads((save / "manifest.json").read_bytes())
    content.pop("sha256")
    content["files"] = {}
    for path in sorted(save.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != "manifest.json":
            raw = path.read_bytes()
            record = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
            content["files"][path.relative_to(save).as_posix()] = record
    change(content)
    write_sealed(save, content)


def write_zip(path, pickled, records=(b"\0" * 16,), method=zipfile.ZIP_STORED):
    """``torch.save`` 的格式，``data.pkl`` 是 ``pickled``，存储是 ``records``。"""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
        for i, record in enumerate(records):
            archive.writestr(f"archive/data/{i}", record)


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + len(raw).to_bytes(4, "little") + raw


def number(value):
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


def name(full):
    module, _, last = full.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def storage(dtype="FloatStorage", key="0", count=4):
    return (
        b"(" + text("storage") + name(f"torch.{dtype}") + text(key) + text("cpu")
        + number(count) + b"tQ"
    )  # fmt: skip


def tensor(size, stride, offset=0, store=None, maker="torch._utils._rebuild_tensor_v2"):
    return (
        name(maker) + b"(" + (store or storage()) + number(offset) + numbers(*size)
        + numbers(*stride) + b"\x89" + name("collections.OrderedDict") + b")RtR"
    )  # fmt: skip


def state(value):
    """``{"w": value}`` 的 pickle。"""
    return b"\x80\x02}" + text("w") + value + b"s."


def named():
    """恶意的 pickle 点得到名的类和函数，和我们读它用的类。"""
    from torch.distributed.checkpoint import filesystem, metadata

    modules = (torch._utils, torch.serialization, torch, filesystem, metadata)
    modules += (_archive, _chunks, _dcp)
    members = [
        *(vars(metadata)[name] for name in metadata.__all__),
        *(metadata._MEM_FORMAT_ENCODING, filesystem._StorageInfo, filesystem.FileSystemReader),
        *(torch.serialization._get_layout, torch._utils._rebuild_tensor_v2),
        *(torch.Tensor, torch.nn.Parameter, torch.UntypedStorage, torch.FloatStorage),
        *(OrderedDict, Path, type(Path()), hashlib.sha256, bytearray, dict, object),
        *(_archive._Thing, _archive._Machine, _chunks.Chunk, _chunks.Stored),
    ]
    return [*modules, *members]


def attributes():
    """``named()`` 的每一个，连同模块里的函数和类，各有哪些属性、各是哪个对象。"""
    found = {}
    for thing in named():
        inside = vars(thing).values() if inspect.ismodule(thing) else ()
        for each in (thing, *(x for x in inside if inspect.isclass(x) or inspect.isfunction(x))):
            if hasattr(each, "__dict__"):
                ignored = ("__warningregistry__", "__annotations_cache__")
                kept = {k: id(v) for k, v in vars(each).items() if k not in ignored}
                found[id(each)] = kept
    return found
