"""``fit``：一轮一轮地训练、验证、记录、存档，直到练完，或该停了。"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from companion._common import random_state_kept
from companion.checkpoint import saves
from companion.distributed import is_main, say, world_size
from companion.errors import NonFiniteError
from companion.metrics import History, Metric
from companion.optim import EMA
from companion.run import Run
from companion.train._checks import (
    check_batch_norm,
    check_batches,
    check_parts,
    check_sampler,
    check_total,
)
from companion.train._epoch import evaluate, train_epoch
from companion.train._loss import Loss
from companion.train._means import EpochMeans
from companion.train._plan import Goal, Plan
from companion.train._progress import Progress, size
from companion.train._step import Record, Step, make_forward
from companion.train._update import Update


def fit(
    model: nn.Module,
    train: Iterable[Any],
    valid: Iterable[Any] | None = None,
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    optimizer: Optimizer,
    epochs: int | None = None,
    scheduler: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    run: Run | None = None,
    patience: int | None = None,
    precision: str = "fp32",
    accumulate: int = 1,
    clip_norm: float | None = None,
    ema: EMA | None = None,
    monitor: str = "valid_loss",
    mode: str = "min",
    min_delta: float = 0.0,
    max_steps: int | None = None,
    valid_every: int | None = None,
    progress: bool = True,
    on_epoch: Callable[[Record], object] | None = None,
) -> History:
    """训练 ``epochs`` 轮（或更新 ``max_steps`` 次），每轮之后在 ``valid`` 上评估，返回逐轮的记录。

    一条记录有 ``epoch``（从 1 数）、``train_loss``、``valid_loss``、``train_`` 和 ``valid_`` 开头的
    各指标、``lr``（这一轮末第一组参数的学习率）。没有说到的参数同 ``train_epoch``。

    Args:
        epochs: 一共几轮；接着练时，前面练过的也算在内。
        scheduler: 每轮之后 ``step()`` 的调度器；要每次更新走一步，包成 ``PerStep(…)``。
        run: 存档、记录、接着练，见 ``companion.run``；``None`` 是什么也不写。
        patience: ``monitor`` 连续这么多轮没有变好就停。
        precision: ``"fp32"``、``"bf16"``、``"fp16"``；后两种在 ``torch.autocast`` 里算。
        accumulate: 几批更新一次，梯度与合成一大批相同。
        clip_norm: 梯度的 L2 范数的上限。
        ema: 权重的滑动平均 ``EMA(model)``；每次更新后算一次，评估用平均过的权重。
        monitor, mode, min_delta: 看记录里的哪一列，``"min"`` 越小越好还是 ``"max"`` 越大越好，好出
            多少才算变好；``patience``、``ReduceLROnPlateau`` 和 ``run`` 最好的一轮都照它。
        max_steps: 一共更新几次，代替 ``epochs``；数据走完一遍就再走一遍，没有尽头的也行。
        valid_every: 几次更新算一轮；不给，就是数据走一遍。
        progress: 终端和笔记本里显示进度条，每轮印一行。
        on_epoch: 每轮之后调用 ``on_epoch(record)``，返回 ``False`` 就停。

    Raises:
        NonFiniteError: 训练损失或参数成了 nan 或 inf；消息里有哪一轮、哪一批、上一份好的存档。
        ArgumentError, DataError, ShapeError, DtypeError: 消息里写着怎么改。
    """
    how: Any = {"precision": precision, "accumulate": accumulate, "clip_norm": clip_norm}
    update = Update(model, optimizer, scheduler=scheduler, ema=ema, **how)
    plan = Plan(train, epochs, max_steps, valid_every, accumulate)
    judge = _Judge(update, valid, metrics, {"loss": loss, "step": step})
    goal, means = Goal(monitor, mode, min_delta, patience), EpochMeans(metrics, finite=True)
    _check_together(plan, judge, goal, run, on_epoch)
    journal = _journal(run, judge, means, plan, how | goal.config())
    bar = Progress(plan.rounds(journal.epoch, means.batches), progress and is_main())
    with _last_words(journal, bar):
        for epoch in _epochs(journal, plan, goal, means, bar):
            batches = bar.watch(plan.walk(journal), epoch, plan.train, means)
            trained = train_epoch(model, batches, optimizer=update, metrics=means, **judge.how)
            with _kept_if_it_fails(journal):
                _end_epoch(epoch, _named("train_", trained), judge, goal, journal, bar, on_epoch)
    return journal.history


class _Judge(NamedTuple):
    """每轮之后怎样验证。"""

    update: Update
    valid: Iterable[Any] | None
    metrics: Mapping[str, Metric] | None
    how: dict[str, Any]  # loss 和 step

    def columns(self) -> list[str]:
        """一轮的记录会有哪些列。"""
        kinds = ["train_"] if self.valid is None else ["train_", "valid_"]
        return [kind + name for kind in kinds for name in ("loss", *(self.metrics or ()))]

    def record(self, bar: Progress, epoch: int) -> Record:
        """评估的结果，名字前面有 ``valid_``；有滑动平均就用平均过的权重。"""
        if self.valid is None:
            return {}
        batches = bar.watch(self.valid, epoch, self.valid)
        how: Any = {"metrics": self.metrics, "precision": self.update.precision} | self.how
        with _own_random(self.valid), self.update.averaged():
            return _named("valid_", evaluate(self.update.model, batches, **how))


def _check_together(plan: Plan, judge: _Judge, goal: Goal, run: Any, on_epoch: Any) -> None:
    """第一步之前就看得出的错：数据，要看的那一列，损失，给错了的对象。"""
    check_parts(run, on_epoch)
    check_batches("train", plan.source)
    if judge.valid is not None:
        check_batches("valid", judge.valid)
        check_sampler(judge.valid)
        if size(judge.valid) is None:
            say("valid 说不出一遍有几批：要是没有尽头，第一次验证就不会结束，请切下一段来。")
    scheduler, model = judge.update.scheduler, judge.update.model
    plateau = scheduler if isinstance(scheduler, ReduceLROnPlateau) else None
    goal.check(judge.columns(), plateau)
    make_forward(model, **judge.how, precision=judge.update.precision)
    check_batch_norm(model, plan.source)


def _journal(run: Run | None, judge: _Judge, means: EpochMeans, plan: Plan, config: Record) -> Run:
    """记录和存档的地方，要存的都已交给它；有存档的话，已经恢复了。"""
    journal = Run(None) if run is None else run
    loss, update = judge.how["loss"], judge.update
    learned = loss if isinstance(loss, nn.Module) and list(loss.parameters()) else None
    journal.follow(config["monitor"], config["mode"], config["min_delta"])
    # 先存 means：练坏了的话，它说得出坏在哪一批
    journal.attach(means=means, **update.parts(), loss=learned)
    plan.start(lambda: journal.step)
    journal.update_config(**plan.config(), **config)
    rounds = plan.rounds(journal.epoch, means.batches)
    check_total(update.scheduler, rounds, plan.batches, plan.updates)
    return journal


def _epochs(
    journal: Run, plan: Plan, goal: Goal, means: EpochMeans, bar: Progress
) -> Iterator[int]:
    """一轮一轮的编号，直到练完，或该提前停了。只看记录，接着练也照停。"""
    for epoch in journal.epochs(plan.limit):
        if reason := goal.stop_reason(journal.history):
            bar.line(reason)
            break
        means.begin(epoch)
        yield epoch
        if plan.is_done():
            journal.stop()


def _end_epoch(
    epoch: int,
    record: Record,
    judge: _Judge,
    goal: Goal,
    journal: Run,
    bar: Progress,
    on_epoch: Callable[[Record], object] | None,
) -> None:
    """各批之后：验证，记下，问要不要停；调度器最后才走，前面哪一步失败了都能再来一遍。"""
    record |= judge.record(bar, epoch)
    goal.check_value(record)
    bar.close(epoch, record)
    record |= {"lr": judge.update.lr()}
    journal.log(**record)
    if on_epoch is not None and _is_false(on_epoch({"epoch": epoch} | record)):
        journal.stop()
    judge.update.end_epoch(record, goal.monitor)


@contextmanager
def _kept_if_it_fails(journal: Run) -> Iterator[None]:
    """这一轮已经练完了：后面的验证等出了错，先存下它，再抛出去。接着练时只重做后面的。

    几个进程时不存：出错的可能只是其中一个，别的不会来一起存。
    """
    try:
        yield
    except Exception:
        if world_size() == 1:
            journal.save()
        raise


def _is_false(answer: object) -> bool:
    """是 ``False``：Python 的、NumPy 的、张量的；``None``、0 不是。"""
    is_bool = isinstance(answer, bool | np.bool_)
    return (is_bool or getattr(answer, "dtype", None) == torch.bool) and not answer


def _own_random(valid: Iterable[Any]) -> AbstractContextManager[None]:
    """验证的子进程要是留着不走，随机数验证完就放回去：不然接着练的进程会多抽一次它们的种子。"""
    stays = getattr(valid, "persistent_workers", False)
    return random_state_kept() if stays else nullcontext()


@contextmanager
def _last_words(journal: Run, bar: Progress) -> Iterator[None]:
    """不论怎么结束，都擦掉进度条；练坏了的话，说出上一份好的存档在哪里。"""
    try:
        yield
    except NonFiniteError as error:
        last = saves(journal.directory)[-1:] if journal.directory else []
        where = f"之前的存档没有坏，最后一份是 {last[0]}。" if last else ""
        raise NonFiniteError(f"{error}{where}") from None
    finally:
        bar.clear()


def _named(prefix: str, record: Record) -> Record:
    return {prefix + name: value for name, value in record.items()}
