"""数一数：判对几个，每一类真的有几个、判了几个、对了几个。只在 ``compute`` 时读数值。"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from companion.errors import DataError, ShapeError
from companion.metrics._layout import Layout

_BLOCK, _SMALL = 256, 4096  # 小批攒够这么多个再数；一批的元素多过 _SMALL，当时就数


class Hits:
    """判对几个、一共几个、标签不合法几个。小批先攒着，一起数更快；大批当时就数。"""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.reset()

    def reset(self) -> None:
        """忘掉全部。"""
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._limit = 2  # 标签应小于它
        self._sums: Tensor | None = None  # 对的、算数的、不合法的

    def add(self, right: Tensor, targets: Tensor, limit: int) -> None:
        """记下一批：``right`` 是判对了没有，与 ``targets`` 同形状。"""
        if limit != self._limit:
            self._flush()
            self._limit = limit
        self._pending.append((right, targets.clone()))  # 复制：别人可能就地改它
        if len(self._pending) >= _BLOCK or targets.numel() > _SMALL:
            self._flush()

    @property
    def classes(self) -> int:
        """合法的标签小于它。"""
        return self._limit

    def totals(self) -> list[int]:
        """``[对的, 算数的, 不合法的]``；这时才读数值。"""
        self._flush()
        return [0, 0, 0] if self._sums is None else self._sums.tolist()

    def load(self, totals: Sequence[int]) -> None:
        """换成 ``totals``。"""
        self.reset()
        self._sums = torch.tensor(totals)

    def _flush(self) -> None:
        if not self._pending:
            return
        right = torch.cat([part.flatten() for part, _ in self._pending])
        targets = torch.cat([part.flatten() for _, part in self._pending])
        self._pending = []
        kept, legal = _marks(self._layout, targets, self._limit)
        found = torch.stack([(right & kept & legal).sum(), kept.sum(), (kept & ~legal).sum()])
        before = self._sums
        self._sums = found if before is None else found + before.to(found.device)


class ClassCounts:
    """每一类（多标签是每个标签）真的有几个、判了几个、对了几个，只占 O(C)。"""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.reset()

    def reset(self) -> None:
        """忘掉全部；类别数也从下一批重新得知。"""
        self._counts: Tensor | None = None  # 形状 (3, C + 1)；最后一列是不算的，多标签是算的个数
        self._illegal: Tensor | int = 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """记下一批；形状、dtype 核对过。"""
        outputs, targets = self._layout.scores(outputs, targets)
        guess = self._layout.guesses(outputs)
        task = self._layout.task
        classes = outputs.shape[1] if task == "multiclass" else 2
        kept, legal = _marks(self._layout, targets, classes)
        self._illegal = self._illegal + (kept & ~legal).sum()
        used = kept & legal
        if task == "multilabel":
            truth = targets == 1
            each = torch.stack([truth & used, guess & used, truth & guess & used]).sum(dim=1)
            self._join(torch.cat([each, used.sum().expand(3, 1)], dim=1))
            return
        truth, chosen = targets.flatten().long(), guess.flatten().long()
        rows = torch.stack([truth, chosen, truth.where(truth == chosen, classes)])
        rows = rows.where(used.flatten(), classes)  # 不算的都记在最后一列
        counts = torch.zeros(3, classes + 1, dtype=torch.int64, device=rows.device)
        self._join(counts.scatter_add(1, rows, torch.ones_like(rows)))

    def compute(self, name: str) -> Tensor:
        """``(真的, 判的, 对的)``，形状 ``(3, C)``，``float64``，在 CPU 上。"""
        counts = torch.zeros(3, 1).long() if self._counts is None else self._counts.cpu()
        many = self._layout.task == "multilabel"
        total = counts[0, -1] if many else counts[0, :-1].sum()
        classes = counts.shape[1] - 1 if self._layout.task == "multiclass" else 2
        check_counted(int(self._illegal), int(total), name, classes)
        return counts[:, :-1].double()

    def state_dict(self) -> dict[str, Any]:
        """``{"counts": (3, C + 1), "illegal": 个数}``；没记过 ``counts`` 是 ``None``。"""
        counts = None if self._counts is None else self._counts.cpu()
        return {"counts": counts, "illegal": int(self._illegal)}

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """换成 ``states`` 合起来的。"""
        self.reset()
        for state in states:
            self._illegal += state["illegal"]
            if state["counts"] is not None:
                self._join(state["counts"])

    def _join(self, counts: Tensor) -> None:
        if self._counts is not None and self._counts.shape != counts.shape:
            raise ShapeError(
                f"类别数应与前面的批相同，是 {self._counts.shape[1] - 1}，实际是 "
                f"{counts.shape[1] - 1}。先 reset()。"
            )
        self._counts = counts if self._counts is None else counts + self._counts.to(counts.device)


def check_counted(illegal: int, total: int, name: str, classes: int) -> None:
    """标签都合法，至少有一个，就什么也不做。"""
    if illegal:
        raise DataError(
            f"标签应在 0 到 {classes - 1} 之间，有 {illegal} 个不在。请检查类别编号是否从 0 开始；"
            "有意不算的位置，写 ignore_index=。"
        )
    if total == 0:
        raise DataError(f"一个样本都没有，{name}没有定义。请先 update 至少一批（不算的不作数）。")


def _marks(layout: Layout, targets: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """哪些位置算，哪些标签合法。"""
    if layout.task == "multiclass":
        legal = (targets >= 0) & (targets < limit)
    else:
        legal = (targets == 0) | (targets == 1)
    kept = layout.kept(targets)
    return torch.ones_like(legal) if kept is None else kept, legal
