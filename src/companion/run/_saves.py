"""一次运行的目录：锁、找存档、写存档、留哪些；只有 0 号进程动磁盘，结果随后告诉大家。"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from companion._common import FileLock
from companion.checkpoint import (
    Save,
    clean,
    is_sharded,
    load_checkpoint,
    load_sharded,
    load_sharded_weights,
    prune,
    read_info,
    save_checkpoint,
    save_sharded,
    saves,
    verify,
)
from companion.distributed import is_main, on_main, say
from companion.errors import CheckpointError, MismatchError, RunError
from companion.run import _objects as objects

Content = dict[str, Any]  # 存档里的：ranks（每个进程的 place 和 sums）、history、layouts、objects
Understand = Callable[[Content], None]


class Saves:
    """锁住 ``folder``；``resume`` 时找出最新的好存档，记在 ``found`` 里。

    ``understand(content)`` 是 Run 去接上存档的内容：哪里读不懂，它就抛出错误，换前一个存档再试。

    Raises:
        RunError: 目录里已有存档而没有 ``resume``，或者另一个进程正在写，或者不能写。
        CheckpointError: 有存档，但一个能用的也没有。
    """

    def __init__(self, folder: Path, *, resume: bool, keep: int, understand: Understand) -> None:
        self.folder, self._keep = folder, keep
        self._lock: FileLock | None = None
        self._content: Content | None = None  # 读出来、还没有装的
        try:
            on_main(lambda: self._open(resume))
            self.found: Save | None = on_main(lambda: self._newest_good(understand, resume))
            if self.found and not is_main():
                self._read(self.found.path, understand)
        except BaseException:
            self.close()
            raise
        order = saves(folder)
        known = order.index(self.found.path) + 1 if self.found else 0
        self._recent, self._damaged = order[:known], order[known:]  # 跳过的坏存档留给人查
        self._kept = dict[str, Path]()  # 另外留着的："best" 最好的，"finite" 最后一份没有 nan 的

    @property
    def kinds(self) -> dict[str, str]:
        """存档里各个对象的名字和类名；没有存档是空的。"""
        return dict(self.found.info["objects"]) if self.found else {}

    def load(self, parts: Mapping[str, Any], understand: Understand) -> list[str]:
        """先全部核对，再全部装好；返回与现在有什么不同。每个进程都要调用。"""
        assert self.found is not None
        objects.check_names(self.kinds, parts)
        content, others = self._content, dict(parts)
        if content is None:  # 分片的，要连同模型一起读
            content = load_sharded(self.found.path, *_pair(others))
            _check(self.found, content, understand)
        try:
            changes = objects.load(others, content["objects"], content["layouts"], parts)
        except MismatchError as error:
            where = f"存档是 {self.found.path.name}（第 {self.found.info['epoch']} 轮）。"
            raise MismatchError(f"{error}{where}") from None
        self._content = None
        return changes

    def save(self, parts: Mapping[str, Any], content: Content, info: dict[str, Any]) -> Path:
        """写一个新存档，返回它的路径；每个进程都要调用。``content`` 里还没有各个对象。"""
        others = dict(parts)
        pair = _pair(others) if objects.is_split(parts) else None
        content["objects"] = {name: objects.state(part) for name, part in others.items()}
        content["layouts"] = {name: objects.layout(part, parts) for name, part in others.items()}
        info["objects"] = {name: objects.class_name(part) for name, part in parts.items()}
        how: Any = {"step": info["step"], "info": info}
        if pair:
            path = save_sharded(self.folder, *pair, content, **how)
        else:
            path = on_main(lambda: save_checkpoint(self.folder, content, **how))
        self._recent = [*self._recent, path][-self._keep :]
        return path

    def tidy(self, **kept: bool) -> None:
        """删掉用不着的旧存档；``best=True`` 是说刚写的这个另外留着。"""
        self._kept |= {name: self._recent[-1] for name, yes in kept.items() if yes}
        if is_main():
            prune(self.folder, [*self._damaged, *self._recent, *self._kept.values()])

    def remember(self, name: str, wanted: Callable[[dict[str, Any]], Any]) -> Path | None:
        """接着练时，找回另外留着的那一个，免得被删掉；没有，或者坏了，就是 ``None``。"""
        for path in reversed(saves(self.folder)):
            with suppress(CheckpointError):
                if wanted(read_info(path)):
                    verify(path)
                    self._kept[name] = path
                    return path
        return None

    def load_weights(self, path: Path, parts: Mapping[str, Any]) -> None:
        """只把权重和滑动平均装进去；分片的存档只装权重。每个进程都要调用。"""
        if is_sharded(path):
            for model in objects.models(parts).values():
                load_sharded_weights(path, model)
        else:
            objects.load_weights(parts, load_checkpoint(path)[0]["objects"])

    def close(self) -> None:
        """放开锁。"""
        if self._lock is not None:
            self._lock.release()

    def _open(self, resume: bool) -> None:
        """锁住目录，清掉没写完的。"""
        try:
            if not resume and (old := saves(self.folder)):
                raise RunError(
                    f"新的运行应放在没有用过的目录，{self.folder} 里已有 {len(old)} 个存档（最新的"
                    f"是 {old[-1].name}）。想接着练：Run(…, resume=True)；想从头来：换一个目录。"
                )
            self._lock = _lock(self.folder)
            clean(self.folder)
        except OSError as problem:
            raise RunError(
                f"{self.folder} 应是能写的目录，实际不能写：{problem}。请换一个目录，或改它的权限。"
            ) from problem

    def _newest_good(self, understand: Understand, resume: bool) -> Save | None:
        """最新的、``Run`` 读得懂的存档；跳过的各说一行。一个好的也没有，抛出最新的一个的错误。"""
        newest: CheckpointError | None = None
        for path in reversed(saves(self.folder) if resume else []):
            try:
                return self._read(path, understand)
            except CheckpointError as error:
                newest = newest or error
                say(f"跳过：{str(error).partition('。')[0]}。")
        if newest is not None:
            way = "一个好的也没有：从备份恢复，或换一个目录从头练。"
            raise type(newest)(f"{str(newest).partition('。')[0]}。{way}") from newest
        return None

    def _read(self, path: Path, understand: Understand) -> Save:
        if is_sharded(path):
            return _check(Save(path, verify(path)), None, understand)
        self._content, info = load_checkpoint(path)
        return _check(Save(path, info), self._content, understand)


def _check(save: Save, content: Content | None, understand: Understand) -> Save:
    """是 ``Run`` 写的，就原样返回；存档可能是任何人写的，什么错都会有。"""
    try:
        kinds, config = save.info["objects"], save.info["config"]
        if not (isinstance(config, dict) and all(isinstance(kind, str) for kind in kinds.values())):
            raise TypeError("info")
        if content is not None:
            missing = kinds.keys() - content["objects"].keys() - {"model", "optimizer"}
            if missing or content["layouts"].keys() != content["objects"].keys():
                raise KeyError(*missing, "layouts")
            understand(content)
    except Exception as error:
        raise CheckpointError(
            f"存档 {save.path.name} 里应是 Run 存下的，实际读不懂（{type(error).__name__}: {error}"
            "）。它没有坏，是别的程序写的，或被人改写过；请移走它，或换一个目录。"
        ) from error
    return save


def _lock(folder: Path) -> FileLock:
    """锁住 ``folder``，一个目录同一时刻只有一个进程在写。"""
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / "lock")
    if not held.acquire():
        pid, host = held.owner()
        raise RunError(
            f"一个目录同时只能有一个进程写，{folder} 实际正被{host and host + ' 上的'}进程 {pid} "
            f"写。等它练完，或换一个目录；它要是该停了：kill {pid}，它会存好再走。"
        )
    return held


def _pair(parts: dict[str, Any]) -> tuple[Any, Any]:
    """取出模型和优化器；分片存档里，它们两个由 DCP 存。"""
    try:
        return parts.pop("model"), parts.pop("optimizer")
    except KeyError as missing:
        raise RunError(
            f"FSDP2 的模型和优化器应以 model=、optimizer= 交给 Run，实际没有 {missing}。"
        ) from None
