"""页面里能动手的东西：先猜（bet）、小测（quiz）和可操作的图。

每个函数返回一个对象：在网页、JupyterLab、Colab 里显示成能点的 HTML，在终端里显示成文字。
都不需要内核，也不联网。
"""

from companion.book.widgets._bets import bet, quiz
from companion.book.widgets._figures import (
    bowl,
    broadcasting,
    deception,
    indexing,
    ledger,
    secants,
    strides,
)
from companion.book.widgets._html import Widget

__all__ = [
    "Widget",
    "bet",
    "bowl",
    "broadcasting",
    "deception",
    "indexing",
    "ledger",
    "quiz",
    "secants",
    "strides",
]
