"""指标的约定：``fit`` 只要前三个方法；要中途存档、要几个进程合起来算，再加后三个。"""

from typing import Any, Protocol


class Metric(Protocol):
    """指标的约定：有这三个方法的对象都可以交给 ``train_epoch``、``evaluate`` 和 ``fit``。

    companion 自己的指标另有三个：``state_dict()`` 是攒到现在的全部，只有 Python 数和 CPU 上的张量；
    ``load_state_dict(state)`` 从那里接着攒；``merge(states)`` 换成几份合起来的，一个进程一份。
    """

    def update(self, outputs: Any, targets: Any, /) -> None:
        """记下一批：模型的输出和对应的目标。"""

    def compute(self) -> Any:
        """到目前为止全部批的指标。"""

    def reset(self) -> None:
        """忘掉全部，从头记。"""
