"""写存档：先写在临时目录里，全部落盘，最后一次改名。任何一刻被杀，旧存档都还在。

改名是原子的：看得见的存档一定是写完了的。步骤见 ``staging``，一共就这几行。
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from companion._common import TEMPORARY, sync_directory, sync_file
from companion.checkpoint._disk import FileRecord, HashingFile, file_sizes, hash_file, make_folder
from companion.checkpoint._folder import next_name, saves
from companion.checkpoint._manifest import write_manifest
from companion.checkpoint._values import plain
from companion.errors import ArgumentError, CheckpointError

STATE = "state.pt"
_FULL = {"ENOSPC", "EDQUOT", "EFBIG"}


def save_checkpoint(
    folder: str | Path,
    state: Mapping[str, Any],
    *,
    step: int,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """把 ``state`` 存成 ``folder`` 里一个新存档，返回它的路径。旧存档不动。

    Args:
        folder: 放存档的目录，没有就建；只能有一个进程在写它。
        state: 名字到 ``state_dict()`` 或普通的值，先经 ``plain``。张量可以在任何设备上。
        step: 训练到的步数，写进名字和 ``info``。
        info: 随存档记下的小东西，如 ``{"epoch": 3}``；能写成 JSON。

    Raises:
        ArgumentError: ``state`` 里有不普通的对象，或 ``info`` 写不成 JSON。
        CheckpointError: 磁盘满了或写不进去；旧存档还在。
    """
    content = plain(state)
    written: dict[str, FileRecord] = {}
    with staging(folder, step, info or {}, written) as directory:
        written[STATE] = _write_state(directory / STATE, content)
    return directory.with_name(directory.name.removeprefix(TEMPORARY))


@contextmanager
def staging(
    folder: str | Path,
    step: int,
    info: Mapping[str, Any],
    written: Mapping[str, FileRecord] | None = None,
) -> Iterator[Path]:
    """给出一个临时目录；往里写好文件，离开 ``with`` 时它变成 ``folder`` 里的一个存档。

    途中出错，临时目录就删掉，存档不出现。

    Args:
        folder, step, info: 同 ``save_checkpoint``。
        written: 边写边算好了校验和、已经落盘的文件；其余的文件离开时读一遍、落盘。

    Raises:
        ArgumentError: ``step`` 不是整数，或 ``info`` 写不成 JSON。
        CheckpointError: 磁盘满了或写不进去；旧存档还在。
    """
    folder = Path(folder)
    if not isinstance(step, int) or step < 0:
        raise ArgumentError(f"step 应为 0 或更大的整数，实际是 {step!r}。")
    try:
        make_folder(folder)
        name = next_name(folder, step)
        directory = folder / (TEMPORARY + name)
        directory.mkdir()
        try:
            yield directory
            records = dict(written or {})
            for file in file_sizes(directory).keys() - records.keys():
                records[file] = _hash_and_sync(directory / file)
            write_manifest(directory, {**info, "step": step}, records)  # 清单最后写
            sync_directory(directory)
            os.rename(directory, folder / name)  # 这一刻起它才是存档  # noqa: PTH104
            sync_directory(folder)
        finally:
            shutil.rmtree(directory, ignore_errors=True)  # 改过名，就已经不在了
    except OSError as error:
        raise CheckpointError(_not_saved(folder, step, error)) from error


def _write_state(path: Path, state: dict[str, Any]) -> FileRecord:
    with path.open("xb") as file:
        hashing: Any = HashingFile(file)
        try:
            torch.save(state, hashing)
        except RuntimeError as error:  # 写不进去时，torch 收尾的错误盖住了系统的错误
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        sync_file(file)
        record: FileRecord = hashing.record()
        return record


def _hash_and_sync(path: Path) -> FileRecord:
    with path.open("rb+") as file:
        record = hash_file(file)
        sync_file(file)
        return record


def _not_saved(folder: Path, step: int, error: OSError) -> str:
    full = errno.errorcode.get(error.errno or 0) in _FULL
    reason = "磁盘满了，或超出了配额" if full else "写不进去"
    advice = "请腾出空间再存" if full else "请检查目录和它的权限"
    old = [save.name for save in saves(folder)[-1:]]
    kept = f"以前的存档都没有动，最新的是 {old[0]}" if old else "这里还没有以前的存档"
    return f"第 {step} 步应存进 {folder}，实际没有存下：{reason}（{error}）。{kept}。{advice}。"
