"""练多少、练到什么时候：一轮是 ``train`` 走一遍，或固定的几次更新；看哪一列定好坏。"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from companion.distributed import say
from companion.errors import ArgumentError, DataError, check_choice, check_whole
from companion.metrics import History
from companion.run import Run
from companion.train._progress import size


class Goal(NamedTuple):
    """看 ``monitor`` 这一列：提前停、最好的一轮、``ReduceLROnPlateau`` 都用它。"""

    monitor: str
    mode: str
    min_delta: float
    patience: int | None

    def check(self, names: Sequence[str], plateau: Any) -> None:
        """一轮的记录会有 ``names`` 这些列；配得上就什么也不做。"""
        check_choice("mode", self.mode, ("min", "max"))
        if not (isinstance(self.min_delta, int | float) and self.min_delta >= 0):
            raise ArgumentError(f"min_delta 应是不小于 0 的数，实际是 {self.min_delta!r}。")
        if self.patience is not None:
            check_whole("patience", self.patience, hint="不要提前停请留 None。")
        asked = self.patience is not None or plateau is not None
        if (asked or self.monitor != "valid_loss") and self.monitor not in names:
            raise ArgumentError(
                f"monitor 应是记录里的一列：{'、'.join(names)}，实际是 {self.monitor!r}。"
                "valid_ 开头的要给 valid；指标的名字见 metrics=。"
            )
        if plateau is not None and plateau.mode != self.mode:
            raise ArgumentError(
                f"ReduceLROnPlateau 的 mode 应与 fit 的相同，实际是 {plateau.mode!r} 和 "
                f"{self.mode!r}；它看的是 monitor={self.monitor!r}。越大越好的两处都写 'max'，"
                "并把 monitor 写成那一列。"
            )

    def config(self) -> dict[str, Any]:
        """写进 ``run.json`` 的。"""
        return self._asdict()

    def check_value(self, record: Mapping[str, Any]) -> None:
        """``record`` 里要看的是一个数，或者没有这一列，就什么也不做。"""
        value = record.get(self.monitor, 0.0)
        if not isinstance(value, int | float):
            raise ArgumentError(
                f"monitor={self.monitor!r} 应是一个数，实际是 {type(value).__name__}。请换一列。"
            )

    def stop_reason(self, history: History) -> str:
        """该提前停了就是一句话，不该是空串。"""
        how = (self.monitor, self.mode)
        if self.patience is None or not history.records:
            return ""
        if not history.stalled(*how, self.patience, self.min_delta):
            return ""
        best = history.best(*how, self.min_delta)
        word = "低" if self.mode == "min" else "高"
        where = f"最{word}的是第 {best[0]} 轮" if best else "它一直是 nan"
        stopped = f"{self.monitor} 连续 {self.patience} 轮没有变{word}，停在第 {len(history)} 轮"
        return f"{stopped}；{where}。"


class Plan:
    """练多少：``epochs`` 轮，或 ``max_steps`` 次更新；``valid_every`` 次更新算一轮，不给就是一遍。

    ``train`` 是每一轮要走的加载器，``limit`` 是最多几轮；``batches``、``updates`` 是一共几批、更新
    几次，说不出来是 ``None``。按更新次数练的，一组总是 ``accumulate`` 批，可以跨过两遍的接头。

    Raises:
        ArgumentError: 没有说练多少，说了两遍，不是正整数，或 ``valid_every`` 无从算起。
    """

    def __init__(
        self,
        source: Iterable[Any],
        epochs: int | None,
        max_steps: int | None,
        valid_every: int | None,
        accumulate: int,
    ) -> None:
        epochs, max_steps, valid_every = _amounts(epochs, max_steps, valid_every)
        self.source, self.accumulate = source, accumulate
        self._given = {"epochs": epochs, "max_steps": max_steps, "valid_every": valid_every}
        self._sliced = max_steps is not None or valid_every is not None
        passes, length = epochs or 0, size(source)
        self.batches = None if length is None else passes * length
        self.updates = None if length is None else passes * _windows(length, accumulate)
        if max_steps is not None:
            self.batches = max_steps * accumulate
        if self.batches is None:
            _no_length(valid_every)
        self.limit = passes
        self.train: Any = source
        if self._sliced and self.batches is not None:
            self.updates = _windows(self.batches, accumulate)
            self.limit = self.batches  # 一轮至少一批，所以不会不够
            once = self.limit if length is None else _windows(length, accumulate)
            self._a_round = (valid_every or once) * accumulate
            self.train = Rounds(source, self._a_round, self.limit)

    def start(self, done: Callable[[], int]) -> None:
        """恢复之后：``done()`` 是一共练完了几批。"""
        self._done = done
        if self._sliced:
            self.train.done = done

    def walk(self, journal: Run) -> Iterator[Any]:
        """这一轮的各批。"""
        return journal.batches(self.train, window=self.accumulate)

    def is_done(self) -> bool:
        """按更新次数练的，练够了没有。"""
        return self._sliced and self._done() >= self.limit

    def rounds(self, epoch: int, inside: int) -> int:
        """一共几轮；现在是第 ``epoch`` 轮，它走了 ``inside`` 批还没有走完（0 是走完了）。"""
        if not self._sliced:
            return self.limit
        rest = self.limit - self._done() + inside
        return epoch - bool(inside) + -(-rest // self._a_round)

    def config(self) -> dict[str, Any]:
        """写进 ``run.json`` 的。"""
        return {name: value for name, value in self._given.items() if value is not None}


def _amounts(epochs: Any, max_steps: Any, valid_every: Any) -> tuple[int | None, ...]:
    """三个数核对过，都成了 ``int``；没给的还是 ``None``。"""
    if (epochs is None) == (max_steps is None):
        given = "都没给" if epochs is None else "都给了"
        raise ArgumentError(
            f"epochs（几轮）和 max_steps（几次更新）应给且只给一个，实际{given}。"
            "没有尽头的数据用 max_steps=，再用 valid_every= 说几次更新算一轮。"
        )
    hints = {"epochs": "只想评估请调用 evaluate()。", "max_steps": "只想评估请调用 evaluate()。"}
    hints["valid_every"] = "每走一遍验证一次的，不用给。"
    given_numbers = (epochs, max_steps, valid_every)
    return tuple(
        None if value is None else check_whole(name, value, hint=hint)
        for (name, hint), value in zip(hints.items(), given_numbers, strict=True)
    )


def _no_length(valid_every: int | None) -> None:
    if valid_every is not None:
        raise ArgumentError(
            "valid_every= 和 epochs= 一起用时，train 应说得出一遍有几批（len），实际说不出。"
            "请改用 max_steps=。"
        )
    say("train 说不出一遍有几批：要是没有尽头，第 1 轮就不会结束，请改用 max_steps=。")


def _windows(batches: int, accumulate: int) -> int:
    """这么多批更新几次；最后不足一组的也更新一次。"""
    return -(-batches // accumulate)


class Rounds:
    """把 ``source`` 首尾相接，切成一段一段，每段 ``a_round`` 批，一共 ``batches`` 批。

    第几批由 ``done()`` 说了算（已经练完几批），所以断在哪里，就从哪里接着走。``source`` 的每一遍
    是它的一轮：从第 1 轮起，每遍之前 ``set_epoch``。
    """

    def __init__(self, source: Iterable[Any], a_round: int, batches: int) -> None:
        self.source, self._a_round, self._batches = source, a_round, batches
        self.done: Callable[[], int] = lambda: 0
        self._walk: Iterator[Any] | None = None  # 不能从中间开始的，就一直接着这一个走
        self._next = 0  # 它的下一批是第几批

    def __len__(self) -> int:
        return min(self._a_round, self._batches - self.done())

    def __iter__(self) -> Iterator[Any]:
        return self.iter_from(0)

    def iter_from(self, start: int) -> Iterator[Any]:
        """这一段的第 ``start`` 批（从 0 数）起；前面 ``start`` 批已经练完了。"""
        first = self.done()
        stop = min(first - start + self._a_round, self._batches)
        if self._walk is None or self._next != first:
            self._walk, self._next = self._from(first), first
        return self._counted(islice(self._walk, stop - first))

    def _counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._next += 1
            yield batch

    def _from(self, first: int) -> Iterator[Any]:
        """第 ``first`` 批起的各批，走完一遍再来一遍。"""
        source: Any = self.source
        length = size(source)
        whole, skip = divmod(first, length) if length else (0, first)
        while True:
            whole += 1
            if hasattr(source, "set_epoch"):
                source.set_epoch(whole)
            if hasattr(source, "iter_from"):
                walk, got = source.iter_from(skip), False
            else:
                walk, got = islice(iter(source), skip, None), False
            for batch in walk:
                got = True
                yield batch
            if not got:
                raise DataError(
                    "train 应能一遍一遍地走，实际走完了就没有了（或者是空的）。"
                    "只能走一遍的生成器请换成 DataLoader，或把 max_steps 改小。"
                )
            skip = 0
