"""大批量用的 LAMB：AdamW 的一步，再按参数的长度缩放。"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from companion.errors import ArgumentError


class LAMB(Optimizer):
    """大批量的 Adam：每个参数张量的更新，长度按它自己的长度缩放。

    复数的参数当作实部、虚部两列；稀疏的梯度不收。

    Adam 的一步加上权重衰减，得到方向 u；实际走 ``lr × ‖参数‖ / ‖u‖ × u``，所以 ``lr`` 是「走参数
    长度的几分之几」。参数或 u 是 0 时不缩放。``adapt=False`` 就是 ``AdamW``，也可以写在参数组里。

    Args:
        params: 参数或参数组，同 torch 的优化器。
        lr, betas, eps, weight_decay: 同 ``AdamW``。
        adapt: 缩放与否。

    Raises:
        ArgumentError: 取值不在允许的范围里。

    出处：You 等，《Large Batch Optimization for Deep Learning》（arXiv 1904.00962）算法 2，
    其中 φ(z) = z。
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        adapt: bool = True,
    ) -> None:
        for name, value in {"lr": lr, "eps": eps, "weight_decay": weight_decay}.items():
            if value < 0:
                raise ArgumentError(f"{name} 不能是负数，实际是 {value}。")
        if not all(0 <= beta < 1 for beta in betas):
            raise ArgumentError(
                f"betas 应在 0 到 1 之间（不含 1），实际是 {betas}。常用 0.9、0.999。"
            )
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"adapt": adapt})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """更新一次；给了 ``closure`` 就先调用它，返回它算出的损失。

        Raises:
            ArgumentError: 有稀疏的梯度；什么也没有更新。
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        held = [(p, group) for group in self.param_groups for p in group["params"]]
        held = [(p, group) for p, group in held if p.grad is not None]
        if any(p.grad.layout != torch.strided for p, _ in held):
            raise ArgumentError(
                "LAMB 的梯度应是稠密的，实际有稀疏的。请去掉 sparse=True，或改用 SparseAdam。"
            )
        for parameter, group in held:
            self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, grad = self.state[parameter], parameter.grad
        assert grad is not None
        if parameter.is_conj():
            parameter, grad = parameter.conj(), grad.conj()  # 同一块内存，看作没有取过共轭的
        if grad.is_complex():
            parameter, grad = map(torch.view_as_real, (parameter, grad.resolve_conj()))
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)  # 名字同 torch 的 Adam
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].lerp_(grad, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        spread = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        update = (mean / (1 - beta1 ** state["step"])).div_(spread)
        update.add_(parameter, alpha=group["weight_decay"])
        if group["adapt"]:
            ours, theirs = parameter.norm(), update.norm()
            both = (ours > 0) & (theirs > 0)
            update *= torch.where(both, ours / theirs, 1.0)  # 留在设备上算，不读回
        parameter.sub_(update, alpha=group["lr"])
