"""分片存档的 ``rest.pt``：张量之外的一切，还有张量各叫什么名字；逐样核对。"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from companion.checkpoint._archive import read_archive
from companion.checkpoint._chunks import Stored, read_chunk, read_stored
from companion.checkpoint._disk import open_regular
from companion.checkpoint._manifest import read_files
from companion.errors import CheckpointError, CompanionError

REST = "rest.pt"
MODEL, OPTIMIZER = "model.", "optimizer."  # 张量名字的开头


class Rest(NamedTuple):
    """``rest.pt`` 的内容：张量之外的一切。"""

    names: list[str]  # 优化器更新的参数，次序同它们的编号
    keys: dict[int, list[str]]  # 编号到优化器状态里哪几样是张量
    model: dict[str, Any]
    optimizer: dict[str, Any]
    rest: dict[str, Any]

    def moments(self) -> list[tuple[int, str, str]]:
        """优化器状态里的张量：``(参数的编号, 在它的状态里的名字, 存的名字)``。"""
        return [
            (i, key, OPTIMIZER + f"{self.names[i]}:{key}")
            for i, keys in self.keys.items()
            for key in keys
        ]


def read_rest(path: Path, stored: Mapping[str, Stored]) -> Rest:
    """``rest.pt`` 的内容；它提到的张量都在 ``stored`` 里。

    Raises:
        Exception: 不是 ``save_sharded`` 写的；什么错都会有。
    """
    with open_regular(path / REST) as file:
        content = Rest(**read_archive(file))
    state, kinds = content.optimizer["state"], [type(part) for part in content]
    if kinds != [list, dict, dict, dict, dict] or content.keys.keys() != state.keys():
        raise ValueError(f"{REST} 里五样东西的种类不对")
    if not content.keys.keys() <= set(range(len(content.names))):
        raise ValueError("优化器的状态里有不认得的参数")
    missing = [full for _, _, full in content.moments() if full not in stored]
    if missing or any(isinstance(value, Tensor) for value in content.model.values()):
        raise ValueError(f"{REST} 里应没有模型的张量，优化器的应都存着，实际缺 {missing[:3]}")
    return content


def check_sharded(path: Path) -> None:
    """``path`` 里确实是 ``save_sharded`` 写的东西，就什么也不做；各片都读一遍，读完就丢。

    Raises:
        CheckpointError: 不是。
    """
    with refusing(path):
        stored = read_stored(path, read_files(path))
        read_rest(path, stored)
        for entry in stored.values():
            for chunk in entry.chunks:
                read_chunk(path, entry, chunk)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """存档可能是任何人写的，读的时候什么错都会有；都换成 ``CheckpointError``。"""
    try:
        yield
    except CompanionError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"存档 {path.name} 里应是这一版 save_sharded 写的东西，实际不是（{error!s:.200}），"
            "已拒绝加载。单进程的存档请用 load_checkpoint 读；被人改写过的不要用。"
        ) from error
