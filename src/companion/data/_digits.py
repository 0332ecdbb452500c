"""1797 张 8×8 手写数字，随包安装，不用联网。来历与许可见同一文件夹的 ``digits.md``。"""

from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from companion.errors import ArgumentError, check_choice

Pair = tuple[Tensor, Tensor]


class Digits(NamedTuple):
    """全部手写数字，按原来的顺序。"""

    images: Tensor  # (1797, 8, 8)，uint8，0（白）到 16（黑）
    labels: Tensor  # (1797,)，int64，0 到 9


def load_digits() -> Digits:
    """全部 1797 张图和标签；每次调用都是新的张量，改了不影响下一次。"""
    with files("companion.data").joinpath("digits.npz").open("rb") as file, np.load(file) as stored:
        images, labels = torch.from_numpy(stored["images"]), torch.from_numpy(stored["labels"])
    return Digits(images, labels.long())


def digits_split(kind: str = "shuffled", seed: int = 0, test: int = 360) -> tuple[Pair, Pair]:
    """训练部分和测试部分，各是一对 ``(inputs, targets)``。

    Args:
        kind: ``"shuffled"`` 先打乱再切，训练和测试里有同一批人的字；``"writers"`` 不打乱，
            最后 ``test`` 行留作测试。原数据大致按写字的人排列（没有逐行的记录），所以这些字
            多半出自没见过的人，更难。
        seed: 打乱用的种子；``"writers"`` 用不到。
        test: 测试部分有几张，1 到 1796。

    Returns:
        ``inputs`` 形状 ``(n, 1, 8, 8)``，``float32``，0 到 1；
        ``targets`` 形状 ``(n,)``，``int64``。

    Raises:
        ArgumentError: ``kind`` 不是这两个之一，或 ``test`` 超出范围。
    """
    check_choice("kind", kind, ("shuffled", "writers"))
    images, targets = load_digits()
    if not 1 <= test < len(targets):
        raise ArgumentError(f"test 应在 1 到 {len(targets) - 1} 之间，实际是 {test}。")
    inputs = images[:, None].float() / 16
    order = torch.arange(len(targets))
    if kind == "shuffled":  # 用自己的发生器，不动全局的随机数
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    train, held_out = order[:-test], order[-test:]
    return (inputs[train], targets[train]), (inputs[held_out], targets[held_out])
