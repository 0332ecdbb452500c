"""分片存档的 ``rest.pt``：张量之外的一切，还有张量各叫什么名字；逐样核对。"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from companion.checkpoint._archive import read_archive
from companion.checkpoint._chunks import Stored, check_chunks, read_stored
from companion.checkpoint._dcp import put_shards
from companion.checkpoint._disk import open_regular
from companion.checkpoint._manifest import read_files
from companion.errors import CheckpointError

REST = "rest.pt"
MODEL, OPTIMIZER = "model.", "optimizer."  # 张量名字的开头


def read_rest(path: Path, stored: Mapping[str, Stored], values: bool = True) -> dict[str, Any]:
    """``rest.pt`` 的五样东西；它提到的张量都在 ``stored`` 里。

    Args:
        path: 一个分片存档。
        stored: 它存着的张量。
        values: 假就不读它自己的张量的值，只看对不对。

    Raises:
        CheckpointError: 不是 ``save_sharded`` 写的；什么也没有执行。
    """
    try:
        with open_regular(path / REST) as file:
            content = read_archive(file, values)
        _check(stored, **content)
    except Exception as error:  # 文件可能是任何人写的，什么错都会有
        raise foreign(path, "没有，或者里面有不普通的东西") from error
    checked: dict[str, Any] = content
    return checked


def check_sharded(path: Path) -> None:
    """分片存档里确实是 ``save_sharded`` 写的东西，就什么也不做；不读张量的值，所以很快。

    Raises:
        CheckpointError: 不是。
    """
    stored = read_stored(path, read_files(path))
    read_rest(path, stored, values=False)
    check_chunks(path, stored)


def foreign(path: Path, actual: str) -> CheckpointError:
    """``path`` 里不是 ``save_sharded`` 写的东西，而是 ``actual``。"""
    return CheckpointError(
        f"存档 {path.name} 里应有 save_sharded 写的 {REST} 和张量，实际{actual}，已拒绝加载。"
        "单进程的存档请用 load_checkpoint 读；被人改写过的不要用。"
    )


def _check(
    stored: Mapping[str, Stored], names: Any, keys: Any, model: Any, optimizer: Any, rest: Any
) -> None:
    """是 ``save_sharded`` 写的样子；不是就抛出 ``ValueError`` 等错误。"""
    state = optimizer["state"]
    kinds = [names, keys, model, optimizer, state, optimizer["param_groups"], rest]
    if list(map(type, kinds)) != [list, dict, dict, dict, dict, list, dict]:
        raise ValueError("五样东西的种类不对")
    if not all(type(name) is str for name in names):
        raise ValueError("参数的名字应是字符串")
    if any(isinstance(value, Tensor) for value in model.values()):
        raise ValueError("模型的张量不该在这里")
    if keys.keys() != state.keys() or not all(type(values) is dict for values in state.values()):
        raise ValueError("优化器的状态不对")
    for i, wanted in keys.items():
        if type(i) is not int or not 0 <= i < len(names):
            raise ValueError("优化器的状态里有不认得的参数")
        for key in wanted:
            stored[OPTIMIZER + f"{names[i]}:{key}"]
    put_shards(rest, lambda name: stored[name].like())
