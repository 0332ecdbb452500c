"""一次运行要存的全部：对象、走到的地方、记录、超参数；怎样存下，怎样恢复。"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from companion.distributed import any_rank, gather_objects, is_main, rank, world_size
from companion.errors import ArgumentError, CheckpointError, RunError
from companion.repro import random_state
from companion.run import _parts as parts
from companion.run import _words as words
from companion.run._files import versions, write_card
from companion.run._given import check_stateful
from companion.run._order import Inexact
from companion.run._position import Position
from companion.run._records import Records
from companion.run._store import Store
from companion.run._watch import Watch, models_finite

_DEFAULT_BEST = "valid_loss"
_HIGHER = {"acc", "accuracy", "auc", "auroc", "f1"}  # 名字里有这些词的列，越大越好


class Session:
    """``directory`` 里的一次运行；参数同 ``Run``。"""

    def __init__(
        self,
        directory: Path,
        *,
        resume: bool,
        keep: int,
        best: str | None,
        mode: str,
        config: Mapping[str, Any] | None,
    ) -> None:
        self.directory, self._best, self._mode = directory, best, mode
        self._given, self._objects = _json_only(config or {}), dict[str, Any]()
        self.position, self.records = Position(), Records(directory)
        self.inexact: str | None = None  # 不能从一轮中间精确接着练的原因
        self._store = Store(directory, resume=resume, keep=keep)
        found = self._store.found
        # 上一份存档的权重里没有 nan 和 inf
        self._finite = bool(found is None or found.info.get("finite", True))
        self._saved = dict(found.info["config"]) if found else {}  # 存档里的超参数
        self._pending = found is not None  # 有存档，还没有恢复
        self._news = ""  # 恢复之后要说的第一句
        self._said = set[Callable[..., str]]()  # 一次运行里只说一遍的
        if found:
            self._adopt(self._store.rest())

    def attach(self, objects: Mapping[str, Any]) -> None:
        """收下对象；存档里有的都给全了，就恢复。见 ``Run.attach``。"""
        new = {name: part for name, part in objects.items() if part is not None}
        for name, part in new.items():
            check_stateful(name, part)
        together = self._objects | new
        parts.check_optimizers(new)
        if self._pending and self._store.kinds.keys() <= together.keys():
            self._restore(together)
        elif self._store.found and not self._pending:
            parts.check_names(self._store.kinds, together)
        if self.position.epoch and not self._pending:
            parts.hand_over(self._objects, new)
        self._objects = together

    def begin(self) -> None:
        """开始循环之前：存档里有的都要已经恢复。

        Raises:
            MismatchError: 存档里的对象没有给全，一个也没有装。
        """
        parts.check_optimizers(self._objects)
        if self._pending:
            self._restore(self._objects)
        elif not self.position.epoch and parts.is_used(self._objects):
            self._once(words.already_used)
        if self._best and self._mode == "min" and _is_higher(self._best):
            self._once(words.which_mode, self._best)

    def announce(self) -> None:
        """说一次：从哪里接着练，哪些超参数变了。"""
        if self._news:
            say(self._news)
            ours, homes = parts.describe(self._objects), parts.rate_homes(self._objects)
            used = parts.scalars(self._objects)
            say(words.differences(self._saved, ours | self._given, used, homes))
            self._news = ""

    def config(self) -> dict[str, Any]:
        """全部超参数：从对象看出来的（接着练时，用的是存档里的），和给了的。"""
        seen, used = parts.describe(self._objects), parts.scalars(self._objects)
        config = seen | {n: v for n, v in self._saved.items() if n in seen} | self._given
        return config | {n: v for n, v in self._saved.items() if n in used}

    def update_config(self, values: Mapping[str, Any]) -> None:
        """补上超参数；``batch_size`` 等开始之后才知道的，与存档不同也说一句。"""
        self._given |= _json_only(values)
        if not self._news:
            late = {name: value for name, value in values.items() if name == "batch_size"}
            say(words.differences(self._saved, late))

    def offer_config(self, values: Mapping[str, Any]) -> None:
        """补上看出来的超参数；人给过的，听人的。"""
        self.update_config({n: v for n, v in values.items() if n not in self._given})

    def warn(self, why: Inexact) -> None:
        """说一次：接着练时，哪里对不上。"""
        if self.inexact is None:
            self.inexact = why.reason
            say(words.inexact(why))

    def watch(self) -> Watch:
        """从现在起，看着模型变了没有。"""
        return Watch(self._objects, self.position)

    def close_epoch(self, watch: Watch | None) -> None:
        """记下这一轮；看得出练错了模型、写错了列名，就说一次。"""
        self._reopen()
        self.records.close_epoch(self.position.epoch)
        names, best = self.records.history.names, self._best
        if watch and watch.unchanged():
            self._once(words.nothing_changed, self.position.epoch)
        if watch and watch.steps.forgotten:
            self._once(words.forgotten, watch.steps.forgotten)
        if best and best != _DEFAULT_BEST and best not in names:
            self._once(words.no_column, best, names)
        elif best and best not in names and (judged := self.records.judged()):
            self._once(words.best_not_kept, best, judged, _is_higher(judged))

    def save(self) -> Path:
        """写一个新存档，返回它的路径；删掉用不着的旧存档。每个进程都要调用。"""
        self._reopen()
        position, history = self.position, self.records.history
        if position.rng is None:
            position.rng = random_state()
        mine = {"position": position.state_dict(), "sums": self.records.state_dict()}
        rest = {"ranks": gather_objects(mine), "history": history.records}
        best = history.best(self._best, self._mode) if self._best else None
        kinds = {name: parts.class_name(part) for name, part in self._objects.items()}
        info: dict[str, Any] = {
            "step": position.step,
            "epoch": position.epoch,
            "closed": position.closed,
        }
        config, finite = self.config(), not any_rank(not models_finite(self._objects))
        info |= {"best": best, "objects": kinds, "config": config, "finite": finite}
        info |= {"inexact": self.inexact, "world": world_size()} | versions()
        if is_main():
            write_card(self.directory, config)
        path = self._store.save(self._objects, rest, info)
        if self._finite and not finite:
            say(words.not_finite(position))
        self._finite = finite
        self._store.tidy(best=position.closed and best is not None and best[0] == position.epoch)
        return path

    def load_best(self) -> None:
        """把最好的一轮的权重装进模型。见 ``Run.load_best``。"""
        best = self.records.history.best(self._best, self._mode) if self._best else None
        if best is None:
            raise RunError(words.no_best(self._best, self.records.history.names))
        path = self._store.epoch_save(best[0])
        if path is None:
            raise CheckpointError(words.best_is_gone(self._best, best[0]))
        for average in self._store.load_weights(path, self._objects):
            self._once(words.use_average, *average)

    def close(self) -> None:
        """关上文件，放开锁。"""
        self.records.close()
        self._store.close()

    def _restore(self, objects: Mapping[str, Any]) -> None:
        self._adopt(self._store.load(objects))
        self._pending = False

    def _adopt(self, rest: Mapping[str, Any] | None) -> None:
        """接上存档里除对象以外的那些；``None`` 是现在还读不出来。"""
        if rest is None:
            return
        everyone = rest["ranks"]
        self.position.load_state_dict(everyone[min(rank(), len(everyone) - 1)]["position"])
        sums = [theirs["sums"] for theirs in everyone[rank() :: world_size()]]
        self.records.load_state_dict(rest["history"], sums)
        best = self.records.history.best(self._best, self._mode) if self._best else None
        if best is not None:
            self._store.remember_best(best[0])
        self._news = words.continues(self.directory, self.position)
        if len(everyone) != world_size():
            self._news += words.another_world(len(everyone), world_size())
        if self._store.found and not self._finite:
            self._news += words.resumes_broken(self._store.found.path.name)

    def _reopen(self) -> None:
        """目录在训练中被删掉了：已经练的不白练，重建一个接着存。"""
        if self._store.reopen():
            self.records.reopen()
            say(words.made_again(self.directory))

    def _once(self, text: Callable[..., str], *about: Any) -> None:
        if text not in self._said:
            self._said.add(text)
            say(text(*about))


def _is_higher(name: str) -> bool:
    return bool(_HIGHER & set(name.lower().split("_")))


def _json_only(config: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(config, Mapping):
        way = "请写 config=vars(args)。" if hasattr(config, "__dict__") else "请换成字典。"
        raise ArgumentError(f"config 应是字典，实际是 {type(config).__name__}。{way}")
    for name, value in config.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                f"config 的 {name} 应能写成 JSON（数、字符串、列表、字典），实际是 "
                f"{type(value).__name__}。请换成它的名字或数值。"
            ) from error
    return dict(config)


def say(text: str) -> None:
    """0 号进程印一行；空串不印。"""
    if text and is_main():
        print(text)
