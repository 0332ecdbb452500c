"""``Run``：套在你自己的循环上，练到哪里断了，就从哪里接着练，结果一位不差。"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from companion._common import random_state_kept
from companion.checkpoint import saves
from companion.distributed import all_finite, any_rank, gather_objects, rank, say, world_size
from companion.errors import ArgumentError, CheckpointError, RunError, check_choice, check_whole
from companion.metrics import History
from companion.repro import random_state, restore_random_state, versions
from companion.run import _objects as objects
from companion.run._log import Log, json_only
from companion.run._loop import Loop
from companion.run._order import announce, looks_of, why_inexact
from companion.run._saves import Content, Saves

_OPEN: WeakValueDictionary[Path, "Run"] = WeakValueDictionary()


class Run(Loop):
    """一次运行：一个目录，里面是存档、``history.csv``、``run.json``、``tensorboard/``。

    用法::

        run = Run("runs/digits", resume=True, model=model, optimizer=optimizer)
        for epoch in run.epochs(20):
            for inputs, targets in run.batches(train):
                ...
                run.log(loss=loss)

    什么会存，什么不会，不会的怎么办：

    ===========================  =======================================================
    会变的东西                   接着练时
    ===========================  =======================================================
    模型、优化器、调度器、EMA    交给 Run 就会存：``Run(…, model=model, …)``
    损失自己的参数               ``nn.Module`` 的损失也交给 Run；``fit`` 自己会交
    冻结、解冻（requires_grad）  照存档的来，改了就说
    计数器、自己的列表和字典     放进字典或列表交给 Run；里面只有张量、数、字符串
    自己的随机数发生器           ``torch.Generator``、``random.Random`` 等也能交给 Run
    torch、NumPy、Python 全局的  自动存；``loaders()`` 和 ``DataLoader`` 的次序也是
    persistent=False 的缓冲区    不会存：要接着用，就去掉 ``persistent=False``
    模型里的普通属性、隐状态     不会存：改成缓冲区，或放进字典交给 Run
    就地打乱的列表、采样器       不会存：每轮打乱一份副本
    数据集自己的发生器           不会存：样本里用全局的，再用 ``loaders()``
    各批之前的代码               从一轮中间接着练，会再执行一遍：只由 ``epoch`` 决定才好
    enumerate、zip               又从 0 数起：用 ``run.step``，或 ``StackDataset``
    提前一批取数据（预取）       不行：给出一批就算练了一批，存档会多算一步
    记录里 256 个数以上的矩阵    只留最近一轮的；都要，就自己另存
    自己循环里的验证 DataLoader  不要开 ``persistent_workers``：新进程会多抽一次随机数
    ===========================  =======================================================

    按步数停：更新之后 ``if run.step + 1 >= most: run.stop(); break``，轮数也写 ``most``（一轮至少一
    步，不会不够）。之后把 ``most`` 改大，就接着练。

    Args:
        directory: 没有就建；一个目录一次运行。``None`` 是什么也不写，记录留在内存里。
        resume: ``True`` 从最新的好存档接着练，没有就从头开始；``False`` 只用没有存档的目录。
        keep: 留最近几个存档；最好的一轮，和没有 nan、inf 的最后一份，另外留着。
        best: 按哪一列定最好的一轮；``None`` 是不管。
        mode: ``"min"`` 越小越好，``"max"`` 越大越好。
        save_every: 每几步存一次；``None`` 是只在每轮之末存。
        config: 写进 ``run.json`` 的超参数；接着练时与存档里的不同就说。
        parts: 要存的对象，见上表和 ``attach``。

    Raises:
        ArgumentError, RunError: 有的存不下；目录里有别的运行，另一个进程正在写，或不能写。
        CheckpointError: 存档一个也不能用；或与 ``parts`` 对不上，此时什么也没有装。
    """

    def __init__(
        self,
        directory: str | Path | None,
        *,
        resume: bool = False,
        keep: int = 2,
        best: str | None = "valid_loss",
        mode: str = "min",
        save_every: int | None = None,
        config: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> None:
        check_choice("mode", mode, ("min", "max"))
        super().__init__(None if save_every is None else check_whole("save_every", save_every))
        self.directory = None if directory is None else Path(directory).expanduser()
        self.inexact: str | None = None  # 不能精确接着练的原因；能，就是 None
        self._best, self._mode, self._min_delta = best, mode, 0.0
        self._written = (best, mode)  # 建的时候写的
        self._ranks, self._news = 0, list[str]()  # 存档来自几个进程；恢复时有什么不同
        self._given = json_only(config or {})
        folder = self.directory and self.directory.resolve()  # 之后 chdir 到别处，也还写在这里
        self._log = Log(folder)
        self._saves: Saves | None = None
        if folder is not None:
            older = _OPEN.get(folder)  # 重新执行单元格，又建了一个：旧的关上，锁交给新的
            if older is not None and (resume or not saves(folder)):
                older.close()
            keep = check_whole("keep", keep)
            self._saves = Saves(folder, resume=resume, keep=keep, understand=self._adopt)
            _OPEN[folder] = self
        found = self._saves.found if self._saves else None
        self._finite = found is None or bool(found.info.get("finite", True))
        self._pending = found is not None  # 有存档，还没有恢复
        self._last = found.path if found else None
        try:
            self.attach(**parts)
        except BaseException:
            self.close()
            raise

    @property
    def history(self) -> History:
        """逐轮的记录。"""
        return self._log.history

    @property
    def step(self) -> int:
        """一共练完了几步，接着练的也算在内。"""
        return self._place.step

    @property
    def epoch(self) -> int:
        """正在练（或刚练完）的一轮，从 1 数；还没有开始是 0。"""
        return self._place.epoch

    def attach(self, **parts: Any) -> None:
        """把对象交给这次运行，以后一起存；有存档的话，给全了就恢复：先全部核对，再全部装好。

        ``None`` 略过。同一个名字再给一个新对象，它接过旧对象的状态。

        Raises:
            ArgumentError, MismatchError: 有的存不下；与存档对不上，此时什么也没有装。
        """
        self._check_usable()
        new = {name: part for name, part in parts.items() if part is not None}
        for name, part in new.items():
            objects.check_part(name, part)
        together = self._parts | new
        kinds = self._saves.kinds if self._saves else {}
        if self._pending and kinds.keys() <= together.keys():
            self._restore(together)
        elif not self._pending:
            objects.check_names(kinds or together, together)
            if self.epoch:
                self._hand_over(new)
        self._parts.update(new)
        if self._running:
            self._watch_updates()

    def update_config(self, **values: Any) -> None:
        """补上超参数，能写成 JSON；第一次存档之前给的，写进 ``run.json``。"""
        self._given |= json_only(values)

    def follow(self, best: str, mode: str, min_delta: float) -> None:
        """最好的一轮改看 ``best`` 这一列，好出 ``min_delta`` 才算；``best=None`` 的仍不管。"""
        if self._written[0] is None:
            return
        if self._written not in (("valid_loss", "min"), (best, mode)):
            raise ArgumentError(
                f"最好的一轮应只看一列，实际 Run 的 best、mode 是 {self._written}，fit 的 monitor、"
                f"mode 是 {(best, mode)}。请只写在 fit 里：monitor=、mode=。"
            )
        self._best, self._mode, self._min_delta = best, mode, min_delta

    def epochs(self, total: int) -> Iterator[int]:
        """轮次，从 1 到 ``total``；接着练时从断的地方开始。一轮的循环体走完，就记录、存档。

        收到 SIGTERM 或 Ctrl-C：练完这一步（各批之后，是等这一轮收尾），存好，再抛出
        ``SystemExit(143)`` 或 ``KeyboardInterrupt``；第二次立即停。

        Raises:
            ArgumentError, MismatchError: 优化器更新的参数，有的不会存；存档里的对象没有给全。
            RunError: 这个 ``Run`` 已经关上，或上一次循环断在了中途。
        """
        total = check_whole("轮数 total", total)
        self._check_usable()
        return self._epochs(total) if self._saves else self._unsaved(total)

    def batches(self, loader: Any, *, window: int | None = None) -> Iterator[Any]:
        """``loader`` 的各批；接着练时从断的那一批起，次序和随机数都与不中断时相同。

        给出一批就算一步，所以只用来训练；验证时直接 ``for batch in valid``。一次只能开一个。

        Args:
            loader: ``companion.data`` 的加载器、``DataLoader``、批的列表，或任何可迭代的对象。
            window: 几批更新一次参数（梯度累积）；只在更新之后存档。不写，就看交给 Run 的模型的
                优化器走了没有；有几个优化器、自己写的优化器、攒得比 256 批还多的，请写上。

        Raises:
            RunError: 不在 ``epochs`` 的循环里，或者上一个 ``batches`` 还没有走完。
        """
        self._check_usable()
        if window is not None:
            check_whole("window", window)
        if self._saves is None:
            return self._unsaved_batches(loader)
        self._walks.add(walk := self._walk(loader, window))
        return walk

    def log(self, *, n: int | Tensor = 1, **values: Any) -> None:
        """记下几个数，一轮之末按 ``n`` 加权平均，写进这一轮的记录。

        张量切断梯度，每一步都不读数值。``batches`` 外面记的也进这一轮，矩阵、文字原样留下。

        几个进程时，是全部进程的平均，各占自己的 n；不能平均的指标（如 F1），先 ``merge`` 再记。

        Args:
            n: 这些平均值代表几个样本（或词元）。
            values: 名字到标量。

        Raises:
            ShapeError, ArgumentError: 每一步里记的、``n`` 不是标量；记的东西存不进存档。
        """
        if values.get("epoch", self.epoch) != self.epoch:
            raise ArgumentError("run.log 的名字 epoch 留给轮次，实际是别的数。请换一个名字。")
        self._log.add(n, values, inside=self._call is not None)

    def save(self) -> None:
        """存一次。在 ``batches`` 的循环里，是这一步结束时存；在外面，是现在。

        在外面存的，接着练时 ``batches`` 与这一句之间的代码再执行一遍：请紧接着 ``batches`` 写。
        几个进程一起训练时，在外面要每个进程都调用。``Run(None)`` 什么也不做。
        """
        self._check_usable()
        if self._pending:
            self._restore(self._parts)
        if self._call is not None:
            self._wanted = True
        elif self._saves and not any_rank(self._gradients_left):  # 还攒着梯度，就等这一轮收尾时存
            self._save_now()

    def stop(self) -> None:
        """练完、存好这一轮就结束；再以同样的轮数接着练，也到此为止。"""
        self._stopping = True

    def load_best(self) -> None:
        """把最好的一轮的权重（和 EMA 的平均）装进模型，别的对象不动。

        ``fit`` 有 ``ema`` 时，定最好的一轮用的是平均过的权重：评估也请用 ``with ema.average():``。

        Raises:
            RunError, CheckpointError: 没有记 ``best`` 那一列；它的存档没有了、坏了、对不上。
        """
        best = self._best_epoch()
        if best is None or self._saves is None:
            raise RunError(
                f"load_best 应有 best= 那一列（{self._best!r}）的数，实际记下的是 "
                f"{self.history.names}。请从第一轮起就把 best= 写成其中一列。"
            )
        path = self._remember_best(best)
        if path is None:
            raise CheckpointError(
                f"按 {self._best}，第 {best} 轮最好，它的存档却没有了，或者坏了：练的时候 best= "
                "写着这一列，最好的一轮才另外留着。写着它往下练，更好的会留住。"
            )
        self._saves.load_weights(path, self._parts)

    def close(self) -> None:
        """放开目录的锁，之后不能再用。进程结束时自然会放开。"""
        self._unusable = self._unusable or "它已经关上（或者同一个目录又建了新的 Run）"
        self._signals.restore()
        self._updates.close()
        self._log.close()
        if self._saves:
            self._saves.close()

    def _unsaved(self, total: int) -> Iterator[int]:
        self._stopping = False
        while self.epoch < total and not self._stopping:
            self._place.epoch += 1
            yield self.epoch
            self._record()

    def _unsaved_batches(self, loader: Any) -> Iterator[Any]:
        announce(loader, self.epoch)
        for batch in loader:
            try:
                yield batch
            finally:  # break 的一批也算练过
                self._place.step += 1

    def _epochs(self, total: int) -> Iterator[int]:
        place = self._place
        if self._pending:
            self._restore(self._parts)
        objects.check_all_saved(self._parts)
        if place.closed and max(place.epoch, place.stopped) >= total:
            how = "（run.stop() 叫停的）" if place.stopped else ""
            done = f"{self.directory} 已经练完 {place.epoch} 轮{how}"
            say(f"{done}，没有要练的；想多练，把轮数改大。")
            return
        self._announce()
        yield from self._turns(total)

    def _record(self) -> None:
        self._log.close_epoch(self._place.epoch)

    def _save(self) -> Path:
        """写一个新存档，返回它的路径；删掉用不着的旧存档。每个进程都要调用。"""
        assert self._saves is not None
        place, config = self._place, self._given | objects.hyperparameters(self._parts)
        place.rng = place.rng or random_state()
        mine = {"place": place.state_dict(), "sums": self._log.state_dict()}
        content: Content = {"ranks": gather_objects(mine), "history": self.history.records}
        finite = not any_rank(not all_finite(objects.parameters(self._parts)))
        info: dict[str, Any] = {"step": place.step, "epoch": place.epoch, "closed": place.closed}
        info |= {"config": config, "finite": finite, "inexact": self.inexact}
        path = self._saves.save(self._parts, content, info | {"world": world_size()} | versions())
        if self._finite and not finite:
            say(f"第 {place.step} 步：模型的参数里有 nan 或 inf，最后一份好的不会被删掉。")
        self._finite = finite
        is_best = place.closed and self._best_epoch() == place.epoch
        self._saves.tidy(best=is_best, finite=finite)
        self._log.publish(config)
        return path

    def _restore(self, parts: Mapping[str, Any]) -> None:
        assert self._saves is not None
        self._news = self._saves.load(parts, self._adopt)
        self._pending = False
        if best := self._best_epoch():
            self._remember_best(best)
        self._saves.remember("finite", lambda info: info.get("finite", True))

    def _adopt(self, content: Content) -> None:
        """接上存档里除对象以外的那些；内容读不懂，就抛出各种错误。"""
        everyone = content["ranks"]
        self._place.load_state_dict(everyone[min(rank(), len(everyone) - 1)]["place"])
        with random_state_kept():  # 先试一遍：到用的时候才发现读不懂，就晚了
            for moment in self._place.moments():
                restore_random_state(moment)
        sums = [theirs["sums"] for theirs in everyone[rank() :: world_size()]]
        self._log.load_state_dict(content["history"], sums)
        self._ranks = len(everyone)

    def _hand_over(self, new: Mapping[str, Any]) -> None:
        old = {n: self._parts[n] for n in new if n in self._parts and self._parts[n] is not new[n]}
        states = {name: objects.state(part) for name, part in old.items()}
        layouts = {name: objects.layout(part, self._parts) for name, part in old.items()}
        objects.load({n: new[n] for n in old}, states, layouts, self._parts | dict(new))

    def _best_epoch(self) -> int | None:
        how = (self._mode, self._min_delta)
        found = self.history.best(self._best, *how) if self._best else None
        return found[0] if found else None

    def _remember_best(self, epoch: int) -> Path | None:
        assert self._saves is not None
        return self._saves.remember("best", lambda i: i.get("closed") and i.get("epoch") == epoch)

    def _announce(self) -> None:
        """说一次：从哪里接着练，什么变了。"""
        if not self._ranks:
            return
        say(f"继续 {self.directory}：从{self._place}接着练。")
        seen, now, news = objects.hyperparameters(self._parts), self._given, self._news
        saved = self._saves.found.info["config"]  # type: ignore[union-attr]
        changed = [n for n in now if n in saved and n not in seen and now[n] != saved[n]]
        others = [f"{n} 存档 {saved[n]}，现在 {now[n]}" for n in changed]
        if self._ranks != world_size():
            others += [f"存档来自 {self._ranks} 个进程，现在是 {world_size()} 个，随机数对不上"]
        if news or others:
            way = "要换优化器的，恢复后改 optimizer.param_groups，有调度器的还有它的 base_lrs。"
            say(f"与存档不同：{'；'.join([*news, *others])}。{way if news else ''}")
        if not self._finite:
            say("存档的参数里有 nan 或 inf：先移走它，再把学习率调小。")
        self._ranks = 0

    def _look_at(self, loader: Any, index: int) -> None:
        """这个进程里第一次用到一个加载器：与存档时的比一比；看它能不能精确续上。"""
        if index in self._place.met:
            return
        looks, inside = looks_of(loader), index < len(self._place.calls)
        if index == 0 and "批量" in looks:
            self._given.setdefault("batch_size", looks["批量"])
        if changed := self._place.changed(index, looks):
            tell = self._warn if inside else say
            tell(f"加载器与存档时不同，{changed}：请用原来的数据、批量和种子")
        if reason := why_inexact(loader):
            self._warn(reason)

    def _warn(self, why: str) -> None:
        """说一次：接着练时，哪里对不上。"""
        if self.inexact is None:
            self.inexact = why
            say(f"断了再接着练，结果不保证与不中断时相同：{why}。")

    def _check_usable(self) -> None:
        if self._unusable:
            raise RunError(
                f"{self.directory} 的这个 Run 不能再用：{self._unusable}。"
                "请重建模型、优化器和 Run(…, resume=True)。"
            )
