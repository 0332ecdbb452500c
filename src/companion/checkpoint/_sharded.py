"""分片存档：FSDP2 的各进程各写自己的那一片，合起来才是一个存档；换进程数也读得回来。

写的次序与 ``_writing`` 相同：一个新的临时目录，大家都写完，0 号进程算校验和、写清单、改一次名。
有一个进程失败，大家都报错，存档不出现，旧的不动。张量由 ``_dcp`` 读写，在哪里由 ``chunks.json``
记着；其余的都在 ``rest.pt`` 里。这两个文件由 0 号进程写。
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from companion._common import TEMPORARY, misfit
from companion.checkpoint._chunks import Stored, read_stored
from companion.checkpoint._dcp import (
    empty_shard,
    put_shards,
    read_tensors,
    take_shards,
    write_tensors,
)
from companion.checkpoint._disk import is_regular
from companion.checkpoint._manifest import read_files, verify
from companion.checkpoint._rest import MODEL, OPTIMIZER, REST, Rest, read_rest, refusing
from companion.checkpoint._values import plain
from companion.checkpoint._weights import check_matches
from companion.checkpoint._writing import staging
from companion.distributed import (
    bare_parameters,
    bare_state,
    gather_objects,
    is_main,
    load_bare,
    local_part,
)
from companion.errors import ArgumentError, CheckpointError, CompanionError, MismatchError


def save_sharded(
    folder: str | Path,
    model: nn.Module,
    optimizer: Optimizer,
    rest: Mapping[str, Any],
    *,
    step: int,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """把模型、优化器和 ``rest`` 存成 ``folder`` 里一个新存档，返回它的路径。每个进程都要调用。

    Args:
        folder, step, info: 同 ``save_checkpoint``；各进程看见的必须是同一个目录。
        model, optimizer: 优化器更新的都是模型里有名字的参数。
        rest: 其余的状态，先经 ``plain``；只存 0 号进程的，各进程不同的请先收集到一起。里面切了片的
            张量（如 EMA 的平均）各进程存自己的片。

    Raises:
        CheckpointError: 有一个进程没写成；旧存档还在。每个进程都会报。
        ArgumentError: 有不普通的对象，或优化器里有模型没有的参数。

    出处：``torch.distributed.checkpoint``。
    """
    tensors, others = _collect(model, optimizer)
    others["rest"] = take_shards(rest, "rest", tensors)
    what = f"把第 {step} 步存进 {folder}（旧存档都没有动）"

    def enter() -> str:
        return str(stack.enter_context(staging(folder, step, info or {}))) if is_main() else ""

    def write_rest() -> None:
        if is_main():
            torch.save(plain(others), directory / REST)

    with ExitStack() as stack:  # 途中出错，0 号进程的 staging 会删掉临时目录
        directory = Path(_together(enter, what)[0])
        _together(write_rest, what)
        _together(lambda: write_tensors(directory, tensors), what)
        _together(stack.close, what)  # 0 号进程在这里算校验和、写清单、改名
    return directory.with_name(directory.name.removeprefix(TEMPORARY))


def load_sharded(path: str | Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """``save_sharded`` 存的 ``rest``；返回时模型和优化器已经装好。每个进程都要调用。

    进程数可以与存的时候不同，也可以没有进程组；模型切不切片都行。对不上时模型和优化器都不动。

    Raises:
        CorruptCheckpointError, NewerFormatError: 同 ``verify``；0 号进程核对，每个进程都会报。
        MismatchError: 存的是另一个模型，优化器更新的是另一些参数，或有的数超出了 dtype 的范围。
        CheckpointError: 没有这个存档，或里面有不该有的东西，已拒绝加载。
    """
    path = Path(path)
    with refusing(path):
        content, stored, targets = _open(path, model)
        names, state = _names(model, optimizer), content.optimizer["state"]
        _check_names(content.names, names)
        parameters = dict(bare_parameters(model))

        def target(name: str) -> Tensor:
            if name not in targets:
                targets[name] = empty_shard(stored[name].like(), model)
            return targets[name]

        for i, key, full in content.moments():
            state[i][key] = targets[full] = _empty(stored[full].like(), parameters[names[i]])
        rest: dict[str, Any] = put_shards(content.rest, target)
        _read(path, model, stored, targets)
        _load(model, optimizer, _model_part(targets) | content.model, content.optimizer)
    return rest


def load_sharded_weights(path: str | Path, model: nn.Module) -> None:
    """什么也不返回：只把存档里的权重装进 ``model``。每个进程都要调用；其余同 ``load_sharded``。"""
    path = Path(path)
    with refusing(path):
        content, stored, targets = _open(path, model)
        _read(path, model, stored, targets)
        load_bare(model, _model_part(targets) | content.model)


def is_sharded(path: str | Path) -> bool:
    """``path`` 是不是 ``save_sharded`` 存的；只看有没有那个文件，不核对。"""
    return is_regular(Path(path) / REST)


def _open(path: Path, model: nn.Module) -> tuple[Rest, dict[str, Stored], dict[str, Tensor]]:
    """``(rest.pt 的内容, 有哪些张量, 装得下权重的空张量)``；核对过，模型也对得上。"""
    _together(lambda: verify(path) if is_main() else None, f"核对存档 {path}")
    stored = read_stored(path, read_files(path))
    content = read_rest(path, stored)
    shapes = {name: entry.like() for name, entry in stored.items()}
    check_matches(model, _model_part(shapes) | content.model)
    ours = _tensors(bare_state(model))  # 让 FSDP2 把参数切回片
    kinds = {name: stored[MODEL + name].dtype for name, _ in ours}  # 先照存的读，再看装不装得下
    return content, stored, {MODEL + n: torch.empty_like(v, dtype=kinds[n]) for n, v in ours}


def _read(
    path: Path, model: nn.Module, stored: dict[str, Stored], targets: dict[str, Tensor]
) -> None:
    ours = bare_state(model)

    def read() -> None:
        with refusing(path):
            read_tensors(path, stored, targets)
            for name, value in _model_part(targets).items():
                if problem := misfit(local_part(ours[name]), local_part(value)):
                    raise MismatchError(
                        f"{name} 应为 {ours[name].dtype}，存档里实际是 {problem}。"
                        "请把模型换回存它时的 dtype。"
                    )

    _together(read, f"读出存档 {path}")


def _load(model: nn.Module, optimizer: Optimizer, weights: dict[str, Any], state: Any) -> None:
    """优化器和模型要么都装好，要么都不动。"""
    kept = optimizer.state, optimizer.param_groups
    try:
        optimizer.load_state_dict(state)
        load_bare(model, weights)
    except Exception:
        optimizer.state, optimizer.param_groups = kept
        raise


def _collect(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """``(张量, 其余)``：优化器状态里的张量按参数的名字存，``keys`` 记着它们原来在哪里。"""
    state, content = bare_state(model), optimizer.state_dict()  # 前者同时让 FSDP2 把参数切回片
    names = _names(model, optimizer)
    tensors = {MODEL + name: value for name, value in _tensors(state)}
    for i, values in content["state"].items():
        for key, value in _tensors(values):
            tensors[OPTIMIZER + f"{names[i]}:{key}"] = value
    return tensors, {
        "names": names,
        "keys": {i: [key for key, _ in _tensors(s)] for i, s in content["state"].items()},
        "model": _others(state),
        "optimizer": content | {"state": {i: _others(s) for i, s in content["state"].items()}},
    }


def _names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """优化器更新的参数在模型里的名字，次序同 ``optimizer.state_dict()`` 里的编号。"""
    known = {id(parameter): name for name, parameter in reversed(bare_parameters(model))}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if any(id(parameter) not in known for parameter in parameters):
        raise ArgumentError(
            "优化器更新的应都是 model 的参数，实际有的不是。FSDP2 会换掉参数："
            "请先 wrap(model, …)，再用 model.parameters() 建优化器。"
        )
    return [known[id(parameter)] for parameter in parameters]


def _check_names(saved: list[str], ours: list[str]) -> None:
    if saved != ours:
        pairs = [pair for pair in zip_longest(saved, ours, fillvalue="没有") if len(set(pair)) > 1]
        raise MismatchError(
            f"优化器更新的参数和次序应与存档相同，实际第一处不同：存档是 {pairs[0][0]}，"
            f"现在是 {pairs[0][1]}。请用存它时的写法重建优化器。"
        )


def _empty(saved: Tensor, parameter: Tensor) -> Tensor:
    """装得下 ``saved`` 的空张量；形状与参数相同的，与参数切得一样。"""
    if saved.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False)
    return torch.empty_like(saved, device="cpu")  # 步数等小东西；装进优化器时会搬到该在的设备


def _tensors(state: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in state.items() if isinstance(value, Tensor)]


def _others(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if not isinstance(value, Tensor)}


def _model_part(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {n.removeprefix(MODEL): t for n, t in tensors.items() if n.startswith(MODEL)}


def _together(action: Callable[[], Any], what: str) -> list[Any]:
    """各进程都做 ``action``，返回各自的结果；有一个失败，大家都报错。

    ``action`` 里若有通信，要么没有进程会单独失败，要么像 DCP 那样自己会让大家一起失败。
    """
    result, problem = None, None
    try:
        result = action()
    except CompanionError as error:
        problem = error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        problem = CheckpointError(f"应{what}，实际失败：{reason}。请检查磁盘空间和目录的权限。")
        problem.__cause__ = error
    outcomes = gather_objects((result, problem))
    for rank, (_, theirs) in enumerate(outcomes):
        if theirs is not None:
            raise problem or type(theirs)(f"{rank} 号进程失败：{theirs}")
    return [theirs for theirs, _ in outcomes]
