"""只有书用得着的：先猜、习题自检、可操作的图、把源码和报错摆出来看。

- ``_exercise``  ``check``：给习题的答案判对错；检查器在 ``exercises/``，一章一个文件
- ``_guard``     判题时不动读者的会话；读者的函数改了参数、动了全局，说得出是哪一件
- ``_arguments``  参数叫什么、哪一件变了
- ``widgets/``   ``bet``、``quiz`` 和可操作的图；题目在 ``bets/``，一章一个文件
- ``_names``     题名怎么写
- ``_show``      ``show_source``、``error_of``
- ``_explain``   ``explain``：一条报错是什么意思、怎么改；条目在 ``_dict/``
- ``_js/``、``_fonts/``  网页里的脚本和样式，图里的中文字体
"""

from companion.book._exercise import check
from companion.book._explain import explain
from companion.book._show import error_of, show_source
from companion.book.widgets import (
    Widget,
    bet,
    bowl,
    broadcasting,
    deception,
    indexing,
    ledger,
    quiz,
    secants,
    strides,
)

__all__ = [
    "Widget",
    "bet",
    "bowl",
    "broadcasting",
    "check",
    "deception",
    "error_of",
    "explain",
    "indexing",
    "ledger",
    "quiz",
    "secants",
    "show_source",
    "strides",
]
