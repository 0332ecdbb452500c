"""一次更新：攒几批的梯度，按样本加权，裁剪，更新参数，再让学习率和滑动平均各走一步。

攒 k 批再更新，梯度与把 k 批拼成一大批相同：各批的损失按 n（样本数或词元数）加权，最后一组不足
k 批也一样。多个进程时，n 是全部进程的。只做一批、一个进程、``fp32`` 时，就是普通的一步。
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from companion._common import check_model
from companion.device import model_device, widest_float
from companion.distributed import (
    all_finite,
    any_rank,
    defer_sync,
    local_part,
    world_size,
)
from companion.errors import ArgumentError, NonFiniteError, check_whole
from companion.optim import EMA, PerStep
from companion.train._checks import (
    check_ema,
    check_optimizer,
    check_schedule,
    check_wrapped,
    refuse_sparse,
)


class Update:
    """怎样更新参数。可以代替优化器交给 ``train_epoch``，也可以用在你自己的循环里::

        update = Update(model, optimizer, accumulate=4, clip_norm=1.0)
        for window in update.windows(batches):
            for batch in window:
                update.backward(loss(model, batch), n=len(batch))
            update.step()

    Args:
        model, optimizer: 优化器里要有模型的参数。
        precision: ``"fp32"``、``"bf16"``、``"fp16"``；``"fp16"`` 的损失先放大再求梯度。
        accumulate: 几批更新一次。
        clip_norm: 梯度的 L2 范数的上限；``None`` 是不裁剪。
        scheduler: 包成 ``PerStep`` 的每次更新走一步，别的在 ``end_epoch`` 走一步。
        ema: 每次更新后算一次的权重平均。

    Raises:
        ArgumentError: 取值不对；或有几个进程，而模型没有包装。
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        precision: str = "fp32",
        accumulate: int = 1,
        clip_norm: float | None = None,
        scheduler: Any = None,
        ema: EMA | None = None,
    ) -> None:
        check_model(model)
        check_optimizer(model, optimizer)
        check_wrapped(model)
        check_schedule(scheduler, optimizer)
        check_ema(ema, model)
        if clip_norm is not None and not (isinstance(clip_norm, Real) and clip_norm > 0):
            raise ArgumentError(
                f"clip_norm 应是大于 0 的数，实际是 {clip_norm!r}。不裁剪请留 None。"
            )
        self.model, self.optimizer, self.precision = model, optimizer, precision
        self.accumulate = check_whole("accumulate", accumulate, hint="1 就是每批更新一次。")
        self.clip_norm = clip_norm
        self.scheduler, self.ema = scheduler, ema
        self.device = model_device(model)
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None
        self._alone = world_size() == 1
        self._weighs = self.accumulate > 1 or not self._alone
        self._graded = False  # 这一组里有没有哪一批反向过
        self._n: list[float | Tensor] = []  # 这一组已经反向的各批的 n
        self._unit: float | Tensor = 1

    def windows(self, batches: Iterable[Any]) -> Iterator[Iterable[Any]]:
        """一组一组的批，每组 ``accumulate`` 批，最后一组可以不足；开始前先清掉旧的梯度。"""
        self.optimizer.zero_grad()
        self._n, self._graded = [], False
        if self.accumulate == 1:
            for batch in batches:
                yield (batch,)
            return
        rest = iter(batches)
        while window := list(islice(rest, self.accumulate)):
            yield self._sync_at_the_last(window)

    def backward(self, loss: Tensor, n: float | Tensor) -> None:
        """反向：这一批的梯度加到已有的上面。

        ``n`` 是这个平均损失的样本数（或词元数），张量取它的和；是 Python 数 0 的批什么也不做。

        Raises:
            ArgumentError: 损失没有连着计算图，求不了梯度。
        """
        if self._alone and not isinstance(n, Tensor) and n == 0:
            return
        if not loss.requires_grad:
            raise ArgumentError(
                "损失应连着计算图，实际没有：输出 detach() 过，或在 no_grad() 里算的，或参数全冻结"
                "了。请检查 forward 和 step。"
            )
        self._graded = True
        if self._weighs:
            loss = self._weighted(loss, n)
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()

    def step(self) -> None:
        """用攒下的梯度更新一次，再清掉梯度；``fp16`` 溢出的那一步不更新，学习率也不动。

        一组里的 ``n`` 全是 0，就没有这一步。
        """
        if not self._graded:
            return
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if len(self._n) > 1:
            self._average()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters(), self.clip_norm)
        updated = self._apply()
        self.optimizer.zero_grad()
        self._n, self._graded = [], False
        if updated and isinstance(self.scheduler, PerStep):
            self.scheduler.step()
        if updated and self.ema is not None:
            self.ema.update()

    def end_epoch(self, record: Mapping[str, Any], monitor: str = "valid_loss") -> None:
        """一轮结束：每轮一步的调度器走一步；``ReduceLROnPlateau`` 看 ``record[monitor]``。"""
        with warnings.catch_warnings():  # 从各批之后接着练的，这个进程里优化器还没有走过
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            if isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step(record[monitor])
            elif self.scheduler is not None and not isinstance(self.scheduler, PerStep):
                self.scheduler.step()

    def averaged(self) -> AbstractContextManager[None]:
        """里面的模型用平均过的权重；没有 ``ema`` 就什么也不变。"""
        return nullcontext() if self.ema is None else self.ema.average()

    def parts(self) -> dict[str, Any]:
        """存档里要有的，名字到对象。"""
        parts = {"model": self.model, "optimizer": self.optimizer, "update": self}
        parts |= {"scheduler": self.scheduler, "ema": self.ema}
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """``{"scaler": …}``。每个进程都要调用。

        Raises:
            NonFiniteError: 参数里已经有 nan 或 inf；先查再存，坏了的不会存下来。
        """
        self.check_finite()
        return {"scaler": None if self.scaler is None else self.scaler.state_dict()}

    def check_finite(self) -> None:
        """参数里没有 nan 和 inf 就什么也不做。每个进程都要调用。

        Raises:
            NonFiniteError: 有。最后一次更新把参数练坏了，损失却还没有来得及变成 nan。
        """
        if any_rank(not all_finite(self._parameters())):
            raise NonFiniteError(
                "参数应是有限的数，实际有 nan 或 inf：上一次更新把它们练坏了。请从前面的"
                "存档接着练（没有就重建模型），把学习率调小（先除以 10），或给 clip_norm=1.0。"
            )

    def lr(self) -> float:
        """现在的学习率；有几组参数时是第一组的。"""
        return float(self.optimizer.param_groups[0]["lr"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """接着 ``state`` 里的放大倍数用；那时不是 ``fp16`` 就从头定。"""
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def _sync_at_the_last(self, window: Sequence[Any]) -> Iterator[Any]:
        """逐批给出；一组里只有最后一批的反向在进程之间合并梯度。"""
        for batch in window[:-1]:
            with defer_sync(self.model):
                yield batch
        yield window[-1]

    def _weighted(self, loss: Tensor, n: float | Tensor) -> Tensor:
        """损失乘 n / unit；unit 是第一批的 n（多个进程时取平均），只为数值不大不小。"""
        if isinstance(n, Tensor):
            n = n.sum().to(widest_float(n.device))  # 整数相除只得 float32
        if not self._n:
            self._unit = _or_one(self._all_ranks(n) / world_size())
        self._n.append(n)
        return loss * (n / self._unit)

    def _average(self) -> None:
        """梯度现在是 Σ n·g / unit（进程之间取了平均），换成 Σ n·g / Σ n。"""
        factor = self._unit * world_size() / _or_one(self._all_ranks(sum(self._n)))
        grads = [local_part(p.grad) for p in self._parameters() if p.grad is not None]
        torch._foreach_mul_(grads, factor)

    def _all_ranks(self, n: float | Tensor) -> float | Tensor:
        """n 在全部进程上的和；只有一个进程时就是 n。"""
        if world_size() == 1:
            return n
        total = torch.as_tensor(n, dtype=widest_float(self.device), device=self.device).clone()
        dist.all_reduce(total)
        return total

    def _apply(self) -> bool:
        """更新参数；``fp16`` 的梯度里有 inf 时跳过，返回有没有更新。"""
        try:
            if self.scaler is None:
                self.optimizer.step()
                return True
            scale = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
        except RuntimeError as error:
            refuse_sparse(self.optimizer, error)
            raise
        self.scaler.update()
        return self.scaler.get_scale() >= scale

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _or_one(total: float | Tensor) -> Any:
    """``total``；是 0 就换成 1，好拿来做分母。"""
    return torch.where(total > 0, total, 1) if isinstance(total, Tensor) else total or 1
