"""一次更新：攒几批的梯度，按样本加权，裁剪，更新参数，再让学习率和滑动平均各走一步。

攒 k 批再更新，梯度与把 k 批拼成一大批相同：各批的损失按 n（样本数或词元数）加权，最后一组不足
k 批也一样。多个进程时，n 是全部进程的。只做一批、一个进程、``fp32`` 时，就是普通的一步。
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from companion.device import model_device, widest_float
from companion.distributed import (
    all_finite,
    any_rank,
    defer_sync,
    is_wrapped,
    local_part,
    world_size,
)
from companion.errors import ArgumentError, NonFiniteError
from companion.optim import EMA, PerStep


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
        if accumulate < 1:
            raise ArgumentError(f"accumulate 至少为 1，实际是 {accumulate}。1 就是每批更新一次。")
        if clip_norm is not None and not clip_norm > 0:
            raise ArgumentError(f"clip_norm 应大于 0，实际是 {clip_norm}。不裁剪请留 None。")
        _check_optimizer(model, optimizer)
        _check_wrapped(model)
        _check_scheduler(scheduler, optimizer)
        self.model, self.optimizer, self.precision = model, optimizer, precision
        self.accumulate, self.clip_norm = accumulate, clip_norm
        self.scheduler, self.ema = scheduler, ema
        self.device = model_device(model)
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None
        self._weighs = accumulate > 1 or world_size() > 1
        self._n: list[int | Tensor] = []  # 这一组已经反向的各批的 n
        self._unit: float | Tensor = 1

    def windows(self, batches: Iterable[Any]) -> Iterator[Iterable[Any]]:
        """一组一组的批，每组 ``accumulate`` 批，最后一组可以不足；开始前先清掉旧的梯度。"""
        self.optimizer.zero_grad()
        self._n = []
        if self.accumulate == 1:
            for batch in batches:
                yield (batch,)
            return
        rest = iter(batches)
        while window := list(islice(rest, self.accumulate)):
            yield self._sync_at_the_last(window)

    def backward(self, loss: Tensor, n: int | Tensor) -> None:
        """反向：这一批的梯度加到已有的上面。``n`` 是这个平均损失的样本数（或词元数）。"""
        if self._weighs:
            loss = self._weighted(loss, n)
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()

    def step(self) -> None:
        """用攒下的梯度更新一次，再清掉梯度；``fp16`` 溢出的那一步不更新，学习率也不动。"""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if len(self._n) > 1:
            self._average()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters(), self.clip_norm)
        updated = self._apply()
        self.optimizer.zero_grad()
        self._n = []
        if updated and isinstance(self.scheduler, PerStep):
            self.scheduler.step()
        if updated and self.ema is not None:
            self.ema.update()

    def end_epoch(self, record: Mapping[str, Any]) -> None:
        """一轮结束：每轮一步的调度器走一步；``ReduceLROnPlateau`` 看 ``record["valid_loss"]``。"""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(record["valid_loss"])
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
        if any_rank(not all_finite(self._parameters())):
            raise NonFiniteError(
                "参数应是有限的数，实际有 nan 或 inf：上一次更新把它们练坏了，这一份不存。"
                "请从前面的存档接着练，把学习率调小（先除以 10），或给 clip_norm=1.0。"
            )
        return {"scaler": None if self.scaler is None else self.scaler.state_dict()}

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

    def _weighted(self, loss: Tensor, n: int | Tensor) -> Tensor:
        """损失乘 n / unit；unit 是第一批的 n（多个进程时取平均），只为数值不大不小。"""
        if isinstance(n, Tensor):
            n = n.to(widest_float(n.device))  # 整数相除只得 float32
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
        if self.scaler is None:
            self.optimizer.step()
            return True
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _or_one(total: float | Tensor) -> Any:
    """``total``；是 0 就换成 1，好拿来做分母。"""
    return torch.where(total > 0, total, 1) if isinstance(total, Tensor) else total or 1


def _check_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    """优化器里一个模型的参数都没有时报错：在笔记本里重建模型、忘了重建优化器，就会这样。"""
    ours = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in ours for group in optimizer.param_groups for p in group["params"]):
        raise ArgumentError(
            "optimizer 应更新 model 的参数，实际一个也不是 model 的。"
            "重建模型之后，优化器也要重建：AdamW(model.parameters(), …)。"
        )


def _check_scheduler(scheduler: Any, optimizer: Optimizer) -> None:
    inner = scheduler.scheduler if isinstance(scheduler, PerStep) else scheduler
    if getattr(inner, "optimizer", optimizer) is not optimizer:
        raise ArgumentError(
            "scheduler 应调这个 optimizer 的学习率，实际调的是另一个。"
            "重建优化器之后，调度器也要重建。"
        )


def _check_wrapped(model: nn.Module) -> None:
    """有几个进程，而模型没有包成 DDP 或 FSDP2 时报错：梯度不会合并，各练各的。"""
    if world_size() > 1 and not is_wrapped(model):
        raise ArgumentError(
            f"有 {world_size()} 个进程，model 应包装过，实际没有，各进程会各练各的。"
            '请先 model = companion.distributed 里的 wrap(model, "ddp")，再建优化器。'
        )
