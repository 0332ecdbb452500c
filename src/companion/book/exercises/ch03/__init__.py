"""第 3 章《神经网络》的检查器，按部分分成几个文件。"""

from companion.book.exercises.ch03._neighbours import dropout, norm_dims, rms_norm
from companion.book.exercises.ch03._rest import separable, trace_shapes
from companion.book.exercises.ch03._seq import attention, causal_mask, from companion.book.exercises.ch03._loss import (
    bce_with_logits, gates_paper, gru_step, he_init, huber, last_valid, residual_block, split_heads, three_centres
from companion.book.exercises.ch03._star import conv_paper, names, strip_prefix
from companion.book.exercises.ch03._surgery import fold, freeze_except, replace, widen

__all__ = ["attention", "causal_mask", "conv_paper", "dropout", "fold", "freeze_except", "from companion.book.exercises.ch03._loss import (
    bce_with_logits", "gates_paper", "gru_step", "he_init", "huber", "last_valid", "names", "norm_dims", "replace", "residual_block", "rms_norm", "separable", "split_heads", "strip_prefix", "three_centres", "trace_shapes", "widen",]
