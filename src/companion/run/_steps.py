"""数优化器走了几步，并看出忘了交给 Run 的优化器。"""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from companion.run import _parts as parts
from companion.run._held import reachable
from companion.run._position import Position


class Steps:
    """从建它的时候起，``objects`` 里的优化器一共走了几步；用完要 ``close``。"""

    def __init__(self, objects: Mapping[str, Any], position: Position) -> None:
        self._objects, self._position = objects, position
        self._ours = set(parts.optimizers(objects).values())
        self._others = WeakKeyDictionary[Optimizer, int]()  # 没有交的：第一次见到时是哪一步
        self.counts = [0] if self._ours else list[int]()  # 没有优化器，就没有这一项
        self.forgotten = set[str]()  # 没有交的里面，几批里都更新、带着状态的，是哪些类
        self.going = False  # 正在走 batches
        self._hook = register_optimizer_step_post_hook(self._count)

    def any_gradient(self) -> bool:
        """要更新的参数里，有没有带着梯度的。"""
        return any(p.grad is not None for each in self._ours for p in parts.parameters(each))

    def close(self) -> None:
        """不再数了。"""
        self._hook.remove()

    def _count(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """每个优化器每走一步都会调用它，要便宜。"""
        if optimizer in self._ours:
            self.counts[0] += 1
        elif self.going:
            self._meet(optimizer)

    def _meet(self, optimizer: Optimizer) -> None:
        """没有直接交给 Run 的走了一步：在交了的对象里面的，也算交了。"""
        step = self._position.step
        inside = reachable(self._objects.values(), objects=True)
        if optimizer not in self._others and any(thing is optimizer for thing in inside):
            self._ours.add(optimizer)
            self.counts[:] = [sum(self.counts) + 1]
        elif self._others.setdefault(optimizer, step) != step and any(optimizer.state.values()):
            self.forgotten.add(type(optimizer).__name__)
