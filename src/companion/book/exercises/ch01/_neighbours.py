"""k 个最近的邻居投票：票怎么数，答错了像是哪一种错。"""

import torch
from torch import Tensor

CLASSES = 3


def wrong_vote(result: Tensor, x: Tensor, known_x: Tensor, known_y: Tensor, k: int) -> str | None:
    """形状和 dtype 都对的 `result` 像哪一种错；全对就是 None。"""
    order = torch.cdist(x.double(), known_x.double()).argsort(1)
    if torch.equal(result, _elect(known_y[order[:, :k]])):
        return None
    counts = _count(known_y[order[:, :k]])
    if torch.equal(result, counts.amax(1)):
        return "返回的是最多的票数，要的是得票最多的那个数字。"
    by_index = [_elect(order[:, :k], classes) for classes in (CLASSES, 10, len(known_x))]
    if result.max() >= CLASSES or any(torch.equal(result, wrong) for wrong in by_index):
        return "投的是序号，要先到 known_y 里查出是几，再数票。"
    no_bias = (x @ known_x.T).topk(k, dim=1).indices
    if torch.equal(result, _elect(known_y[no_bias])):
        return "得分里少了 ‖m‖²/2：只看点积，数大的训练图占便宜。"
    if torch.equal(result, known_y[order[:, 0]]):
        return f"k={k} 时你只听了最近那一张，另外几张没有投票。"
    if torch.equal(result, _elect(known_y[order[:, -k:]])):
        return "你找来的是最远的几张：得分越大越近，距离越小越近。"
    if torch.equal(result, CLASSES - 1 - counts.flip(1).argmax(1)):
        return f"k={k} 时平票取了编号大的，题目要编号小的。"
    return f"{len(x)} 张图、k={k} 时不对：用两三张图手算一遍，看看票投给了谁。"


def _elect(labels: Tensor, classes: int = CLASSES) -> Tensor:
    """``(n, k)`` 的标签投票，票数最多的当选，平票取编号小的。"""
    return _count(labels, classes).argmax(1)


def _count(labels: Tensor, classes: int = CLASSES) -> Tensor:
    return (labels[:, :, None] == torch.arange(classes)).sum(1)
