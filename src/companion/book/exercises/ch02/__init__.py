"""第 2 章《自动求导》的检查器，按部分分成几个文件。"""

from companion.book.exercises.ch02._star import fgsm, ledger, numeric_grad, step

__all__ = ["fgsm", "ledger", "numeric_grad", "step"]
