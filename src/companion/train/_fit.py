"""``fit``：一轮一轮地训练、验证、记录、存档，直到练完，或该停了。"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from companion._common import random_state_kept
from companion.checkpoint import saves
from companion.distributed import is_main
from companion.errors import ArgumentError, DataError, NonFiniteError, check_choice
from companion.metrics import History, Metric
from companion.optim import EMA
from companion.run import Run
from companion.train._epoch import check_sampler, evaluate, train_epoch
from companion.train._means import EMPTY, EpochMeans
from companion.train._progress import Progress, size
from companion.train._step import PRECISIONS, Loss, Record, Step
from companion.train._update import Update


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
    means, bar = EpochMeans(metrics, finite=True), Progress(epochs, progress and is_main())
    journal = _journal(run, update, means, loss, how | {"epochs": epochs, "patience": patience})
    one: Any = {"loss": loss, "step": step}
    with _last_words(journal, bar):
        for epoch in _epochs(journal, epochs, patience, means, bar):
            batches = bar.watch(journal.batches(train, window=accumulate), epoch, train, means)
            trained = train_epoch(model, batches, optimizer=update, metrics=means, **one)
            record = _named("train_", trained)
            if valid is not None:
                with _own_random(valid):
                    record |= _evaluated(update, bar.watch(valid, epoch, valid), metrics, one)
            update.end_epoch(record)
            journal.log(**record)
            bar.close(epoch, record)
            if on_epoch is not None and on_epoch({"epoch": epoch} | record) is False:
                journal.stop()
    return journal.history


def _journal(
    run: Run | None, update: Update, means: EpochMeans, loss: Loss | None, config: Record
) -> Run:
    """记录和存档的地方，要存的都已交给它；有存档的话，已经恢复了。"""
    journal = Run(None) if run is None else run
    learned = loss if isinstance(loss, nn.Module) and list(loss.parameters()) else None
    # 先存 means：练坏了的话，它说得出坏在哪一批
    journal.attach(means=means, **update.parts(), loss=learned)
    journal.update_config(**config)
    return journal


def _epochs(
    journal: Run, epochs: int, patience: int | None, means: EpochMeans, bar: Progress
) -> Iterator[int]:
    """一轮一轮的编号；验证损失连续 ``patience`` 轮没有变低就停。只看记录，接着练也照停。"""
    for epoch in journal.epochs(epochs):
        history = journal.history
        if patience is not None and history.stalled("valid_loss", "min", patience):
            best = history.best("valid_loss")
            where = f"最低的是第 {best[0]} 轮" if best else "它一直是 nan"
            bar.line(f"valid_loss 连续 {patience} 轮没有变低，停在第 {epoch - 1} 轮；{where}。")
            break
        means.epoch = epoch
        yield epoch


def _evaluated(
    update: Update, batches: Iterable[Any], metrics: Mapping[str, Metric] | None, how: Any
) -> Record:
    """评估的结果，名字前面有 ``valid_``；有滑动平均就用平均过的权重。"""
    with update.averaged():
        judged = evaluate(update.model, batches, metrics=metrics, precision=update.precision, **how)
    return _named("valid_", judged)


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
    check_sampler(valid)


def _named(prefix: str, record: Record) -> Record:
    return {prefix + name: value for name, value in record.items()}
