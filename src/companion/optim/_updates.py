"""数更新了几次：批数说不准它，攒几批才更新一次，半精度溢出的那一步又不更新。"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook


class UpdateCounter:
    """``watch`` 之后，更新那些参数的 torch 优化器走一步，``count`` 就加一；用完 ``close()``。

    出处：``torch.optim.optimizer.register_optimizer_step_post_hook``。
    """

    def __init__(self) -> None:
        self.count = 0
        self._ours: set[int] | None = None
        self._hook: Any = None

    def watch(self, parameters: Iterable[Tensor] | None = None) -> None:
        """什么也不返回：从现在起数 ``parameters`` 的更新；``None`` 是每个优化器的每一步都数。"""
        self.close()
        self._ours = None if parameters is None else {id(parameter) for parameter in parameters}
        self._hook = register_optimizer_step_post_hook(self._count)

    def close(self) -> None:
        """什么也不返回：不再数了；再调用一次也没关系。"""
        if self._hook is not None:
            self._hook.remove()

    def _count(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        first = (id(p) for group in optimizer.param_groups for p in group["params"])
        self.count += self._ours is None or next(first, None) in self._ours
