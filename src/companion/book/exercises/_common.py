"""各章检查器共用的判断。"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Wrong(Exception):
    """检查器用它拒绝一个答案：消息就是 ✗ 后面的那句话。"""


def require_tensor(value: Any, shape: tuple[int, ...]) -> None:
    """不是这个形状的张量，就判错。"""
    if not isinstance(value, Tensor):
        raise Wrong(f"应返回张量，你返回的是 {type(value).__name__}。")
    if value.shape != shape:
        raise Wrong(f"形状应为 {shape}，你的是 {tuple(value.shape)}。")


def same_storage(a: Tensor, b: Tensor) -> bool:
    """两个张量看着同一块内存吗，起点可以不同。"""
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def largest_ndim(function: Callable[..., Any], *args: Tensor) -> int:
    """``function(*args)`` 的途中，出现过的张量最多有几维。"""

    class Watch(TorchFunctionMode):
        seen: int = 0

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                self.seen = max(self.seen, result.ndim)
            return result

    with Watch() as watch:
        function(*args)
    return int(watch.seen)
