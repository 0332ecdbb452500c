"""第 3 章《神经网络》的检查器，按部分分成几个文件。"""

from companion.book.exercises.ch03._loss import bce_with_logits, huber, three_centres
from companion.book.exercises.ch03._neighbours import dropout, norm_dims, rms_norm
from companion.book.exercises.ch03._parts import freeze_except, replace
from companion.book.exercises.ch03._rest import separable, trace_shapes
from companion.book.exercises.ch03._seq import (
    attention,
    causal_mask,
    gates_paper,
    gru_step,
    last_valid,
    split_heads,
)
from companion.book.exercises.ch03._star import conv_paper, names, strip_prefix
from companion.book.exercises.ch03._start import he_init, residual_block
from companion.book.exercises.ch03._surgery import fold, widen

__all__ = [
    "attention",
    "bce_with_logits",
    "causal_mask",
    "conv_paper",
    "dropout",
    "fold",
    "freeze_except",
    "gates_paper",
    "gru_step",
    "he_init",
    "huber",
    "last_valid",
    "names",
    "norm_dims",
    "replace",
    "residual_block",
    "rms_norm",
    "separable",
    "split_heads",
    "strip_prefix",
    "three_centres",
    "trace_shapes",
    "widen",
]
