"""第 2 章《自动求导》的检查器，按部分分成几个文件。"""

from companion.book.exercises.ch02._engine import grad_shapes, network_grads, smallest_budget
from companion.book.exercises.ch02._graph import (
    clip_slope,
    kept_bytes,
    mean_loss,
    per_sample_norms,
    safe_sqrt,
    ste,
)
from companion.book.exercises.ch02._ledgers import audit, in_order_flat, tanh
from companion.book.exercises.ch02._second import best_rate, hvp, lesson_slope, toward
from companion.book.exercises.ch02._star import fgsm, ledger, numeric_grad, step

__all__ = [
    "audit",
    "best_rate",
    "clip_slope",
    "fgsm",
    "grad_shapes",
    "hvp",
    "in_order_flat",
    "kept_bytes",
    "ledger",
    "lesson_slope",
    "mean_loss",
    "network_grads",
    "numeric_grad",
    "per_sample_norms",
    "safe_sqrt",
    "smallest_budget",
    "ste",
    "step",
    "tanh",
    "toward",
]
