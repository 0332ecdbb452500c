"""读 ``torch.save`` 写的文件：先看里面有没有不该有的，再交给 ``torch.load``，读完再核对。

``weights_only=True`` 不执行文件里的代码，却挡不住小文件占满内存，或者要算很久。所以 zip 不许压缩；
pickle 先空走一遍，只许有存普通值时用的指令和函数，什么也不造。占用的内存以文件的大小为限。
"""

import pickletools
import struct
import zipfile
from itertools import pairwise
from math import prod
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from companion.checkpoint._values import SCALARS, SPARE, is_shape, is_simple_key

_MOST = 256 << 20  # pickle 至多这么多字节；张量不在里面
_DEEPEST = 100  # 字典、列表、元组至多套这么多层
_HEADER = struct.Struct("<4s22xHH")  # zip 里每个文件前面的一小段
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "REDUCE": 2}
_TAKEN |= {"TUPLE": 0, "APPENDS": 0, "SETITEMS": 0, "BINPERSID": 1}  # 从栈上拿几个；0 是到记号


class _Thing(NamedTuple):
    """不是数也不是字符串的东西，只记下种类；张量和存储还有几个数。"""

    kind: str
    numel: int = 0


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONSTANTS |= {"EMPTY_LIST": _Thing("list"), "EMPTY_DICT": _Thing("dict")}


def read_archive(file: BinaryIO) -> Any:
    """``torch.save`` 写进 ``file`` 的值；张量都在 CPU 上，步长和共享关系同存的时候。

    Raises:
        Exception: ``file`` 不是这样的文件，或者里面有别的东西；什么错都会有。
    """
    size = _check_zip(file)
    file.seek(0)
    pickled = torch._C.PyTorchFileReader(file).get_record("data.pkl")  # 正是 torch.load 要读的
    machine = _Machine(len(pickled), size)
    for opcode, given, _ in pickletools.genops(pickled):
        machine.step(opcode.name, given)
    file.seek(0)
    with torch.serialization.safe_globals([(_empty_bytes, "builtins.bytes")]):
        value = torch.load(file, map_location="cpu", weights_only=True)
    _check_plain(value)
    return value


def _empty_bytes() -> bytes:
    return b""  # torch.save 写 b"" 是不带参数地调用 bytes；带参数的就会出错


def _check_zip(file: BinaryIO) -> int:
    """``file`` 的字节数；它是 zip，里面的文件没有压缩，互不重叠，名字没有歧义。"""
    with zipfile.ZipFile(file) as archive:
        infos, directory = archive.infolist(), archive.start_dir
    spans = []
    for info in infos:
        file.seek(info.header_offset)
        signature, name_bytes, extra_bytes = _HEADER.unpack(file.read(_HEADER.size))
        stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        if signature != b"PK\3\4" or not stored or info.file_size != info.compress_size:
            raise ValueError(f"zip 里的 {info.filename} 应没有压缩，也没有加密")
        start = info.header_offset + _HEADER.size + name_bytes + extra_bytes
        spans.append((start, start + info.file_size))
        if info.filename.endswith("/data.pkl") and info.file_size > _MOST:
            raise ValueError(f"data.pkl 应不超过 {_MOST} 字节，实际更大")
    names = {info.orig_filename.lower() for info in infos}
    if len(names) != len(infos) or not all(name.isascii() and "\0" not in name for name in names):
        raise ValueError("zip 里的文件应名字不同，都是 ASCII")
    if any(end > start for (_, end), (start, _) in pairwise([*sorted(spans), (directory, 0)])):
        raise ValueError("zip 里的文件应互不重叠，都在目录之前")
    return _check_tail(file, directory)


def _check_tail(file: BinaryIO, directory: int) -> int:
    """zip 末尾写的目录的位置就是 ``directory``，谁来读都是同一个；返回文件的字节数。"""
    size = file.seek(0, 2)
    file.seek(max(size - 98, 0))
    tail = file.read()
    agree = tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0"
    agree = agree and tail[-6:-2] == min(directory, 2**32 - 1).to_bytes(4, "little")
    if tail[-42:-38] == b"PK\6\7":  # zip64 的另有两段
        places = (directory.to_bytes(8, "little"), (size - 98).to_bytes(8, "little"))
        agree = agree and places == (tail[-50:-42], tail[-34:-26])
    if not agree:
        raise ValueError("zip 的目录应紧挨着末尾，只有一个")
    return size


class _Machine:
    """空走一遍 pickle 的指令，不是 ``torch.save`` 写普通值时的就出错；栈上只有数、字符串、元组和
    ``_Thing``。
    """

    def __init__(self, most_bytes: int, most_sparse: int) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._left = {"bytes": most_bytes, "sparse": most_sparse}

    def step(self, name: str, given: Any) -> None:
        if name in _LITERALS:
            self._stack.append(given)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name == "GLOBAL":
            self._stack.append(_Thing(given))
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[given] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            value = self._memo[given]
            if type(value) is tuple or value in _CONSTANTS.values():
                raise ValueError("同一个列表、元组或字典应只出现一次")
            self._stack.append(value)
        elif name in _TAKEN:
            self._take(name)
        elif name != "STOP" and (name, given) != ("PROTO", 2):
            raise ValueError(f"pickle 里有不该有的指令 {name}")

    def _take(self, name: str) -> None:
        start = len(self._stack) - _TAKEN[name] if _TAKEN[name] else self._marks.pop()
        if start < (self._marks[-1] if self._marks else 0):
            raise ValueError("pickle 的栈空了")
        items = self._stack[start:]
        del self._stack[start:]
        if name.startswith("TUPLE"):
            self._stack.append(tuple(items))
        elif name == "REDUCE":
            self._stack.append(self._call(*items))
        elif name == "BINPERSID":
            self._stack.append(_Thing("storage", items[0][-1]))
        elif name.startswith("SETITEM") and not all(map(is_simple_key, items[::2])):
            raise ValueError("键应是数、字符串，或至多 8 个它们的元组")

    def _call(self, function: _Thing, args: tuple[Any, ...]) -> _Thing:
        match function.kind, args:
            case (
                "torch._utils _rebuild_tensor_v2" | "torch._utils _rebuild_tensor_v3",
                (storage, _, size, _, False, _Thing("hooks"), *_),
            ) if is_shape(size) and prod(size) <= storage.numel + SPARE:
                return _Thing("tensor", prod(size))  # 一个数不许展开成很多
            case "torch._utils _rebuild_sparse_tensor", (_Thing("layout"), tuple(data)):
                return self._spend("sparse", sum(x.numel for x in data if type(x) is _Thing))
            case "_codecs encode", (str(text), "latin1"):
                return self._spend("bytes", len(text))
            case "__builtin__ complex", (float(), float()):
                return _Thing("complex")
            case ("__builtin__ bytes", ()):
                return _Thing("bytes")
            case "collections OrderedDict", ():
                return _Thing("hooks")  # 张量的钩子，从来没有
            case "torch.serialization _get_layout", (str(),):
                return _Thing("layout")
            case "torch Size", (tuple(size),) if is_shape(size):
                return _Thing("size")
        raise ValueError(f"pickle 里有不该有的 {function.kind}，或者它的参数不对")

    def _spend(self, kind: str, count: int) -> _Thing:
        """记下要造、要查多少；文件里的一份东西可以反复引用，加起来不能比文件大。"""
        self._left[kind] -= count
        if self._left[kind] < 0:
            raise ValueError("里面的东西加起来比文件大")
        return _Thing(kind)


def _check_plain(value: Any) -> None:
    """``value`` 里只有张量和普通的值，不太深；否则抛出 ``ValueError``。"""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if type(item) in SCALARS or (type(item) is Tensor and not item.is_quantized):
            continue
        if type(item) not in (dict, list, tuple) or depth > _DEEPEST:
            raise ValueError(f"里面有 {type(item).__name__}，或者套得太深")
        waiting += [(x, depth + 1) for x in (item.values() if type(item) is dict else item)]
