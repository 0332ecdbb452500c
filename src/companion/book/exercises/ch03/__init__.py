"""第 3 章《神经网络》的检查器，按部分分成几个文件。"""

from companion.book.exercises.ch03._loss import (
    bce_with_logits,
    he_init,
    huber,
    residual_block,
    three_centres,
)
from companion.book.exercises.ch03._star import conv_paper, names, strip_prefix

__all__ = [
    "bce_with_logits",
    "conv_paper",
    "he_init",
    "huber",
    "names",
    "residual_block",
    "strip_prefix",
    "three_centres",
]
