"""``Run`` 的循环：一轮一轮、一批一批地走；在一步的边界上存档，收到信号就存好再走。"""

import inspect
from collections.abc import Generator, Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any
from weakref import WeakSet

from companion.checkpoint import saves
from companion.distributed import any_rank, world_size
from companion.errors import RunError
from companion.repro import random_state
from companion.run import _words as words
from companion.run._order import batch_size
from companion.run._position import Call
from companion.run._probe import why_inexact
from companion.run._session import Session, say
from companion.run._signals import Signals
from companion.run._watch import Watch

_LONGEST = 256  # 优化器这么多批都没有走，就不再等：多半是看不见（如重放 CUDA 图）


class Loop:
    """``session`` 的循环；每 ``every`` 步存一次，``None`` 是只在一轮之末存。"""

    def __init__(self, session: Session, every: int | None) -> None:
        self._session, self._position, self._every = session, session.position, every
        self._signals = Signals()
        self._unusable = ""  # 不能再用的原因
        self._calls = 0  # 这一轮用过几次 batches
        self._call: Call | None = None  # 正在走的那一次
        self._watch: Watch | None = None  # 这一轮里，模型变了没有
        self._walks: WeakSet[Generator[Any, None, None]] = WeakSet()  # 给出去的 batches
        self._waited = 0  # 该存了，一直等更新，等了几批
        self._partial = False  # 上一次停在不满的窗口里
        self._running = self._wanted = False
        self._due: int | None = None  # 走到这一步就该存了
        self._watching = world_size() > 1  # 每一步都到边界上看看
        self.stopping = False

    @property
    def in_batches(self) -> bool:
        """是不是在 ``batches`` 的循环里。"""
        return self._call is not None

    def epochs(self, total: int) -> Iterator[int]:
        """见 ``Run.epochs``。"""
        self._session.begin()
        position = self._position
        if position.closed and max(position.epoch, position.stopped) >= total:
            say(words.finished(self._session.directory, position))
            return
        self._session.announce()
        self._running, self.stopping = True, False
        self._rest()
        self._signals.install(self._near_a_step)
        try:
            while position.epoch < total or not position.closed:
                continued = not position.closed
                position.next_epoch()
                self._calls, self._call = 0, None
                self._watch = self._session.watch() if continued else None
                yield position.epoch
                self._close_epoch(total)
                if position.stopped:
                    break
        finally:
            self._signals.restore()
            self._unwatch()
            self._running = False
            if not position.closed:
                self._break_off()

    def batches(self, loader: Any, window: int) -> Iterator[Any]:
        """见 ``Run.batches``。"""
        walk = self._walk(loader, window)
        self._walks.add(walk)
        return walk

    def _walk(self, loader: Any, window: int) -> Generator[Any, None, None]:
        if not self._running or self._call is not None:
            raise RunError(words.misplaced(self._running))
        index, position = self._calls, self._position
        self._calls += 1
        self._look_at(loader, index)
        self._look_back(index)
        iterator = position.open_call(index, loader, self._session.warn)
        if iterator is None:
            return
        self._call = call = position.calls[index]
        self._watch = watch = self._watch or self._session.watch()
        watch.steps.going, marks = True, list[int]()
        try:
            for batch in iterator:
                marks = watch.marks()
                yield batch
                call.done += 1
                position.step += 1
                if self._watching or self._signals.received or position.step == self._due:
                    self._boundary(call, window, watch, marks)
        except GeneratorExit:  # break：这一批已经用来更新过，就算练过了
            if not watch.moved(marks):
                marks = []
            elif self._call is call:
                call.done += 1
                position.step += 1
                self._wanted = self._wanted or position.step == self._due
                self._watching = self._watching or self._wanted
            raise
        finally:
            if self._call is call:  # 否则是以前留着没走完的，早已不作数
                watch.steps.going, self._call = False, None
                self._partial = self._pending(call, window, watch, marks)
                position.close_call(index, loader, self._session.warn)
        if self._watching or self._signals.received:
            self._boundary(call, window, watch, marks)

    def save(self) -> None:
        """见 ``Run.save``。"""
        if self._call is not None:
            self._wanted = self._watching = True
        elif not any_rank(self._partial):  # 最后一次更新也许还没有做；那就等这一轮收尾时存
            self._save()

    def check_usable(self) -> None:
        """还能用就什么也不做，否则抛出 ``RunError``。"""
        if self._unusable:
            raise RunError(words.unusable(self._session.directory, self._unusable))

    def close(self) -> None:
        """不能再用了；信号还给原来的主人。"""
        self._unusable = self._unusable or "它已经关上（或者同一个目录又建了新的 Run）"
        self._signals.restore()
        self._unwatch()

    def _boundary(self, call: Call, window: int, watch: Watch, marks: list[int]) -> None:
        """一步练完了：该存就存，收到过信号就走。梯度还攒着，就等下一个边界。"""
        told = self._signals.received is not None
        self._wanted = self._wanted or self._position.step == self._due
        if not any_rank(told or self._wanted):  # 几个进程时，每一步只问这一句
            return
        if any_rank(self._pending(call, window, watch, marks)):
            self._wanted = self._watching = True
            self._waited += 1
            return
        told, call.now = any_rank(told), random_state()
        path = self._save()
        if told:
            self._leave(path)

    def _pending(self, call: Call, window: int, watch: Watch, marks: list[int]) -> bool:
        """梯度还攒着，没有用来更新：此刻存，就丢了。没有说 ``window``，就看优化器走了没有。"""
        if window > 1:
            return call.done % window > 0
        waiting = watch.waiting(marks)
        self._waited = self._waited if waiting else 0
        return waiting and self._waited < _LONGEST

    def _close_epoch(self, total: int) -> None:
        for walk in list(self._walks):  # break 之后还留着的：最后一批这时才算数
            if inspect.getgeneratorstate(walk) == inspect.GEN_SUSPENDED:
                walk.close()
        position, self._call = self._position, None
        self._session.close_epoch(self._watch)
        self._unwatch()
        position.close()
        position.stopped = total if any_rank(self.stopping) else 0
        path = self._save()
        if any_rank(self._signals.received is not None):
            self._leave(path)

    def _save(self) -> Path:
        path = self._session.save()
        self._rest()
        return path

    def _rest(self) -> None:
        """刚存过：下一次是什么时候。"""
        self._wanted, self._watching = False, world_size() > 1
        if self._every:
            self._due = (self._position.step // self._every + 1) * self._every

    def _leave(self, path: Path) -> None:
        number = self._signals.received or SIGTERM  # 别的进程收到的，一起走
        say(words.left(Signals.name(number), path, self._position))
        self._unusable = "它收到信号，已经存好停下"
        raise SystemExit(143) if number == SIGTERM else KeyboardInterrupt

    def _break_off(self) -> None:
        """循环没有走到一轮之末：一批也没有练，当这一轮没有开始；否则，内存里的已对不上存档。"""
        calls = self._position.calls
        if not calls:
            self._position.undo()
        elif not self._unusable:
            self._unusable = "上一次的循环断在一轮中间，内存里的模型对不上存档了"
            if calls[-1].after is not None:
                names = [path.name for path in saves(self._session.directory)[-1:]]
                say(words.not_saved(self._position.epoch, *names))

    def _look_at(self, loader: Any, index: int) -> None:
        """第一次用到一个加载器：记下批量；看它能不能精确续上。"""
        if index not in self._position.seen:
            size = batch_size(loader)
            if index == 0 and size is not None:
                self._session.offer_config({"batch_size": size})
            reason = why_inexact(loader)
            if reason is not None:
                self._session.warn(reason)

    def _look_back(self, index: int) -> None:
        """从中间接着练的一轮：各批之前的代码又执行了一遍，改了什么就说。"""
        if index == 0 and self._watch is not None:
            changes = self._watch.changes()
            say(words.ran_twice(self._position.epoch, changes) if changes else "")

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _near_a_step(self) -> bool:
        """最近的边界是不是一步之末；各批都练完了，就要等这一轮收尾。"""
        return self._call is not None or self._calls == 0
