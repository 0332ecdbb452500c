"""``Run``：套在你自己的循环上，练到哪里断了，就从哪里接着练，结果一位不差。"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from companion.checkpoint import saves
from companion.errors import ArgumentError, check_choice
from companion.run._history import History
from companion.run._loop import Loop
from companion.run._session import Session

_OPEN: WeakValueDictionary[Path, "Run"] = WeakValueDictionary()


class Run:
    """一次运行：一个目录，里面是存档、``history.csv``、``run.json``、``tensorboard/``。

    用法::

        run = Run("runs/digits", resume=True, model=model, optimizer=optimizer)
        for epoch in run.epochs(20):
            for inputs, targets in run.batches(train):
                ...
                run.log(loss=loss)

    按步数停，写成下面这样；之后把 ``max_steps`` 改大，就接着练（一轮至少一步，轮数不会不够）::

        for epoch in run.epochs(max_steps):
            for inputs, targets in run.batches(train):
                ...  # 更新之后 break，这一批也算练过
                if run.step + 1 >= max_steps:
                    run.stop()
                    break

    会变的都要交给 Run，调度器也在内；循环里的计数器和发生器，先放进有 ``state_dict``、
    ``load_state_dict`` 的对象。``persistent=False`` 的缓冲区不会存。验证用的 ``DataLoader`` 不要开
    ``persistent_workers``：接着练的进程会多抽一次随机数。

    Args:
        directory: 没有就建。一个目录一次运行，同时只能有一个进程在写。
        resume: ``True`` 从最新的好存档接着练，没有就从头开始；``False`` 只用没有存档的目录。
        keep: 留最近几个存档；最好的一轮的另外留着。
            权重里没有 nan 和 inf 的最后一份，也一直留着。
        best: 按哪一列定最好的一轮；``None`` 是不管。
        mode: ``"min"`` 越小越好，``"max"`` 越大越好。
        save_every: 每几步存一次；``None`` 是只在每轮之末存。
        config: 写进 ``run.json`` 的超参数，能写成 JSON；接着练时与存档里的不同就说。
        objects: 要存的对象，见 ``attach``。

    Raises:
        ArgumentError: ``config`` 不是字典；优化器更新的不是给了的模型。
        RunError: 目录里有别的运行，或另一个进程正在写，或不能写。
        CheckpointError: 存档一个也不能用；或与 ``objects`` 对不上，此时什么也没有装。
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        resume: bool = False,
        keep: int = 2,
        best: str | None = "valid_loss",
        mode: str = "min",
        save_every: int | None = None,
        config: dict[str, Any] | None = None,
        **objects: Any,
    ) -> None:
        _check_arguments(mode, keep=keep, save_every=save_every)
        self.directory = Path(directory)
        options: Any = {"resume": resume, "keep": keep, "best": best, "mode": mode}
        _close_older(self.directory, resume)
        self._session = Session(self.directory, config=config, **options)
        self._loop = Loop(self._session, save_every)
        _OPEN[self.directory.resolve()] = self
        try:
            self._session.attach(objects)
        except BaseException:
            self.close()
            raise

    @property
    def history(self) -> History:
        """逐轮的记录。"""
        return self._session.records.history

    @property
    def step(self) -> int:
        """一共练完了几步，接着练的也算在内。"""
        return self._session.position.step

    @property
    def epoch(self) -> int:
        """正在练（或刚练完）的一轮，从 1 数；还没有开始是 0。"""
        return self._session.position.epoch

    @property
    def inexact(self) -> str | None:
        """不能精确接着练的原因；能，就是 ``None``。"""
        return self._session.inexact

    def attach(self, **objects: Any) -> None:
        """什么也不返回：把对象交给这次运行，以后一起存；有存档的话，给全了就恢复。

        先全部核对，再全部装好。``None`` 略过；同一个名字再给一个新对象，它接过旧对象的状态。

        Raises:
            ArgumentError: 没有 ``state_dict``、``load_state_dict``；优化器更新的不是给了的模型。
            MismatchError: 与存档对不上，或给多了；此时什么也没有装。
        """
        self._loop.check_usable()
        self._session.attach(objects)

    def update_config(self, **values: Any) -> None:
        """什么也不返回：补上要写进 ``run.json`` 的超参数，能写成 JSON。"""
        self._session.update_config(values)

    def epochs(self, total: int) -> Iterator[int]:
        """轮次，从 1 到 ``total``；接着练时从断的地方开始。一轮的循环体走完，就记录、存档。

        收到 SIGTERM 或 Ctrl-C：练完这一步（各批之后，是等这一轮收尾），存好，再抛出
        ``SystemExit(143)`` 或 ``KeyboardInterrupt``；第二次立即停。

        Raises:
            MismatchError: 存档里的对象没有给全。
            RunError: 这个 ``Run`` 已经关上，或上一次循环断在了中途。
        """
        if not isinstance(total, int) or total < 1:
            raise ArgumentError(f"轮数 total 应为不小于 1 的整数，实际是 {total!r}。")
        self._loop.check_usable()
        return self._loop.epochs(total)

    def batches(self, loader: Any, *, window: int = 1) -> Iterator[Any]:
        """``loader`` 的各批；接着练时从断的那一批起，次序和随机数都与不中断时相同。

        给出一批就算一步，所以只用来训练；验证时直接 ``for batch in valid``。一次只能开一个。
        从一轮中间接着练，``enumerate`` 又从 0 数起（``islice``、``zip`` 也一样）：要接着数，用
        ``run.step``。这一轮里它之前的代码也会再执行一遍，所以 ``scheduler.step()`` 写在各批之后。

        Args:
            loader: ``companion.data`` 的加载器、``DataLoader``、批的列表，或任何可迭代的对象。
            window: 几批更新一次参数（梯度累积）；只在更新之后存档。不写，就看交给 Run 的 torch
                优化器走了没有；有几个优化器、自己写的优化器、攒得比 256 批还多的，请写上。
                攒到一轮之后才用的梯度不会存。

        Raises:
            RunError: 不在 ``epochs`` 的循环里，或者上一个 ``batches`` 还没有走完。
        """
        self._loop.check_usable()
        return self._loop.batches(loader, window)

    def log(self, *, n: int | Tensor = 1, **values: Any) -> None:
        """什么也不返回：记下几个数，一轮之末按 ``n`` 加权平均，写进这一轮的记录。

        张量切断梯度，每一步都不读数值。``batches`` 外面记的也进这一轮，矩阵、文字原样留下。

        几个进程时，记下的是全部进程的平均，各占自己的 n。F1 这样不能平均的指标，先合成一个再记：
        ``metric.merge(gather_objects(metric.state_dict()))``，``run.log(f1=metric.compute())``。

        Args:
            n: 这些平均值代表几个样本（或词元）。
            values: 名字到标量。

        Raises:
            ShapeError: 每一步里记的不是标量，或者 ``n`` 不是。
            ArgumentError: 记的东西存不进存档。
        """
        self._session.records.log(n, values, self._loop.in_batches)

    def save(self) -> None:
        """什么也不返回：存一次。在 ``batches`` 的循环里，是这一步结束时存；在外面，是现在。

        在外面存的，接着练时 ``batches`` 与这一句之间的代码再执行一遍：请紧接着 ``batches`` 写。
        几个进程一起训练时，在外面要每个进程都调用。
        """
        self._loop.check_usable()
        self._loop.save()

    def stop(self) -> None:
        """什么也不返回：练完、存好这一轮就结束；再以同样的轮数接着练，也到此为止。"""
        self._loop.stopping = True

    def load_best(self) -> None:
        """什么也不返回：把最好的一轮的权重（和 EMA 的平均）装进模型，别的对象不动。

        Raises:
            RunError: 记录里没有 ``best`` 那一列的数。
            CheckpointError: 那个存档没有了、坏了，或者是另一个模型的。
        """
        self._session.load_best()

    def close(self) -> None:
        """什么也不返回：放开目录的锁，之后不能再用。进程结束时自然会放开。"""
        self._loop.close()
        self._session.close()


def _check_arguments(mode: str, **counts: int | None) -> None:
    check_choice("mode", mode, ("min", "max"))
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ArgumentError(f"{name} 至少为 1，实际是 {value}。")


def _close_older(directory: Path, resume: bool) -> None:
    """同一个进程里又建一个（重新执行单元格就会这样）：旧的关上，锁交给新的。"""
    older = _OPEN.get(directory.resolve())
    if older is not None and (resume or not saves(directory)):
        older.close()
