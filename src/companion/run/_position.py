"""训练走到了哪里：第几轮、第几批、那些时刻的随机数状态。都是普通的值，可以存。"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from companion.repro import random_state, restore_random_state
from companion.run._held import Contents, restore, states
from companion.run._order import (
    Inexact,
    Report,
    announce,
    length,
    own_contents,
    own_sources,
    start,
    why_changed,
)


@dataclass
class Call:
    """一轮里的一次 ``run.batches``，和三个时刻的随机数：开始前、存档时、结束后。"""

    length: int | None  # 加载器说自己有几批
    own: list[Any]  # 开始前，加载器自带的发生器
    before: dict[str, Any]
    now: dict[str, Any] | None = None
    after: dict[str, Any] | None = None  # 结束了才有
    done: int = 0  # 练完了几批


@dataclass
class Own:
    """第几次 ``run.batches`` 的加载器，它自带的发生器：最初的状态，和这一轮用完时的。

    一轮收尾时再记一遍：验证也许用的是同一个发生器。
    """

    first: list[Any]
    last: list[Any]
    reseeded: bool = False  # 两轮之间有人动过它，如每轮 g.manual_seed(epoch)：那就不归我们恢复


@dataclass
class Met:
    """这个进程里用过的一个加载器：它的发生器，和次序记在哪里；不存，也不拿着加载器。"""

    sources: list[Any]
    contents: Contents


@dataclass
class Position:
    """一次运行走到的地方。"""

    step: int = 0  # 一共练完几步
    epoch: int = 0  # 从 1 数；0 是还没有开始
    closed: bool = True  # 这一轮已经收尾
    stopped: int = 0  # run.stop() 时说好的总轮数；没有叫停是 0
    rng: dict[str, Any] | None = None  # 这一轮开始时的；收尾后是收尾时的
    calls: list[Call] = field(default_factory=list)
    own: list[Own] = field(default_factory=list)
    seen: dict[int, Met] = field(default_factory=dict)  # 第几次 batches 的加载器；不存

    def next_epoch(self) -> None:
        """开始下一轮；这一轮还没有收尾，就回到它的开头。"""
        if self.rng is not None:
            restore_random_state(self.rng)
        if self.closed:
            self.epoch, self.closed, self.calls = self.epoch + 1, False, []
            self.rng = random_state()

    def close(self) -> None:
        """这一轮收尾。"""
        for index, met in self.seen.items():
            self.own[index].last = states(met.sources)
            met.contents.release()
        self.closed, self.calls, self.rng = True, [], random_state()

    def undo(self) -> None:
        """这一轮一批也没有练：当它没有开始。"""
        self.epoch, self.closed = self.epoch - 1, True

    def open_call(self, index: int, loader: Any, report: Report) -> Iterator[Any] | None:
        """这一轮第 ``index`` 次 ``batches``，从断的那一批起；存档前就走完了的是 ``None``。"""
        announce(loader, self.epoch)
        found = own_sources(loader)
        if index == len(self.calls):
            self._meet(index, found)
        self._look(index, loader, report)
        self.seen[index] = Met(found, own_contents(loader))
        if index == len(self.calls):
            self.calls.append(Call(length(loader), states(found), random_state()))
            return start(loader, 0, report)[0]
        call = self.calls[index]
        if call.after is not None:
            restore(found, self.own[index].last)
            restore_random_state(call.after)
            return None
        if length(loader) != call.length:
            reason = f"加载器存档时有 {call.length} 批，现在有 {length(loader)} 批"
            report(Inexact(reason, "请用原来的数据和批量"))
        restore(found, call.own)
        restore_random_state(call.before)
        iterator, draw = start(loader, call.done, report)
        draw()  # 次序用的是 before 的随机数，抽完才换成存档时的
        assert call.now is not None
        restore_random_state(call.now)
        return iterator

    def close_call(self, index: int, loader: Any, report: Report) -> None:
        """第 ``index`` 次 ``batches`` 走完了，或者被 break 了。"""
        self.calls[index].after = random_state()
        met = self.seen[index]
        met.sources = own_sources(loader)
        self.own[index].last = states(met.sources)
        self._look(index, loader, report)

    def state_dict(self) -> dict[str, Any]:
        """普通的字典。"""
        state = {name: value for name, value in vars(self).items() if name != "seen"}
        state["calls"] = [dict(vars(call)) for call in self.calls]
        return state | {"own": [dict(vars(own)) for own in self.own]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """回到 ``state_dict()`` 的时候。"""
        vars(self).update(state)
        self.calls = [Call(**call) for call in state["calls"]]
        self.own = [Own(**own) for own in state["own"]]

    def _meet(self, index: int, found: list[Any]) -> None:
        """新的一轮用到它：新进程里第一次，让它的发生器接着上一轮；有人每轮重设种子的除外。"""
        now = states(found)
        if index == len(self.own):
            self.own.append(Own(now, now))
        own = self.own[index]
        if index in self.seen:
            own.reseeded = now != own.last
        elif now == own.first and not own.reseeded:
            restore(found, own.last)

    def _look(self, index: int, loader: Any, report: Report) -> None:
        """上次看过之后，次序有没有就地改过。"""
        if index in self.seen and self.seen[index].contents.changed():
            report(why_changed(loader))
