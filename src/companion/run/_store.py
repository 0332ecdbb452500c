"""一次运行的目录：找到能用的存档，写新的，留下最近几个和最好的一个。只有 0 号进程动磁盘。"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from companion.checkpoint import (
    Save,
    clean,
    is_sharded,
    load_checkpoint,
    load_sharded,
    load_sharded_weights,
    newest_good,
    prune,
    read_info,
    save_checkpoint,
    save_sharded,
    saves,
    verify,
)
from companion.checkpoint._manifest import ADVICE
from companion.distributed import gather_objects, is_main
from companion.errors import CheckpointError, CompanionError, CorruptCheckpointError, RunError
from companion.run import _parts as parts
from companion.run import _words as words
from companion.run._lock import Lock


class Store:
    """锁住 ``folder``；``resume`` 时找出最新的好存档，记在 ``found`` 里。

    Raises:
        RunError: 目录里已有存档而没有 ``resume``，或者另一个进程正在写。
        CheckpointError: 有存档，但一个能用的也没有。
    """

    def __init__(self, folder: Path, *, resume: bool, keep: int) -> None:
        self.folder, self._keep = folder, keep
        self._lock: Lock | None = None
        self._best: Path | None = None
        found, problem = gather_objects(self._open(resume))[0]
        if problem is not None:
            raise problem
        self.found: Save | None = found
        order = saves(folder)
        known = order.index(found.path) + 1 if found else 0
        self._recent, self._damaged = order[:known], order[known:]  # 跳过的坏存档留给人查
        self._finite = self._newest_finite()  # 权重里没有 nan 和 inf 的，最新的一份

    def _open(self, resume: bool) -> tuple[Save | None, CompanionError | None]:
        """0 号进程打开目录；结果（或错误）随后告诉大家。"""
        if not is_main():
            return None, None
        try:
            if not resume:
                _check_unused(self.folder)
            self._lock = Lock(self.folder)
            clean(self.folder)
            found = newest_good(self.folder) if resume else None
            if found is None and saves(self.folder):
                _say_why(saves(self.folder)[-1])
            return found, None
        except CompanionError as problem:
            self.close()
            return None, problem
        except OSError as problem:
            self.close()
            return None, RunError(
                f"{self.folder} 应是能写的目录，实际不能写：{problem}。请换一个目录，或改它的权限。"
            )

    @property
    def kinds(self) -> dict[str, str]:
        """存档里各个对象的名字和类名；没有存档是空的。"""
        return dict(self.found.info["objects"]) if self.found else {}

    def rest(self) -> dict[str, Any] | None:
        """存档里除了各个对象的那些；分片的存档要连同模型一起读，这时是 ``None``。"""
        if self.found is None or is_sharded(self.found.path):
            return None
        self._state, _ = load_checkpoint(self.found.path)
        return {name: value for name, value in self._state.items() if name != "objects"}

    def load(self, objects: Mapping[str, Any]) -> dict[str, Any] | None:
        """先全部核对，再全部装好；分片的存档这时才给出 ``rest``。

        Raises:
            MismatchError: 对不上；这时什么也没有装。
        """
        assert self.found is not None
        kinds = self.kinds
        parts.check_names(kinds, objects)
        if is_sharded(self.found.path):
            return self._load_sharded(objects)
        saved = self._state["objects"]
        for name, part in objects.items():
            parts.check(name, part, kinds[name], saved[name])
        for name, part in objects.items():
            parts.load(part, saved[name])
        self._state = {}
        return None

    def save(self, objects: Mapping[str, Any], rest: dict[str, Any], info: dict[str, Any]) -> Path:
        """写一个新存档，返回它的路径；每个进程都要调用。"""
        others = dict(objects)
        pair = _pair(others) if parts.is_split(objects) else None
        rest["objects"] = {name: parts.state(part) for name, part in others.items()}
        if pair:
            path = save_sharded(self.folder, *pair, rest, step=info["step"], info=info)
        else:
            path = self._write(rest, info)
        self._recent = [*self._recent, path][-self._keep :]
        self._finite = path if info["finite"] else self._finite
        return path

    def tidy(self, best: bool) -> None:
        """删掉用不着的旧存档；``best`` 说刚写的这个是不是最好的一轮。"""
        if best:
            self._best = self._recent[-1]
        if is_main():
            kept = [path for path in (self._best, self._finite) if path]
            prune(self.folder, self._damaged + self._recent + kept)

    def epoch_save(self, epoch: int) -> Path | None:
        """第 ``epoch`` 轮收尾时的存档；没有，或者坏了，就是 ``None``。"""
        return _newest(
            saves(self.folder), lambda info: info.get("closed") and info.get("epoch") == epoch
        )

    def _newest_finite(self) -> Path | None:
        if self.found and self.found.info.get("finite", True):
            return self.found.path  # 刚核对过
        return _newest(self._recent, lambda info: info.get("finite", True))

    def remember_best(self, epoch: int) -> None:
        """接着练时，找回最好的一轮的存档，免得被删掉。"""
        self._best = self.epoch_save(epoch)

    def load_weights(self, path: Path, objects: Mapping[str, Any]) -> list[tuple[str, bool, bool]]:
        """只把权重和滑动平均装进去；分片的存档只装权重。每个进程都要调用。

        返回存档里的滑动平均：``(名字, 这次给了没有, 存档分片没有)``。
        """
        sharded, kinds = is_sharded(path), read_info(path)["objects"]
        if sharded:
            for model in parts.models(objects).values():
                load_sharded_weights(path, model)
        else:
            parts.load_weights(objects, load_checkpoint(path)[0]["objects"])
        averages = [name for name, kind in kinds.items() if kind == "EMA"]
        return [(name, name in objects, sharded) for name in averages]

    def reopen(self) -> bool:
        """锁文件没有了，就重建目录，再锁住；还在就是 ``False``。"""
        if self._lock is None or not self._lock.is_gone():
            return False
        self._lock.release()
        self._lock = Lock(self.folder)
        return True

    def close(self) -> None:
        """放开锁。"""
        if self._lock is not None:
            self._lock.release()

    def _write(self, state: dict[str, Any], info: dict[str, Any]) -> Path:
        path: Path | None = None
        problem: CompanionError | None = None
        if is_main():
            try:
                path = save_checkpoint(self.folder, state, step=info["step"], info=info)
            except CompanionError as error:
                problem = error
        path, problem = gather_objects((path, problem))[0]
        if problem is not None:
            raise problem
        assert path is not None
        return path

    def _load_sharded(self, objects: Mapping[str, Any]) -> dict[str, Any]:
        assert self.found is not None
        others = dict(objects)
        model, optimizer = _pair(others)
        rest = load_sharded(self.found.path, model, optimizer)
        for name, part in others.items():
            parts.load(part, rest["objects"][name])
        return rest


def _newest(order: Sequence[Path], wanted: Callable[[dict[str, Any]], Any]) -> Path | None:
    """``order`` 里最新的、``info`` 合意而且没有坏的那个存档；合意的才去算 sha256。"""
    for path in reversed(order):
        with suppress(CheckpointError):
            if wanted(read_info(path)):
                verify(path)
                return path
    return None


def _pair(objects: dict[str, Any]) -> tuple[Any, Any]:
    """取出模型和优化器；分片存档里，它们两个由 DCP 存。"""
    try:
        return objects.pop("model"), objects.pop("optimizer")
    except KeyError as missing:
        raise RunError(
            f"FSDP2 的模型和优化器应以 model=、optimizer= 交给 Run，实际没有 {missing}。"
        ) from None


def _say_why(newest: Path) -> None:
    """有存档却一个也不能用：抛出的错误说得出最新的一个怎么了。"""
    try:
        verify(newest)
    except CorruptCheckpointError as error:
        raise CorruptCheckpointError(words.all_corrupt(str(error).removesuffix(ADVICE))) from error


def _check_unused(folder: Path) -> None:
    if old := saves(folder):
        raise RunError(
            f"新的运行应放在没有用过的目录，{folder} 里已有 {len(old)} 个存档（最新的是 "
            f"{old[-1].name}）。想接着练：Run(…, resume=True)；想从头来：换一个目录。"
        )
