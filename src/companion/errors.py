"""companion 的错误，一棵树。消息都写三件事：期望、实际、怎么改。

CompanionError                          抓它就抓住了全部
├── ArgumentError (ValueError)          参数的取值不对，或两个参数凑在一起不对
├── ShapeError (ValueError)             张量的形状不对
├── DtypeError (TypeError)              张量的 dtype 不对
├── DataError (ValueError)              数据不能用：加载器是空的、批不是约定的样子
├── NonFiniteError (FloatingPointError) 损失成了 nan 或 inf
├── CheckpointError (RuntimeError)      存档用不了
│   ├── CorruptCheckpointError          文件坏了：缺、断、校验和不符
│   ├── MismatchError                   存的是另一个模型、另一个优化器
│   └── NewerFormatError                存档的格式比这个 companion 新
├── RunError (RuntimeError)             目录里已有别的运行，或正被另一个进程写
├── DownloadError (OSError)             几个地址都没有下载成功
└── LaunchError (RuntimeError)          某个进程失败或超时
"""

import operator
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "CompanionError",
    "CorruptCheckpointError",
    "DataError",
    "DownloadError",
    "DtypeError",
    "LaunchError",
    "MismatchError",
    "NewerFormatError",
    "NonFiniteError",
    "RunError",
    "ShapeError",
    "check_choice",
    "check_labels",
    "check_same_shape",
    "check_shape",
    "check_whole",
    "printable",
]


class CompanionError(Exception):
    """companion 全部错误的共同祖先。文件名、服务器的回答都可能写进消息，所以经过 ``printable``。"""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


def printable(text: object) -> str:
    """可以放心印到终端的 ``text``：控制字符、改变方向的字符写成转义，如 ``\\x1b``；换行留着。"""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in str(text)
    )


class ArgumentError(CompanionError, ValueError):
    """参数的取值不在允许的范围里，或者两个参数不能这样一起给。"""


class ShapeError(CompanionError, ValueError):
    """张量的形状与约定不符。"""


class DtypeError(CompanionError, TypeError):
    """张量的 dtype 与约定不符。"""


class DataError(CompanionError, ValueError):
    """数据不能用：加载器一批都没有给出，或者一批数据的结构不对。"""


class NonFiniteError(CompanionError, FloatingPointError):
    """损失成了 nan 或 inf，再训练下去没有意义。"""


class CheckpointError(CompanionError, RuntimeError):
    """存档用不了；三种原因各有自己的类。"""


class CorruptCheckpointError(CheckpointError):
    """存档的文件坏了：缺文件、被截断、校验和不符。"""


class MismatchError(CheckpointError):
    """存档是好的，但存的是另一个模型、另一个优化器。"""


class NewerFormatError(CheckpointError):
    """存档的格式比这个 companion 新，读不懂。"""


class RunError(CompanionError, RuntimeError):
    """目录里已经有别的运行，或者正被另一个进程写。"""


class DownloadError(CompanionError, OSError):
    """几个地址都没有下载成功，或者下载到的不是那个文件。"""


class LaunchError(CompanionError, RuntimeError):
    """启动的进程里有一个失败了，或者到时间还没有结束。"""


def check_shape(name: str, tensor: Tensor, spec: str, hint: str = "") -> None:
    """形状合约定就什么也不做，否则抛出 ``ShapeError``。

    Args:
        name: 消息里怎么称呼这个张量。
        tensor: 要检查的张量，dtype 不限。
        spec: 约定的形状，各维用空格隔开，如 ``"B 1 8 8"``；数字必须相等，字母是任意长度。
        hint: 接在消息末尾的一句「怎么改」。

    Raises:
        ShapeError: 维数不对，或写成数字的某一维长度不对。
    """
    dims = spec.split()
    fits = tensor.ndim == len(dims) and all(
        not dim.isdigit() or int(dim) == size for dim, size in zip(dims, tensor.shape, strict=True)
    )
    if not fits:
        expected = f"({', '.join(dims)}{',' if len(dims) == 1 else ''})"
        raise ShapeError(f"{name} 的形状应为 {expected}，实际是 {tuple(tensor.shape)}。{hint}")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """取值在 ``choices`` 里就什么也不做，否则抛出列出全部选项的 ``ArgumentError``。"""
    fits = False
    with suppress(TypeError, ValueError, RuntimeError):  # 数组比出来的不是一个 bool
        fits = value in choices
    if not fits:
        options = "、".join(repr(choice) for choice in choices)
        raise ArgumentError(f"{name} 应为 {options} 之一，实际是 {value!r}。")


def check_whole(name: str, value: Any, least: int | None = 1, hint: str = "") -> int:
    """``value`` 这个整数，NumPy 的、0 维张量的也收，返回 ``int``；``least=None`` 是多小都行。

    Raises:
        ArgumentError: 不是整数（``True``、``2.0`` 都不是），或者太小；``hint`` 接在消息末尾。
    """
    number = None
    if not isinstance(value, bool) and getattr(value, "dtype", None) != torch.bool:
        with suppress(TypeError):
            number = operator.index(value)
    if number is None or (least is not None and number < least):
        kind = "整数" if least is None else f"不小于 {least} 的整数"
        way = hint or f"请写成整数，如 {name}={max(least or 0, 2)}。"
        raise ArgumentError(f"{name} 应为{kind}，实际是 {value!r:.100}。{way}")
    return number


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """得分与类别编号配得上就什么也不做。只看形状和 dtype，不读数值，GPU 不用停下来等。

    Args:
        logits: 类别得分，形状 ``(B, C)`` 或 ``(B, C, …)``，浮点。
        labels: 类别编号，形状 ``(B,)`` 或 ``(B, …)``，dtype ``int64``。

    Raises:
        ShapeError: 两者的形状配不上，例如标签是 one-hot。
        DtypeError: 标签不是 ``int64``；交叉熵只收它。
    """
    shape = logits.shape
    if len(shape) < 2:
        raise ShapeError(
            f"类别得分的形状应为 (B, C)，实际是 {tuple(shape)}。每类一列；"
            "只有一列的二分类请先拼成两列。"
        )
    expected = shape[:1] + shape[2:]
    if labels.shape != expected:
        way = "one-hot 标签先取 argmax(dim=1)；形状 (B, 1) 的先 squeeze(1)。"
        if labels.shape == shape[:-1]:
            way = "类别看起来在得分的最后一维，应在第 1 维：请先 movedim(-1, 1)，不是 transpose。"
        raise ShapeError(f"标签的形状应为 {tuple(expected)}，实际是 {tuple(labels.shape)}。{way}")
    if labels.dtype != torch.int64:
        raise DtypeError(
            f"标签应为 torch.int64 的类别编号，实际是 {labels.dtype}。请先 labels.long()。"
        )


def check_same_shape(outputs: Tensor, targets: Tensor) -> None:
    """形状相同就什么也不做；逐元素地比，形状不同会悄悄广播。

    Raises:
        ShapeError: 形状不同。
    """
    if targets.shape != outputs.shape:
        raise ShapeError(
            f"targets 的形状应与输出相同，是 {tuple(outputs.shape)}，实际是 "
            f"{tuple(targets.shape)}。少一维用 targets[:, None]，多一维用 squeeze(1)；"
            "不改的话，广播会两两相配，不报错却算错。"
        )
