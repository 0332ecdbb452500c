"""走到了哪里：第几轮、第几批，那些时刻的随机数。都是普通的值，可以存。

随机数记在四个时刻，接着练时各有各的用处：这一轮的开头（``rng``），一次 ``batches`` 的开头
（``before``，次序由它抽）、存档时（``saved``，之后的 dropout 等由它抽）、结束时（``after``）。
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from companion.repro import (
    generator_state,
    random_state,
    restore_generator_state,
    restore_random_state,
)
from companion.run._order import Report, announce, generators, looks_of, start


@dataclass
class Call:
    """一轮里的一次 ``run.batches``，和三个时刻的随机数：开始前、存档时、结束后。"""

    own: list[Any]  # 开始前，加载器自带的发生器
    before: dict[str, Any]
    saved: dict[str, Any] | None = None
    after: dict[str, Any] | None = None  # 结束了才有
    done: int = 0  # 练完了几批


@dataclass
class Feed:
    """每一轮第几次 ``run.batches`` 的加载器：样子，它自带的发生器最初和上一轮用完时的状态。"""

    looks: dict[str, int]  # 批数、批量、样本数、种子
    first: list[Any]
    last: list[Any]
    reseeded: bool = False  # 两轮之间有人动过它，如每轮 g.manual_seed(epoch)：那就不归我们恢复


@dataclass
class Place:
    """一次运行走到的地方。"""

    step: int = 0  # 一共练完几步
    epoch: int = 0  # 从 1 数；0 是还没有开始
    closed: bool = True  # 这一轮已经收尾
    stopped: int = 0  # run.stop() 时说好的总轮数；没有叫停是 0
    rng: dict[str, Any] | None = None  # 这一轮开始时的；收尾后是收尾时的
    calls: list[Call] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.met: dict[int, list[Any]] = {}  # 这个进程里见过的加载器自带的发生器；不存

    def __str__(self) -> str:
        if self.closed:
            return f"第 {self.epoch + 1} 轮开头（已练 {self.step} 步）"
        if not self.calls:
            return f"第 {self.epoch} 轮的各批之前（已练 {self.step} 步）"
        last, whole = self.calls[-1], self.feeds[len(self.calls) - 1].looks.get("批数")
        if last.after or last.done == whole:
            return f"第 {self.epoch} 轮的各批之后（已练 {self.step} 步）"
        return f"第 {self.epoch} 轮第 {last.done + 1} 批（第 {self.step + 1} 步）"

    def next_epoch(self) -> None:
        """开始下一轮；这一轮还没有收尾，就回到它的开头。"""
        if self.rng is not None:
            restore_random_state(self.rng)
        if self.closed:
            self.epoch, self.closed, self.calls = self.epoch + 1, False, []
            self.rng = random_state()

    def close_epoch(self) -> None:
        """这一轮收尾。"""
        for index, found in self.met.items():  # 验证也许用的是同一个发生器，所以再记一遍
            self.feeds[index].last = _states(found)
        self.closed, self.calls, self.rng = True, [], random_state()

    def undo_epoch(self) -> None:
        """这一轮一批也没有练：当它没有开始。"""
        self.epoch, self.closed = self.epoch - 1, True

    def open(self, index: int, loader: Any, report: Report) -> Iterator[Any] | None:
        """这一轮第 ``index`` 次 ``batches``，从断的那一批起；存档前就走完了的是 ``None``。"""
        announce(loader, self.epoch)
        found = generators(loader)
        if index == len(self.calls):
            self._take_over(index, loader, found)
            self.calls.append(Call(_states(found), random_state()))
            return start(loader, 0, report)[0]
        self.met[index] = found
        call, feed = self.calls[index], self.feeds[index]
        if call.after is not None:
            _restore(found, feed.last)
            restore_random_state(call.after)
            return None
        _restore(found, call.own)
        restore_random_state(call.before)
        iterator, draw = start(loader, call.done, report)
        draw()  # 次序用的是 before 的随机数，抽完才换成存档时的
        assert call.saved is not None
        restore_random_state(call.saved)
        return iterator

    def close_call(self, index: int, loader: Any) -> None:
        """第 ``index`` 次 ``batches`` 走完了，或者被 break 了。"""
        self.calls[index].after = random_state()
        self.met[index] = generators(loader)
        self.feeds[index].last = _states(self.met[index])

    def changed(self, index: int, looks: Mapping[str, int]) -> str:
        """第 ``index`` 次的加载器与存档时比，样子变了什么；没有变是空串。"""
        saved = self.feeds[index].looks if index < len(self.feeds) else {}
        both = [name for name in saved if name in looks and saved[name] != looks[name]]
        return "，".join(f"{name} {saved[name]} 成了 {looks[name]}" for name in both)

    def moments(self) -> list[dict[str, Any]]:
        """记着的各个时刻的随机数。"""
        calls = [moment for call in self.calls for moment in (call.before, call.saved, call.after)]
        return [moment for moment in (self.rng, *calls) if moment is not None]

    def state_dict(self) -> dict[str, Any]:
        """普通的字典。"""
        state = {each.name: getattr(self, each.name) for each in fields(self)}
        return state | {key: [dict(vars(x)) for x in state[key]] for key in ("calls", "feeds")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """回到 ``state_dict()`` 的时候。"""
        calls = [Call(**call) for call in state["calls"]]
        feeds = [Feed(**feed) for feed in state["feeds"]]
        loaded = Place(**{**state, "calls": calls, "feeds": feeds})
        if not all(type(n) is int for n in (loaded.step, loaded.epoch, loaded.stopped)):
            raise TypeError("step、epoch、stopped 应是整数")
        vars(self).update(vars(loaded))

    def _take_over(self, index: int, loader: Any, found: list[Any]) -> None:
        """新的一轮用到它：新进程里第一次，让它的发生器接着上一轮；有人每轮重设种子的除外。"""
        now = _states(found)
        if index == len(self.feeds):
            self.feeds.append(Feed({}, now, now))
        feed = self.feeds[index]
        if index in self.met:
            feed.reseeded = now != feed.last
        elif now == feed.first and not feed.reseeded:
            _restore(found, feed.last)
        feed.looks = looks_of(loader)
        self.met[index] = found


def _states(sources: list[Any]) -> list[Any]:
    return [generator_state(source) for source in sources]


def _restore(sources: list[Any], saved: list[Any]) -> None:
    """让各个发生器回到 ``_states`` 记下的那一刻；个数变了就不动。"""
    for source, old in zip(sources, saved, strict=True) if len(sources) == len(saved) else ():
        restore_generator_state(source, old)
