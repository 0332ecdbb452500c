"""目录里给人看的文件：``run.json``（超参数和环境）、``history.csv``、``tensorboard/``。"""

import csv
import importlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from companion.checkpoint import saves
from companion.repro import environment
from companion.run._history import History


def versions() -> dict[str, str]:
    """companion、torch、Python 的版本和此刻的时间。"""
    here = environment()
    return {
        "companion": importlib.import_module("companion").__version__,
        "torch": here.torch,
        "python": here.python,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def write_card(folder: Path, config: Mapping[str, Any]) -> None:
    """第一次存档之前写下 ``run.json``：超参数、版本、环境；之后有了就不动它。"""
    path = folder / "run.json"
    if not path.exists() or not saves(folder):
        card = {"config": config, **versions(), "environment": asdict(environment())}
        _replace(path, json.dumps(card, ensure_ascii=False, indent=2) + "\n")


def write_csv(folder: Path, history: History) -> None:
    """把全部记录写成 ``history.csv``：一轮一行，一列一个名字；矩阵等不是标量的不写。"""
    rows = [{k: v for k, v in record.items() if _is_cell(v)} for record in history]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _replace(folder / "history.csv", text.getvalue())


class Board:
    """TensorBoard 的曲线，写进 ``folder/tensorboard``；没有装 tensorboard 就什么也不做。"""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """写下一轮里的标量；横轴是轮次。接着练时，断点之后的旧点由 TensorBoard 隐去。"""
        if find_spec("tensorboard") is None:
            return
        if self._writer is None:
            writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
            self._writer = writer(str(self._folder), purge_step=record["epoch"])
        for name, value in record.items():
            if name != "epoch" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """写完，关上文件。"""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _is_cell(value: object) -> bool:
    return isinstance(value, int | float | str)


def _replace(path: Path, text: str) -> None:
    """整个换掉：任何时刻，``path`` 要么是旧的，要么是新的。"""
    temporary = path.with_name(f".tmp-{path.name}")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
