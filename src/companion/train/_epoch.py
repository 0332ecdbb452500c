"""一轮：``train_epoch`` 训练一遍，``evaluate`` 评估一遍；``fit`` 把它们连起来。"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from companion._common import check_model, eval_mode, train_mode
from companion.metrics import Metric
from companion.train._checks import check_batches, check_sampler
from companion.train._loss import Loss
from companion.train._means import EpochMeans
from companion.train._step import Record, Step, make_forward
from companion.train._update import Update


def train_epoch(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    optimizer: Optimizer | Update,
    metrics: Mapping[str, Metric] | EpochMeans | None = None,
) -> Record:
    """训练一轮，返回 ``{"loss": …, 指标名: …}``：按样本加权的平均，边训练边记的。

    Args:
        model: 切到 train 状态，离开时仍是；冻结了又在 eval 的层、单独 ``eval()`` 过的批归一化，留在
            eval。每批数据自动搬到它所在的设备。
        batches: 一批一批的数据，通常是 ``DataLoader``。
        loss, step: 给且只给一个，见本文件开头。
        optimizer: 要更新的参数必须是 ``model`` 的。要攒批、裁剪、半精度，给 ``Update``。
        metrics: 名字到指标；先 ``reset``，再逐批 ``update``。

    Raises:
        NonFiniteError: 损失成了 nan 或 inf。
        ArgumentError, DataError, ShapeError, DtypeError: 消息里写着怎么改。
    """
    check_model(model)
    check_batches("batches", batches)
    update = optimizer if isinstance(optimizer, Update) else Update(model, optimizer)
    means = metrics if isinstance(metrics, EpochMeans) else EpochMeans(metrics, finite=True)
    forward = make_forward(model, loss, step, update.precision)
    train_mode(model)
    for window in update.windows(batches):  # 几批合成一次更新；不攒批时就是一批
        for batch in window:
            out = forward(batch)  # 1. 前向：预测，算损失
            update.backward(out.loss, out.n)  # 2. 反向：算梯度
            means.add(out)
        update.step()  # 3. 沿梯度更新参数，再清掉梯度
    record = means.finish()
    update.check_finite()
    return record


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    metrics: Mapping[str, Metric] | None = None,
    precision: str = "fp32",
) -> Record:
    """评估一遍，返回 ``{"loss": …, 指标名: …}``；参数与 ``train_epoch`` 相同，但不改模型。

    不记录计算图；期间模型切到 eval 状态，离开时（出错也一样）每个模块都恢复原来的状态。
    多个进程时，每个样本只算一次，各进程得到同一个结果。

    Raises:
        DataError: 加载器是空的，或者 ``DistributedSampler`` 会把有的样本算两遍。
        ArgumentError, ShapeError, DtypeError: 消息里写着怎么改。
    """
    check_model(model)
    check_batches("batches", batches)
    check_sampler(batches)
    forward, means = make_forward(model, loss, step, precision), EpochMeans(metrics)
    with eval_mode(model), torch.no_grad():
        for batch in batches:
            means.add(forward(batch))
    return means.finish()
