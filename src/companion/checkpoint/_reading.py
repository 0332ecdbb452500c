"""读存档：先按清单核对每个文件，再加载张量；坏了就找前一个，并说出跳过了谁。"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from companion.checkpoint._archive import read_archive
from companion.checkpoint._disk import is_regular, open_regular
from companion.checkpoint._folder import saves
from companion.checkpoint._manifest import ADVICE, verify
from companion.checkpoint._rest import REST, check_sharded
from companion.checkpoint._writing import STATE
from companion.errors import CheckpointError, printable


class Save(NamedTuple):
    """一个核对过的存档。"""

    path: Path
    info: dict[str, Any]  # 存的时候给的，加上 "step"


def load_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """一个存档的 ``(state, info)``；张量都在 CPU 上，dtype、步长和共享关系同存的时候。

    只还原张量和普通的值，不执行文件里的任何代码；占用的内存以文件的大小为限。

    Raises:
        CorruptCheckpointError, NewerFormatError: 同 ``verify``，此时一个张量也没有读。
        CheckpointError: 没有这个存档；或文件与清单相符，内容却不是 ``save_checkpoint`` 存的。
    """
    path = Path(path)
    info = verify(path)
    if not (path / STATE).exists():
        raise CheckpointError(
            f"存档 {path.name} 里应有 {STATE}，实际没有：它不是 save_checkpoint 存的。"
            "FSDP 的分片存档请用 load_sharded 读。"
        )
    return _read_state(path), info


def newest_good(folder: str | Path, report: Callable[[str], None] = print) -> Save | None:
    """最新的完好的存档；一个也没有就是 ``None``。跳过的每一个都用 ``report`` 说一行。

    除了同 ``verify`` 一样核对，还加载一遍，加载不了的也跳过；加载出来的随即丢掉。
    """
    for path in reversed(saves(folder)):
        try:
            found = Save(path, verify(path))
            _check_content(path)
            return found
        except Exception as error:  # 存档可能是任何人写的；一个坏的，不该挡住前面好的
            report(f"跳过：{printable(error).removesuffix(ADVICE)}")
    return None


def _check_content(path: Path) -> None:
    if is_regular(path / STATE):
        _read_state(path)
    if is_regular(path / REST):
        check_sharded(path)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path / STATE) as file:
            state = read_archive(file)
    except Exception as error:  # 文件可能是任何人写的，什么错都会有
        raise _foreign(path, "实际还有别的东西，已拒绝加载，什么也没有执行") from error
    if not isinstance(state, dict):
        raise _foreign(path, f"外层应是字典，实际是 {type(state).__name__}")
    return state


def _foreign(path: Path, actual: str) -> CheckpointError:
    return CheckpointError(
        f"存档 {path.name} 的 {STATE} 里应只有张量和普通的值，{actual}。"
        "它与清单相符，所以不是坏了，是被人改写过，或不是 companion 存的；只用信得过的存档。"
    )
