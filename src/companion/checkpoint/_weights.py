"""只要权重：用 safetensors 导出、导入，别的程序也读得懂；不含优化器，不用来接着训练。"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from companion._common import misfit, replacing, unlike_numbers
from companion.checkpoint._disk import make_folder
from companion.distributed import bare_state, load_bare, unwrap
from companion.errors import ArgumentError, CheckpointError, CorruptCheckpointError, MismatchError


def export_weights(model: nn.Module, path: str | Path) -> Path:
    """把 ``model.state_dict()`` 写成 safetensors 文件，返回它的路径；已有的文件整个换掉。

    模型或它的某一层包着 DDP、``DataParallel``、``torch.compile``，名字也与不包时相同。
    绑在一起的权重只写一份，另一个名字记在文件的 metadata 里（键是它，值是写下的那个）。

    Raises:
        ArgumentError: 状态里有不是张量、稀疏、嵌套、还没有形状的东西，safetensors 装不下；
            这时什么也没有写。
        CheckpointError: 磁盘满了或写不进去；原来的文件没有动。

    出处：https://huggingface.co/docs/safetensors
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    tensors, tied = _untie({n: _exportable(n, value) for n, value in bare_state(model).items()})
    try:
        make_folder(path.parent)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt", **tied})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"权重应导出到 {path}，实际没有写成：{error}。原来的文件没有动；"
            "请检查磁盘空间和目录的权限。"
        ) from error
    return path


def import_weights(model: nn.Module, path: str | Path) -> None:
    """什么也不返回：把 safetensors 文件里的权重装进 ``model``，名字和形状必须全都相符。

    绑在一起的权重，文件里有其中一个名字就行。浮点数的精度可以不同，按模型的舍入。对不上时模型不动。

    Raises:
        MismatchError: 是另一个模型的权重，或者有的数超出了模型的 dtype 的范围。
        CorruptCheckpointError: 文件不存在，或不是完整的 safetensors 文件。
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    path = Path(path)
    if path.exists() and not path.is_file():
        raise CorruptCheckpointError(
            f"{path} 应是 safetensors 文件，实际是目录、管道或设备。请核对路径。"
        )
    try:
        weights = load_file(path)
        with safe_open(path, framework="pt") as file:
            tied = list((file.metadata() or {}).items())
    except (OSError, SafetensorError) as error:
        raise CorruptCheckpointError(
            f"{path} 应是完整的 safetensors 文件，实际读不出来：{error}。请重新下载或导出。"
        ) from error
    for names in [*tied, *_same_tensors(bare_state(model))]:
        given = [weights[name] for name in names if name in weights]
        weights |= {name: given[0] for name in names if given and name not in weights}
    check_matches(model, weights)
    load_bare(model, weights)


def check_matches(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """``weights`` 的名字（同 ``bare_state``）、形状和种类与 ``model`` 的全都相符就什么也不做。

    种类是浮点、整数、布尔还是复数，稀不稀疏，量化没有，有没有数值；精度可以不同，数要在范围里。惰性
    层还没有形状的，什么形状都装得进。

    Raises:
        MismatchError: 各列出至多三个：模型有而权重缺的，权重多出的，形状不同的，装不下的。
    """
    ours = bare_state(model)
    if not isinstance(weights, Mapping):
        raise MismatchError(
            f"权重应是名字到张量的字典，实际是 {type(weights).__name__}。请换成这个模型的存档。"
        )
    both = [name for name in ours if name in weights and not is_lazy(ours[name])]
    reshaped = [name for name in both if _shape(ours[name]) != _shape(weights[name])]
    misfits = {n: misfit(ours[n], weights[n]) for n in both if isinstance(ours[n], Tensor)}
    changed = [n for n in misfits if n not in reshaped and misfits[n]]
    problems = [
        _listed("缺 ", [name for name in ours if name not in weights]),
        _listed("多出 ", [name for name in weights if name not in ours]),
        _listed(
            "形状不同：",
            [f"{n} 应为 {_shape(ours[n])}，实际是 {_shape(weights[n])}" for n in reshaped],
        ),
        _listed("装不下：", [f"{n} 应为 {ours[n].dtype}，实际是 {misfits[n]}" for n in changed]),
    ]
    if any(problems):
        raise MismatchError(
            f"权重应与 {type(unwrap(model)).__name__} 的 {len(ours)} 个名字和形状相符，实际"
            + "；".join(problem for problem in problems if problem)
            + "。请用存它时的参数重建模型，或换成这个模型的存档。"
        )


def _untie(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """``(张量, 绑定)``：张量互不共享存储；同一份数据只留第一个名字，其余的名字指向它。"""
    storages = set()
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for kept, *others in _same_tensors(state):
        tied |= dict.fromkeys(others, kept)
        value, storage = state[kept], state[kept].untyped_storage()
        alone = storage.data_ptr() not in storages and storage.nbytes() == value.nbytes
        storages.add(storage.data_ptr())
        tensors[kept] = (
            value.contiguous() if alone else value.clone(memory_format=torch.contiguous_format)
        )
    return tensors, tied


def _same_tensors(state: Mapping[str, object]) -> list[list[str]]:
    """状态的全部名字，同一个张量的几个名字放在一组。"""
    groups: dict[object, list[str]] = {}
    for name, value in state.items():
        view: object = name
        if isinstance(value, Tensor) and not unlike_numbers(value) and value.numel():
            view = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        groups.setdefault(view, []).append(name)
    return list(groups.values())


def _exportable(name: str, value: object) -> Tensor:
    """``value``，共轭、取负都已经算好；safetensors 装不下就报错。"""
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f"safetensors 只装张量，实际 {name} 是 {type(value).__name__}。"
            "请改用 save_checkpoint，或去掉模型的 get_extra_state。"
        )
    problem = unlike_numbers(value)
    if not problem and hasattr(value, "__tensor_flatten__"):
        problem = f"是 {type(value).__name__}，请先换成普通的张量（切了片的用 full_tensor()）"
    if not problem and not _has_place_for(value.dtype):
        problem = f"是 {value.dtype}，它没有这种，请换成别的 dtype，或改用 save_checkpoint"
    if problem:
        raise ArgumentError(f"safetensors 只装有数值的稠密张量，实际 {name} {problem}。")
    return value.resolve_conj().resolve_neg()


@cache
def _has_place_for(dtype: torch.dtype) -> bool:
    from safetensors.torch import save

    try:
        return bool(save({"x": torch.empty(0, dtype=dtype)}))
    except (KeyError, RuntimeError):  # 量化的在 torch.empty 这里就不行
        return False


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _listed(verb: str, names: Sequence[object]) -> str:
    more = f" 等 {len(names)} 个" if len(names) > 3 else ""
    return f"{verb}{'、'.join(f'{name!s:.200}' for name in names[:3])}{more}" if names else ""
