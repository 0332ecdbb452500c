"""训练循环：三个普通函数，全书只有这一份。

``train_epoch`` 训练一轮，``evaluate`` 评估一遍，``fit`` 把它们连起来跑若干轮。三个都能单独用在
你自己的循环里，没有要继承的基类。一步怎么算，用下面两个参数之一说清楚：

- ``loss(outputs, targets)``：一批是 ``(inputs, targets)``，返回这批的平均损失。多数时候够用。
- ``step(model, batch) -> StepOut``：一批是什么样、损失怎么算，全由你定。

一轮之内不把数值从设备上读回来（那会让 GPU 停下等 CPU）；损失和指标到一轮结束才读一次。
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from companion.errors import ArgumentError, NonFiniteError, NotReadyError, check_choice
from companion.metrics import Metric
from companion.step import Loss, Record, Step, StepOut, Totals, make_forward

__all__ = ["History", "StepOut", "evaluate", "fit", "train_epoch"]


@dataclass(repr=False)
class History:
    """逐轮的记录：``records`` 一轮一个字典，``history["valid_loss"]`` 是其中一列。"""

    records: list[Record] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[Any]:
        """名为 ``name`` 的一列，一轮一个值。"""
        check_choice("列名", name, list(self.records[0]) if self.records else [])
        return [record[name] for record in self.records]

    def __repr__(self) -> str:
        last = f"；最后一轮 {_numbers(self.records[-1])}" if self.records else ""
        return f"History({len(self.records)} 轮{last})"


def train_epoch(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    optimizer: Optimizer,
    metrics: Mapping[str, Metric] | None = None,
) -> Record:
    """训练一轮，返回 ``{"loss": …, 指标名: …}``：按样本加权的平均，边训练边记的。

    Args:
        model: 切到 train 状态，离开时仍是。每批数据自动搬到它所在的设备。
        batches: 一批一批的数据，通常是 ``DataLoader``。
        loss, step: 给且只给一个，见本文件开头。
        optimizer: 要更新的参数必须是 ``model`` 的。
        metrics: 名字到指标；先 ``reset``，再逐批 ``update``。

    Raises:
        ArgumentError, DataError, ShapeError, DtypeError: 消息里写着怎么改。
    """
    forward, totals = make_forward(model, loss, step), Totals(metrics)
    _check_optimizer(model, optimizer)
    model.train()
    for batch in batches:
        out = forward(batch)  # 1. 前向：预测，算损失
        optimizer.zero_grad()  # 2. 清掉上一步的梯度
        out.loss.backward()  # 3. 反向：算梯度
        optimizer.step()  # 4. 沿梯度更新参数
        totals.add(out)
    return totals.compute()


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> Record:
    """评估一遍，返回 ``{"loss": …, 指标名: …}``；参数与 ``train_epoch`` 相同，但不改模型。

    不记录计算图；期间模型切到 eval 状态，离开时（出错也一样）每个模块都恢复原来的状态。
    """
    forward, totals = make_forward(model, loss, step), Totals(metrics)
    with _eval_mode(model), torch.no_grad():
        for batch in batches:
            totals.add(forward(batch))
    return totals.compute()


def fit(
    model: nn.Module,
    train: Iterable[Any],
    valid: Iterable[Any] | None = None,
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    optimizer: Optimizer,
    epochs: int,
    scheduler: object = None,
    metrics: Mapping[str, Metric] | None = None,
    run: object = None,
    patience: int | None = None,
    precision: str = "fp32",
    accumulate: int = 1,
    clip_norm: float | None = None,
    ema: object = None,
    progress: bool = True,
    on_epoch: Callable[[Record], object] | None = None,
) -> History:
    """训练 ``epochs`` 轮，每轮之后在 ``valid`` 上评估，返回逐轮的记录。

    一条记录有 ``epoch``（从 1 数）、``train_loss``、``valid_loss`` 和 ``train_``、``valid_``
    开头的各指标。``progress`` 每轮印一行。``on_epoch(record)`` 每轮之后调用，返回 ``False`` 就停。
    其余参数同 ``train_epoch``；``scheduler`` 等七个名字已定、功能尚未实现。

    Raises:
        NonFiniteError: 某一轮的训练损失成了 nan 或 inf。
        NotReadyError: 给了尚未实现的参数。
        ArgumentError, DataError, ShapeError, DtypeError: 消息里写着怎么改。
    """
    _refuse_unfinished(scheduler=scheduler, run=run, patience=patience, precision=precision)
    _refuse_unfinished(accumulate=accumulate, clip_norm=clip_norm, ema=ema)
    if epochs < 1:
        raise ArgumentError(f"epochs 至少为 1，实际是 {epochs}。只想评估请调用 evaluate()。")
    how: Any = {"loss": loss, "step": step, "metrics": metrics}
    history = History()
    for epoch in range(1, epochs + 1):
        trained = train_epoch(model, train, optimizer=optimizer, **how)
        _check_finite(trained["loss"], epoch)
        record = {"epoch": epoch} | _prefixed("train_", trained)
        if valid is not None:
            record |= _prefixed("valid_", evaluate(model, valid, **how))
        history.records.append(record)
        if progress:
            print(f"第 {epoch}/{epochs} 轮  {_numbers(record)}")
        if on_epoch is not None and on_epoch(record) is False:
            break
    return history


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:  # 逐个恢复：有人会单独把某一层冻结在 eval
        for module, training in before:
            module.training = training


def _check_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    """优化器里一个模型的参数都没有时报错：在笔记本里重建模型、忘了重建优化器，就会这样。"""
    ours = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in ours for group in optimizer.param_groups for p in group["params"]):
        raise ArgumentError(
            "optimizer 应更新 model 的参数，实际一个也不是 model 的。"
            "重建模型之后，优化器也要重建：AdamW(model.parameters(), …)。"
        )


def _check_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise NonFiniteError(
            f"损失应是有限的数，第 {epoch} 轮的平均训练损失是 {loss}，模型的参数已经坏了。"
            "请重建模型，把学习率调小（先除以 10），并检查输入里有没有 nan。"
        )


_UNFINISHED = {"precision": "fp32", "accumulate": 1}  # 其余的默认值都是 None


def _refuse_unfinished(**given: object) -> None:
    for name, value in given.items():
        if value != _UNFINISHED.get(name):
            raise NotReadyError(
                f"fit 的参数 {name} 尚未实现，现在只能留默认值，实际是 {value!r}。"
                "急用的话，自己写循环：train_epoch 和 evaluate 是普通函数。"
            )


def _prefixed(prefix: str, record: Record) -> Record:
    return {prefix + name: value for name, value in record.items()}


def _numbers(record: Record) -> str:
    """一行字：记录里的数（不含轮次和矩阵），4 位有效数字。"""
    shown = {k: v for k, v in record.items() if k != "epoch" and isinstance(v, int | float)}
    return "  ".join(f"{name} {value:<7.4g}" for name, value in shown.items()).rstrip()
