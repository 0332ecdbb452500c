"""第 3 章《神经网络》的检查器，按部分分成几个文件。"""

from companion.book.exercises.ch03._star import conv_paper, names, strip_prefix

__all__ = [
    "conv_paper",
    "names",
    "strip_prefix",
]
from companion.book.exercises.ch03._neighbours import dropout, norm_dims, rms_norm

__all__ = ["dropout", "norm_dims", "rms_norm"]
from companion.book.exercises.ch03._seq import (
    attention,
    causal_mask,
    gates_paper,
    gru_step,
    last_valid,
    split_heads,
)

__all__ = [
    "attention",
    "causal_mask",
    "gates_paper",
    "gru_step",
    "last_valid",
    "split_heads",
]
