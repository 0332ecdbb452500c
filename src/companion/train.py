"""训练循环：三个普通函数，全书只有这一份。

``train_epoch`` 训练一轮，``evaluate`` 评估一遍，``fit`` 把它们连起来跑若干轮。三个都能单独用在
你自己的循环里，没有要继承的基类。一步怎么算，用下面两个参数之一说清楚：

- ``loss(outputs, targets)``：一批是 ``(inputs, targets)``，返回这批的平均损失。多数时候够用。
- ``step(model, batch) -> StepOut``：一批是什么样、损失怎么算，全由你定。

一步之内不把数值从设备上读回来（那会让 GPU 停下等 CPU）；损失每 256 步读一次，指标一轮一次。
开练之前想先试一下，用 ``companion.rehearse`` 里的 ``dry_run`` 和 ``overfit_one_batch``。
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DistributedSampler

from companion.checkpoint import saves
from companion.distributed.ranks import is_main
from companion.errors import ArgumentError, DataError, NonFiniteError, check_choice
from companion.history import History
from companion.metrics import Metric
from companion.optim import EMA
from companion.progress import Progress, size
from companion.run import NoRun, Run
from companion.run.probe import why_shifted
from companion.step import PRECISIONS, Loss, Record, Step, StepOut, eval_mode, make_forward
from companion.totals import EMPTY, Totals
from companion.update import Update

__all__ = ["History", "StepOut", "evaluate", "fit", "train_epoch"]


def train_epoch(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    optimizer: Optimizer | Update,
    metrics: Mapping[str, Metric] | Totals | None = None,
) -> Record:
    """训练一轮，返回 ``{"loss": …, 指标名: …}``：按样本加权的平均，边训练边记的。

    Args:
        model: 切到 train 状态，离开时仍是。每批数据自动搬到它所在的设备。
        batches: 一批一批的数据，通常是 ``DataLoader``。
        loss, step: 给且只给一个，见本文件开头。
        optimizer: 要更新的参数必须是 ``model`` 的。要攒批、裁剪、半精度，给 ``Update``。
        metrics: 名字到指标；先 ``reset``，再逐批 ``update``。

    Raises:
        NonFiniteError: 损失成了 nan 或 inf。
        ArgumentError, DataError, ShapeError, DtypeError: 消息里写着怎么改。
    """
    update = optimizer if isinstance(optimizer, Update) else Update(model, optimizer)
    totals = metrics if isinstance(metrics, Totals) else Totals(metrics, finite=True)
    forward = make_forward(model, loss, step, update.precision)
    model.train()
    for window in update.windows(batches):  # 几批合成一次更新；不攒批时就是一批
        for batch in window:
            out = forward(batch)  # 1. 前向：预测，算损失
            update.backward(out.loss, out.n)  # 2. 反向：算梯度
            totals.add(out)
        update.step()  # 3. 沿梯度更新参数，再清掉梯度
    return totals.finish()


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
    _check_sampler(batches)
    forward, totals = make_forward(model, loss, step, precision), Totals(metrics)
    with eval_mode(model), torch.no_grad():
        for batch in batches:
            totals.add(forward(batch))
    return totals.finish()


def fit(
    model: nn.Module,
    train: Iterable[Any],
    valid: Iterable[Any] | None = None,
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    optimizer: Optimizer,
    epochs: int,
    scheduler: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    run: Run | None = None,
    patience: int | None = None,
    precision: str = "fp32",
    accumulate: int = 1,
    clip_norm: float | None = None,
    ema: EMA | None = None,
    progress: bool = True,
    on_epoch: Callable[[Record], object] | None = None,
) -> History:
    """训练 ``epochs`` 轮，每轮之后在 ``valid`` 上评估，返回逐轮的记录。

    一条记录有 ``epoch``（从 1 数）、``train_loss``、``valid_loss`` 和 ``train_``、``valid_``
    开头的各指标。没有说到的参数同 ``train_epoch``。

    Args:
        epochs: 一共几轮；接着练时，前面练过的也算在内。
        scheduler: 每轮之后 ``step()`` 的调度器；要每次更新走一步，包成 ``PerStep(…)``。
        run: 存档、记录、接着练，见 ``companion.run``；``None`` 是什么也不写。
        patience: ``valid_loss`` 连续这么多轮没有变低就停。
        precision: ``"fp32"``、``"bf16"``、``"fp16"``；后两种在 ``torch.autocast`` 里算。
        accumulate: 几批更新一次，梯度与合成一大批相同。
        clip_norm: 梯度的 L2 范数的上限。
        ema: 权重的滑动平均 ``EMA(model)``；每次更新后算一次，评估用平均过的权重。
        progress: 终端和笔记本里显示进度条，每轮印一行。
        on_epoch: 每轮之后调用 ``on_epoch(record)``，返回 ``False`` 就停。

    Raises:
        NonFiniteError: 训练损失成了 nan 或 inf；消息里有哪一轮、哪一批、上一份好的存档。
        ArgumentError, DataError, ShapeError, DtypeError: 消息里写着怎么改。
    """
    _check_fit(train, valid, epochs, patience, precision, scheduler)
    how: Any = {"precision": precision, "accumulate": accumulate, "clip_norm": clip_norm}
    update = Update(model, optimizer, scheduler=scheduler, ema=ema, **how)
    totals, bar = Totals(metrics, finite=True), Progress(epochs, progress and is_main())
    journal = _journal(run, valid, update, totals, how | {"epochs": epochs, "patience": patience})
    one: Any = {"loss": loss, "step": step}
    with _last_words(journal, bar):
        for epoch in _epochs(journal, epochs, patience, totals, bar):
            batches = bar.watch(journal.batches(train, window=accumulate), epoch, train, totals)
            trained = train_epoch(model, batches, optimizer=update, metrics=totals, **one)
            record = _named("train_", trained)
            if valid is not None:
                record |= _evaluated(update, bar.watch(valid, epoch, valid), metrics, one)
            update.end_epoch(record)
            journal.log(**record)
            bar.close(epoch, record)
            if on_epoch is not None and on_epoch({"epoch": epoch} | record) is False:
                journal.stop()
    return journal.history


def _journal(
    run: Run | None, valid: object, update: Update, totals: Totals, config: Mapping[str, Any]
) -> Run | NoRun:
    """记录和存档的地方，要存的都已交给它；有存档的话，已经恢复了。"""
    journal = NoRun() if run is None else run
    journal.attach(totals=totals, **update.parts())  # 先存 totals：它说得出坏在哪一批
    journal.update_config(**config)
    if run is not None and (why := why_shifted(valid)):
        run._session.warn(why)
    return journal


def _epochs(
    journal: Run | NoRun, epochs: int, patience: int | None, totals: Totals, bar: Progress
) -> Iterator[int]:
    """一轮一轮的编号；验证损失连续 ``patience`` 轮没有变低就停。只看记录，接着练也照停。"""
    for epoch in journal.epochs(epochs):
        history = journal.history
        if patience is not None and history.stalled("valid_loss", "min", patience):
            best = history.best("valid_loss")
            where = f"最低的是第 {best[0]} 轮" if best else "它一直是 nan"
            bar.line(f"valid_loss 连续 {patience} 轮没有变低，停在第 {epoch - 1} 轮；{where}。")
            break
        totals.epoch = epoch
        yield epoch


def _evaluated(
    update: Update, batches: Iterable[Any], metrics: Mapping[str, Metric] | None, how: Any
) -> Record:
    """评估的结果，名字前面有 ``valid_``；有滑动平均就用平均过的权重。"""
    with update.averaged():
        judged = evaluate(update.model, batches, metrics=metrics, precision=update.precision, **how)
    return _named("valid_", judged)


@contextmanager
def _last_words(journal: Run | NoRun, bar: Progress) -> Iterator[None]:
    """不论怎么结束，都擦掉进度条；练坏了的话，说出上一份好的存档在哪里。"""
    try:
        yield
    except NonFiniteError as error:
        last = saves(journal.directory)[-1:] if isinstance(journal, Run) else []
        where = f"之前的存档没有坏，最后一份是 {last[0]}。" if last else ""
        raise NonFiniteError(f"{error}{where}") from None
    finally:
        bar.clear()


def _check_fit(
    train: Iterable[Any],
    valid: Iterable[Any] | None,
    epochs: int,
    patience: int | None,
    precision: str,
    scheduler: object,
) -> None:
    """第一步之前就看得出的错。"""
    if epochs < 1:
        raise ArgumentError(f"epochs 至少为 1，实际是 {epochs}。只想评估请调用 evaluate()。")
    if patience is not None and patience < 1:
        raise ArgumentError(f"patience 至少为 1，实际是 {patience}。不要提前停请留 None。")
    if valid is None and (patience is not None or isinstance(scheduler, ReduceLROnPlateau)):
        raise ArgumentError("patience 和 ReduceLROnPlateau 看的是 valid_loss，请给 valid。")
    check_choice("precision", precision, PRECISIONS)
    for batches in (train, valid):
        if batches is not None and size(batches) == 0:
            raise DataError(EMPTY)
    _check_sampler(valid)


def _check_sampler(batches: object) -> None:
    """``DistributedSampler`` 为了分得匀，会把有的样本给两遍（或扔掉）；训练无妨，评估就不准了。"""
    sampler = getattr(batches, "sampler", None)
    samples = size(getattr(sampler, "dataset", None))
    if isinstance(sampler, DistributedSampler) and sampler.total_size != samples:
        raise DataError(
            f"评估应让每个样本算一次，DistributedSampler 却把 {samples} 个样本当成 "
            f"{sampler.total_size} 个来分。请用 companion.data.loaders 的 loaders()。"
        )


def _named(prefix: str, record: Record) -> Record:
    return {prefix + name: value for name, value in record.items()}
