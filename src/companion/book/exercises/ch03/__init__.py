"""第 3 章《神经网络》的检查器，按部分分成几个文件。"""

from companion.book.exercises.ch03._star import conv_paper, names, strip_prefix

__all__ = [
    "conv_paper",
    "names",
    "strip_prefix",
]
from companion.book.exercises.ch03._neighbours import dropout, norm_dims, rms_norm

__all__ = ["dropout", "norm_dims", "rms_norm"]
