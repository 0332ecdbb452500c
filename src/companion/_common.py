"""几处都要用的小东西，各只有这一份：字的宽度，名字写错了的提示，换回原样，锁，整个换掉一个文件。"""

import difflib
import errno
import os
import platform
import random
import stat
import sys
import unicodedata
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from companion.errors import ArgumentError, printable
from companion.repro import random_state, restore_random_state

TEMPORARY = ".tmp-"  # 没写完的文件和目录，名字这样开头

_BUSY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_PIPE_GONE = {errno.EPIPE, errno.EINVAL}  # 后者是 Windows 的
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP}  # 有些网络文件系统不会给目录 fsync
_ASCII_MARKS = str.maketrans({"✓": "√", "✗": "×", "◌": "o", "━": "=", "─": "-", "…": "..."})
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FAR = 1 << 30  # Windows 上锁住的字节别人读不了，所以锁远处的一个，不锁写着进程号的


def width(text: str) -> int:
    """``text`` 在等宽字体里占几列：汉字和全角标点占两列。"""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def numbers(record: Mapping[str, Any]) -> str:
    """一行字：记录里的数（不含轮次和矩阵），4 位有效数字。"""
    shown = {k: v for k, v in record.items() if k != "epoch" and isinstance(v, int | float)}
    return "  ".join(f"{name} {value:<7.4g}" for name, value in shown.items()).rstrip()


def unknown_name(problem: str, wanted: str, known: Collection[str]) -> str:
    """没有叫 ``wanted`` 的：一句完整的话，列出相近的名字；一个相近的也没有，就列出全部。"""
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5) or sorted(known)
    return f"{problem}。相近的有：{'、'.join(near) or '（一个也没有）'}；请核对名字。"


def say(text: str, file: Any = None, *, flush: bool = False) -> None:
    """印一行，不安全的字符写成转义；印不了也不出错，见 ``emit``。"""
    emit(printable(text) + "\n", file, flush=flush)


def emit(text: str, file: Any = None, *, flush: bool = False) -> None:
    """原样写到 ``file``，默认是标准输出。

    给人看的字不该断送一次训练：没有标准输出、管道断了、磁盘满了，就当没有这一句；输出的编码里没有
    的字，``✓ ✗ ━`` 等换成 ASCII 的，别的写成转义。
    """
    stream = sys.stdout if file is None else file
    encoding = getattr(stream, "encoding", None) or "utf-8"
    ours = stream is sys.__stdout__
    try:
        stream.write(_encodable(text, encoding))
        if flush or ours:  # 不等攒够一块：日志里马上看得到，管道断了马上知道
            stream.flush()
    except OSError as error:
        if ours and error.errno in _PIPE_GONE:
            _write_nowhere(stream.fileno())
    except (ValueError, AttributeError):  # 关上的流是前者，None 是后者
        pass


def _write_nowhere(descriptor: int) -> None:
    """读的人走了（``| head -1``）：剩下的不要了；不然退出时 Python 还要再写一次，再报一次错。"""
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), descriptor)


def _encodable(text: str, encoding: str) -> str:
    for candidate in (text, text.translate(_ASCII_MARKS)):
        with suppress(UnicodeEncodeError):
            candidate.encode(encoding)
            return candidate
    return candidate.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """里面的模型在 eval 状态；离开时（出错也一样）每个模块都恢复原来的状态。"""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:  # 逐个恢复：有人会单独把某一层冻结在 eval
        for module, training in before:
            module.training = training


def train_mode(model: nn.Module) -> None:
    """切到 train 状态；有意留在 eval 的不动：参数全冻结的层，和单独 ``eval()`` 过的批归一化。

    整个模型都在 eval（刚预测完），看不出哪个批归一化是有意的，就只认冻结了的。
    """
    norms = nn.modules.batchnorm._NormBase
    kept: list[nn.Module] = []
    for module in model.modules():
        if not module.training and _is_frozen(module):
            kept += module.modules()
        elif not module.training and model.training and isinstance(module, norms):
            kept.append(module)
    model.train()
    for module in kept:
        module.training = False


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """里面随便抽随机数；离开时（出错也一样）全局的发生器回到进来时的那一刻。"""
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)


def random_position() -> tuple[Any, ...]:
    """三个全局发生器（CPU 上的）此刻在哪里；两次相等，就是中间谁也没有抽过。"""
    legacy: Any = np.random.get_state()
    torchs = torch.get_rng_state().numpy().tobytes()
    return torchs, legacy[1].tobytes(), legacy[2], random.getstate()


def same(one: Any, two: Any) -> bool:
    """两个值（张量、数组、图像、数，和它们的容器）逐个相同；不认得的类型算相同。"""
    if isinstance(one, Tensor | np.ndarray):
        return torch.equal(torch.as_tensor(one).nan_to_num(), torch.as_tensor(two).nan_to_num())
    if isinstance(one, dict):
        return all(same(value, two.get(key)) for key, value in one.items())
    if isinstance(one, list | tuple):
        return all(map(same, one, two))
    if hasattr(one, "tobytes"):  # 图像
        return bool(one.tobytes() == two.tobytes())
    return not isinstance(one, int | float | str | bytes) or one == two


def stored(tensor: Tensor) -> list[Tensor]:
    """装着 ``tensor`` 的普通张量：稀疏的是 ``[数值, 下标…]``，嵌套、切了片等的是里面的各个张量。"""
    if hasattr(tensor, "__tensor_flatten__"):  # 别的类包着几个普通张量，由它自己说是哪几个
        inside = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return [part for each in inside if isinstance(each, Tensor) for part in stored(each)]
    if tensor.is_nested:
        return [tensor.values()]
    if tensor.layout == torch.sparse_coo:
        return [tensor._values(), tensor._indices()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.values(), tensor.crow_indices(), tensor.col_indices()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.values(), tensor.ccol_indices(), tensor.row_indices()]
    return [tensor]


def overwrite(target: Tensor, source: Tensor) -> None:
    """什么也不返回：``source`` 的数写进 ``target``；``expand`` 出来的许多份是同一个，只写一份。"""
    plain = target.layout == torch.strided and not target.is_nested
    for dim, stride in enumerate(target.stride() if plain else ()):
        if stride == 0 and target.shape[dim] > 1:
            target, source = target.narrow(dim, 0, 1), source.narrow(dim, 0, 1)
    target.copy_(source)


def check_model(model: Any) -> None:
    """``model`` 是建好的模型就什么也不做。"""
    if isinstance(model, nn.Module):
        return
    name, way = type(model).__name__, "请给建好的模型。"
    if isinstance(model, type):
        name, way = f"类 {model.__name__}", "类要加括号建出来：Net()。"
    elif callable(model):
        way = "torch.compile 套两次得到的就是函数，请只套一次；自己写的函数请改写成 nn.Module。"
    raise ArgumentError(f"model 应是 nn.Module，实际是 {name}。{way}")


def unlike_numbers(value: Tensor, *, sparse: bool = False) -> str:
    """``value`` 不是有数值的稠密张量的话，是什么、该怎么改；是就是空串。``sparse``：稀疏的也行。"""
    if is_lazy(value):
        return "还没有形状，请先用一批数据走一遍前向"
    if value.is_nested:
        return "是嵌套的（nested），请先 to_padded_tensor()"
    if value.is_mkldnn:
        return "是 mkldnn 的，请先 to_dense()"
    if value.layout != torch.strided and not sparse:
        return "是稀疏的，请先 to_dense()"
    if value.is_meta:
        return "在 meta 上，没有数值，请先 to_empty() 再赋值"
    return ""


def misfit(ours: Tensor, theirs: Any) -> str:
    """``theirs`` 的数放不进 ``ours`` 的话，``theirs`` 是什么；放得进是空串。形状不看。

    放得进：浮点、整数、布尔、复数，稀不稀疏，量化没有，都相同；没有哪个数出了 ``ours`` 的范围。
    浮点数的舍入不算，``float64`` 放得进 ``float32``。
    """
    if not isinstance(theirs, Tensor):
        return type(theirs).__name__
    layout = "" if theirs.layout == torch.strided else f"、{theirs.layout}"
    found = f"{'meta 上的 ' if theirs.is_meta else ''}{theirs.dtype}{layout}"
    if theirs.is_meta or _kind(ours) != _kind(theirs):
        return found
    return "" if _in_range(stored(theirs)[0], ours.dtype) else f"{found}，有的数超出了范围"


def _kind(value: Tensor) -> tuple[Any, ...]:
    kinds = (value.is_floating_point(), value.is_complex(), value.dtype == torch.bool)
    return *kinds, value.layout, value.is_quantized and value.dtype


def _in_range(value: Tensor, dtype: torch.dtype) -> bool:
    """换成 ``dtype``，整数不变，浮点数差不到一半；比最小的正规数还小的，成了 0 也行。"""
    if value.dtype == dtype:
        return True
    try:
        new = value.detach().cpu().to(dtype)
    except NotImplementedError:  # float4 等还不会换
        return False
    wide = torch.complex128 if value.is_complex() else torch.float64
    close: dict[str, Any] = {"rtol": 0.0, "atol": 0.0}
    if value.is_complex() or value.is_floating_point():
        close = {"rtol": 0.5, "atol": torch.finfo(dtype).smallest_normal, "equal_nan": True}
    elif not torch.equal(new.to(value.dtype), value.cpu()):
        return False
    return bool(torch.isclose(new.to(wide), value.detach().cpu().to(wide), **close).all())


class FileLock:
    """``path`` 上的锁，同一时刻只有一个进程拿得到；进程怎么死，都由系统放开。

    用的是 POSIX 的记录锁，子进程不继承：主进程被 ``kill -9``，取数据的子进程还活着，也不占着它。
    同一个进程里不要锁两次：关上任何一个，两个就都放开了。锁文件用完不删：别人可能正等着它。
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """拿到了没有；拿到了，就把进程号和机器名写进锁文件，给等着的人看。"""
        with suppress(FileNotFoundError):
            found = self.path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                self.path.unlink()  # 别人放的链接、管道：写进去，就写到别处了
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o644)
        if not _try_lock(self._file):
            self.release()
            return False
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, f"{os.getpid()} {platform.node()}\n".encode())
        return True

    def owner(self) -> tuple[str, str]:
        """拿着它的进程：``(进程号, 机器名)``；在这台机器上，机器名是空串。"""
        pid, _, host = self.path.read_bytes()[:200].decode(errors="replace").strip().partition(" ")
        return pid or "（号码未知）", "" if host == platform.node() else host

    def release(self) -> None:
        """放开；没有拿着，就什么也不做。"""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self.release()


def _try_lock(file: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, _FAR, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # 别的错误是这个文件系统没有锁，那就没法防，照常往下做
        return error.errno not in _BUSY
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """给出旁边一个还不存在的临时路径；往那里写好文件，离开时它就整个换成 ``path``。

    任何时刻 ``path`` 要么是旧的，要么是新的；途中出错，旧的不动。
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            sync_file(file)
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_file(file: BinaryIO) -> None:
    """返回时，写进 ``file`` 的字节已经在磁盘上；只 ``write`` 的话，多半还在内存里。"""
    file.flush()
    os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """返回时，目录 ``path`` 里的名字（新建、改名）已经在磁盘上；Windows 没有这一步，不做。"""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)
