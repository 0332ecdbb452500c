"""数数的指标，共同的一半：攒着、一起数、存、取、合并。只在问的时候读数值。"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from companion.errors import DataError, ShapeError
from companion.metrics._layout import TASKS, Layout, check_sizes, check_state

_BLOCK, _ROOM = 256, 1 << 18  # 小批攒够这么多批，或得分攒够这么多个，就一起数


class Tally:
    """各批数出来的相加；子类写怎么数（``_count``）、由总数得出什么（``compute``）。"""

    _name = ""  # 消息里怎么称呼
    _key = "counts"  # 存下来叫什么；数法不同的，名字不同
    _fixed = True  # 各批的类别数要相同
    _room = _ROOM

    def __init__(self, layout: Layout, tasks: Sequence[str] = TASKS) -> None:
        self._layout = layout.checked(tasks)
        self.reset()

    def reset(self) -> None:
        """忘掉全部，从头记；类别数也从下一批重新得知。"""
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._held = 0  # 攒着的得分有几个
        self._kind: tuple[int, torch.device] | None = None  # 攒着的是几类，在哪里
        self._classes: int | None = None  # 几类（或几个标签）；各批不同是 0
        self._sums: list[Tensor] = []  # _count 数的；要算的、标签合法的、得分是 nan 的各几个

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批。

        Args:
            outputs: 类别得分，形状 ``(B, C)`` 或 ``(B, C, …)``；最大的一类算作预测。
            targets: 类别编号，形状 ``(B,)`` 或 ``(B, …)``，``int64``。另两种 ``task`` 是 0 和 1，
                与输出同形状。

        Raises:
            ArgumentError, ShapeError, DtypeError: 两者配不上，消息里写着怎么改。
        """
        outputs, targets = self._layout.read(outputs, targets)
        kind = self._layout.columns(outputs), outputs.device
        if kind != self._kind:
            self._change(kind)
        self._held += outputs.numel()
        if self._held > self._room or len(self._pending) >= _BLOCK:
            self._pending.append((outputs, targets))
            self._flush()
        else:  # 复制：别人可能就地改它
            self._pending.append((outputs.clone(), targets.clone()))

    def state_dict(self) -> dict[str, Any]:
        """``{task: 几类, 数的名字: 数到的, "seen": 要算的、标签合法的、得分是 nan 的个数}``。

        都在 CPU 上；没记过都是 ``None``。
        """
        self._flush()
        counts, seen = [part.cpu().clone() for part in self._sums] or (None, None)
        return {self._layout.task: self._classes, self._key: counts, "seen": seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 接着记。"""
        self.merge([state])

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的：各自相加。

        Raises:
            ArgumentError: 是别的指标、别的 ``task`` 存下的。
            ShapeError: 各份的类别数不同。
        """
        task = self._layout.task
        for state in states:
            check_state(state, (task, self._key, "seen"))
        given = [state for state in states if state["seen"] is not None]
        sizes = {state[task] for state in given}
        if self._fixed:
            check_sizes("类别数", sizes)
        self.reset()
        if given:
            self._classes = sizes.pop() if len(sizes) == 1 else 0
            parts = [torch.stack([state[key] for state in given]) for key in (self._key, "seen")]
            self._sums = [part.sum(dim=0) for part in parts]

    def _count(self, outputs: Tensor, truth: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        """一维的、各批可以相加的数，只数 ``used`` 的；和哪些位置的得分是 nan。"""
        raise NotImplementedError

    def _totals(self) -> tuple[Tensor, int]:
        """全部批的 ``_count`` 之和，在 CPU 上，和算了几个。

        Raises:
            DataError: 标签不合法，得分里有 nan，或一个也没有算。
        """
        state = self.state_dict()
        seen = [0, 0, 0] if state["seen"] is None else state["seen"].tolist()
        check_counted(self._name, self._layout.limit(self._classes or 0), *seen)
        return state[self._key], seen[0]

    def _change(self, kind: tuple[int, torch.device]) -> None:
        """换了类别数或设备：攒着的先数掉。"""
        columns = kind[0]
        if self._classes not in (None, columns):
            if self._fixed:
                raise ShapeError(
                    f"类别数应与前面的批相同，是 {self._classes}，实际是 {columns}。先 reset()。"
                )
            columns = 0
        self._flush()
        self._kind, self._classes = kind, columns

    def _flush(self) -> None:
        if not self._pending or self._kind is None:
            return
        pending, self._pending, self._held = self._pending, [], 0
        if len(pending) > 1:
            flat = [self._layout.flat(*pair) for pair in pending]
            pending = [(torch.cat([o for o, _ in flat]), torch.cat([t for _, t in flat]))]
        outputs, targets = pending[0]
        truth, kept, used = self._layout.marks(targets, self._kind[0])
        sums, broken = self._count(outputs, truth, used)
        found = [sums, torch.stack([kept, used, broken & used]).flatten(1).sum(dim=1)]
        before = self._sums or [torch.zeros_like(part) for part in found]
        self._sums = [new + old.to(new.device) for new, old in zip(found, before, strict=True)]


def bins(index: Tensor, used: Tensor, size: int) -> Tensor:
    """``0 … size - 1`` 各出现几次，形状 ``(size,)``，``int64``；只数 ``used`` 的。"""
    index = index.where(used, size).flatten()  # 不算的都记在最后一格
    counts = torch.zeros(size + 1, dtype=torch.int64, device=index.device)
    return counts.index_add(0, index, torch.ones_like(index))[:-1]


def check_counted(name: str, limit: int, kept: int, legal: int, broken: int) -> None:
    """要算的标签都小于 ``limit``，得分都不是 nan，至少有一个，就什么也不做。"""
    if kept > legal:
        most = str(limit - 1) if limit else "C - 1"  # 各批的类别数不同
        raise DataError(
            f"标签应在 0 到 {most} 之间，有 {kept - legal} 个不在。"
            "请检查类别编号是否从 0 开始；有意不算的位置，写 ignore_index=。"
        )
    if broken:
        raise DataError(
            f"得分里不应有 nan，有 {broken} 个位置是 nan，{name}没有定义。请检查模型的输出："
            "学习率太大、除以 0、inf 减 inf 都会这样。"
        )
    if not kept:
        raise DataError(f"一个样本都没有，{name}没有定义。请先 update 至少一批（不算的不作数）。")
