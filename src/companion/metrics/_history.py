"""逐轮的记录：一轮一个字典；按列取、找最好的一轮；画曲线用 ``companion.plot.history``。"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from companion._common import numbers
from companion.errors import check_choice


@dataclass(repr=False)
class History:
    """逐轮的记录：``records`` 一轮一个字典，``history["valid_loss"]`` 是其中一列。"""

    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """全部列名，按出现的先后。"""
        return list(dict.fromkeys(name for record in self.records for name in record))

    def __getitem__(self, name: str) -> list[Any]:
        """名为 ``name`` 的一列，一轮一个值；那一轮没有记它就是 ``None``。"""
        check_choice("列名", name, self.names)
        return [record.get(name) for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __repr__(self) -> str:
        last = f"；最后一轮 {numbers(self.records[-1])}" if self.records else ""
        return f"History({len(self.records)} 轮{last})"

    def to_csv(self) -> str:
        """CSV 的全文：一轮一行，一列一个名字；矩阵等不是标量的不写。"""
        rows = [
            {name: value for name, value in record.items() if isinstance(value, int | float | str)}
            for record in self.records
        ]
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def best(
        self, name: str, mode: str = "min", min_delta: float = 0.0
    ) -> tuple[int, float] | None:
        """``name`` 最好的一轮和那时的值 ``(轮次, 值)``；一个能比的数也没有就是 ``None``。

        比前面最好的还好出 ``min_delta`` 以上，才算更好；所以并列取最早的。nan 不算数。轮次取自记录
        里的 ``epoch``，没有就从 1 数。

        Raises:
            ArgumentError: ``mode`` 不是 ``"min"``（越小越好）或 ``"max"``（越大越好）。
        """
        found = self._best(name, mode, min_delta)
        if found is None:
            return None
        record = self.records[found]
        return int(record.get("epoch", found + 1)), float(record[name])

    def stalled(self, name: str, mode: str, patience: int, min_delta: float = 0.0) -> bool:
        """``name`` 是不是已经连续 ``patience`` 轮没有变好；怎样算变好，同 ``best``。

        只看记录，所以中断后接着练，回答也一样。

        Raises:
            ArgumentError: 没有叫 ``name`` 的列，或 ``mode`` 不对。
        """
        if self.records:
            check_choice("列名", name, self.names)
        best = self._best(name, mode, min_delta)
        return len(self.records) - 1 - (-1 if best is None else best) >= patience

    def _best(self, name: str, mode: str, min_delta: float) -> int | None:
        """最好的一轮在 ``records`` 里的下标。"""
        check_choice("mode", mode, ("min", "max"))
        sign = 1 if mode == "min" else -1
        found, best = None, 0.0
        values: list[Any] = [record.get(name) for record in self.records]
        for i, value in enumerate(values):
            known = _is_number(value) and value == value
            if known and (found is None or sign * value < best - min_delta):
                found, best = i, sign * value
        return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
