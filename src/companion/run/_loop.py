"""循环：一轮一轮、一批一批地走；在一步的边界（又来要下一批时）存档，收到信号就存好再走。"""

import inspect
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any
from weakref import WeakSet

from companion.distributed import any_rank, say, world_size
from companion.errors import RunError
from companion.optim import UpdateCounter
from companion.repro import random_state
from companion.run import _objects as objects
from companion.run._place import Call, Place
from companion.run._signals import NAMES, Signals

_LONGEST = 256  # 优化器这么多批都没有走，就不再等：多半是看不见（如重放 CUDA 图）


class Loop:
    """``Run`` 的一半：走完一轮又一轮，该存的时候叫 ``_save``。另一半在 ``_run.py``。"""

    _save: Callable[[], Path]  # 写一个存档，返回它的路径
    _record: Callable[[], None]  # 一轮的循环体走完了，记下这一轮
    _look_at: Callable[[Any, int], None]  # 一次 batches 刚开始，看看这个加载器
    _warn: Callable[[str], None]  # 说一次，接着练时哪里对不上

    def __init__(self, every: int | None) -> None:
        self._place, self._every = Place(), every
        self._parts = dict[str, Any]()  # 交来的对象
        self._signals, self._updates = Signals(), UpdateCounter()
        self._unusable = ""  # 不能再用的原因
        self._last: Path | None = None  # 最后的存档
        self._call: Call | None = None  # 正在走的那一次 batches
        self._running = self._stopping = self._wanted = self._gradients_left = False
        self._calls = self._waited = self._due = 0  # 这一轮第几次 batches；等了几批；该存的一步
        self._walks: WeakSet[Generator[Any, None, None]] = WeakSet()  # 给出去的 batches

    def _turns(self, total: int) -> Iterator[int]:
        """一轮一轮的编号；循环体走完一轮，就记录、存档。"""
        place = self._place
        self._running, self._stopping, self._several = True, False, world_size() > 1
        self._watch_updates()
        self._plan()
        self._signals.install(lambda: self._call is not None or self._calls == 0)
        try:
            while place.epoch < total or not place.closed:
                place.next_epoch()
                self._calls, self._call, self._gradients_left = 0, None, False
                yield place.epoch
                self._close_epoch(total)
                if place.stopped:
                    break
        finally:
            self._updates.close()
            self._running = False
            if not place.closed:
                self._break_off()
            self._signals.restore()  # 最后：收到过还没有照办的，这时才说

    def _walk(self, loader: Any, window: int | None) -> Generator[Any, None, None]:
        """一批一批地给出；从断的那一批起。"""
        if not self._running or self._call is not None:
            raise RunError(
                "run.batches 应在 for epoch in run.epochs(…) 的循环体里用，走完一个再开下一个，实际"
                + ("上一个还没有走完" if self._running else "在外面")
                + "。要成对地取，用 loaders(torch.utils.data.StackDataset(a, b), batch_size=…)。"
            )
        index, place = self._calls, self._place
        self._calls += 1
        self._look_at(loader, index)
        iterator = place.open(index, loader, self._warn)
        if iterator is None:
            return
        self._call = call = place.calls[index]
        since = self._updates.count
        try:
            for batch in iterator:
                since = self._updates.count
                yield batch
                call.done += 1
                place.step += 1
                self._boundary(call, window, since)
        except GeneratorExit:  # break：已经用来更新过，就算练过；从来没有数到过更新，也算
            if self._call is call and (self._updates.count != since or not since):
                call.done += 1
                place.step += 1
            raise
        finally:
            if self._call is call:  # 否则是以前留着没走完的，早已不作数
                self._call, self._gradients_left = None, self._waits(call, window, since)
                place.close_call(index, loader)
        self._boundary(call, window, since)

    def _boundary(self, call: Call, window: int | None, since: int) -> None:
        """一步练完了：该存就存，收到过信号就走。梯度还攒着，就等下一个边界。"""
        told = self._signals.received is not None
        self._wanted = self._wanted or 0 < self._due <= self._place.step
        if not (told or self._wanted or self._several):
            return
        if not any_rank(told or self._wanted):  # 几个进程时，每一步只问这一句
            return
        if any_rank(self._waits(call, window, since)):
            self._wanted, self._waited = True, self._waited + 1
            return
        told, call.saved = any_rank(told), random_state()
        path = self._save_now()
        if told:
            self._leave(path)

    def _waits(self, call: Call, window: int | None, since: int) -> bool:
        """梯度还攒着，没有用来更新：此刻存，就丢了。没有说 ``window``，就看优化器走了没有。"""
        if window is not None:
            return call.done % window > 0
        graded = any(p.grad is not None for p in objects.parameters(self._parts))
        waits = graded and self._updates.count == since
        self._waited = self._waited if waits else 0
        return waits and self._waited < _LONGEST

    def _close_epoch(self, total: int) -> None:
        for walk in list(self._walks):  # break 之后还留着的：最后一批这时才算数
            if inspect.getgeneratorstate(walk) == inspect.GEN_SUSPENDED:
                walk.close()
        place, self._call = self._place, None
        self._record()
        place.close_epoch()
        place.stopped = total if any_rank(self._stopping) else 0
        path = self._save_now()
        if any_rank(self._signals.received is not None):
            self._leave(path)

    def _watch_updates(self) -> None:
        whole = not objects.is_split(self._parts)  # 切了片的参数会换，认不准
        self._updates.watch(objects.parameters(self._parts) if whole else None)

    def _save_now(self) -> Path:
        self._last = self._save()
        self._plan()
        return self._last

    def _plan(self) -> None:
        """刚存过：下一次是什么时候。"""
        self._wanted = False
        if self._every:
            self._due = (self._place.step // self._every + 1) * self._every

    def _leave(self, path: Path) -> None:
        number = self._signals.received or SIGTERM  # 别的进程收到的，一起走
        self._signals.received = None
        say(
            f"{NAMES[number]}：已存到 {path}（第 {self._place.epoch} 轮，共 "
            f"{self._place.step} 步）。接着练：同样的程序，Run(…, resume=True)。"
        )
        self._unusable = "它收到信号，已经存好停下"
        raise SystemExit(143) if number == SIGTERM else KeyboardInterrupt

    def _break_off(self) -> None:
        """循环没有走到一轮之末：一批也没有练，当这一轮没有开始；否则，内存里的已对不上存档。"""
        calls = self._place.calls
        if not calls:
            self._place.undo_epoch()
        elif not self._unusable:
            self._unusable = "上一次的循环断在一轮中间，内存里的模型对不上存档了"
            if calls[-1].after is not None:
                last = f"最后的存档是 {self._last.name}" if self._last else "还没有存档"
                last += "，save() 要的那次这一步走完才存，没有等到" * self._wanted
                say(f"第 {self._place.epoch} 轮没有走到收尾；{last}。想存完再停，用 run.stop()。")
