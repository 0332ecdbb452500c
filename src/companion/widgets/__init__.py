"""页面里能动手的东西：先猜（bet）、小测（quiz）和三张可操作的图。

每个函数返回一个对象：在网页、JupyterLab、Colab 里显示成能点的 HTML，在终端里显示成文字。
都不需要内核，也不联网。
"""

from companion.widgets.bets import bet, quiz
from companion.widgets.figures import broadcasting, indexing, strides

__all__ = ["bet", "broadcasting", "indexing", "quiz", "strides"]
