"""放存档的目录：按序号列出存档，删掉旧的，清掉半途而废的。同一时刻只能有一个进程在写它。"""

import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from companion._common import TEMPORARY
from companion.checkpoint._manifest import looks_whole
from companion.errors import CheckpointError

_TRASH = ".trash-"  # 正在删的；与正在写的（TEMPORARY）一样，都不算存档
_DIGITS = 18
_NAME = re.compile(rf"save-([0-9]{{1,{_DIGITS}}})-step-([0-9]{{1,{_DIGITS}}})")


def saves(folder: str | Path) -> list[Path]:
    """目录里的全部存档，按序号排，旧的在前；只看名字，不核对内容。没有目录就是空列表。"""
    found = [entry for entry in Path(folder).glob("save-*") if _NAME.fullmatch(entry.name)]
    return sorted(found, key=_order)


def next_name(folder: Path, step: int) -> str:
    """下一个存档的名字；序号比出现过的都大，坏的、半途而废的也算在内。"""
    seen = [_order(entry)[0] for entry in folder.iterdir() if _NAME.search(entry.name)]
    name = f"save-{max(seen, default=0) + 1:05d}-step-{step}"
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"存档的序号和步数应不超过 {_DIGITS} 位，实际轮到了 {name}。请移走序号太大的那些。"
        )
    return name


def prune(folder: str | Path, keep: Collection[str | Path]) -> None:
    """什么也不返回：只留 ``keep`` 里的存档，删掉比它们旧的，再做一遍 ``clean``。

    比 ``keep`` 里最新的还新的不删；看着已经坏了的也不删，留给人查。先改名再删，所以中途被杀
    也不会留下缺文件的存档。
    """
    kept = {Path(path).name for path in keep}
    order = saves(folder)
    newest = max((i for i, save in enumerate(order) if save.name in kept), default=0)
    for save in order[:newest]:
        if save.name not in kept and looks_whole(save):
            with suppress(OSError):  # 已有同名的东西；留着，下次再删
                save.rename(save.with_name(_TRASH + save.name))
    clean(folder)


def clean(folder: str | Path) -> None:
    """什么也不返回：删掉没写完和没删完的存档。别的进程正在写这个目录时不要调用。"""
    for prefix in (TEMPORARY, _TRASH):
        for leftover in Path(folder).glob(f"{prefix}save-*"):
            with suppress(RecursionError):  # 有的 Python 删不了套得太深的
                shutil.rmtree(leftover, ignore_errors=True)  # 删不掉的，下次再删；链接不跟过去


def _order(path: Path) -> tuple[int, int]:
    found = _NAME.search(path.name)
    assert found is not None
    return int(found[1]), int(found[2])
