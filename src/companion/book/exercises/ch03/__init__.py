"""第 3 章《神经网络》的检查器，按部分分成几个文件。"""

from companion.book.exercises.ch03._rest import separable, trace_shapes
from companion.book.exercises.ch03._star import conv_paper, names, strip_prefix
from companion.book.exercises.ch03._surgery import fold, freeze_except, replace, widen

__all__ = [
    "conv_paper",
    "fold",
    "freeze_except",
    "names",
    "replace",
    "separable",
    "strip_prefix",
    "trace_shapes",
    "widen",
]
