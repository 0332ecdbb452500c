"""只要权重：用 safetensors 导出、导入，别的程序也读得懂；不含优化器，不用来接着训练。"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from companion._common import replacing
from companion.checkpoint._disk import make_folder
from companion.distributed import bare_state, load_bare, unwrap
from companion.errors import ArgumentError, CheckpointError, CorruptCheckpointError, MismatchError


def export_weights(model: nn.Module, path: str | Path) -> Path:
    """把 ``model.state_dict()`` 写成 safetensors 文件，返回它的路径；已有的文件整个换掉。

    模型或它的某一层包着 DDP、``DataParallel``、``torch.compile``，名字也与不包时相同。
    绑在一起的权重只写一份，另一个名字记在文件的 metadata 里（键是它，值是写下的那个）。

    Raises:
        ArgumentError: 状态里有不是张量、稀疏、还没有形状的东西，safetensors 装不下。
        CheckpointError: 磁盘满了或写不进去；原来的文件没有动。

    出处：https://huggingface.co/docs/safetensors
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    tensors, tied = _untie(model)
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

    绑在一起的权重，文件里有其中一个名字就行。对不上时模型不动。

    Raises:
        MismatchError: 是另一个模型的权重。
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
    for names in [*tied, *_same_tensors(model)]:
        given = [weights[name] for name in names if name in weights]
        weights |= {name: given[0] for name in names if given and name not in weights}
    check_matches(model, weights)
    load_bare(model, weights)


def check_matches(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """``weights`` 的名字（同 ``bare_state``）、形状和种类与 ``model`` 的全都相符就什么也不做。

    种类是浮点、整数、布尔还是复数，稀不稀疏，量化没有，有没有数值；精度可以不同。惰性层还没有形状
    的，什么形状都装得进。

    Raises:
        MismatchError: 各列出至多三个：模型有而权重缺的，权重多出的，形状、种类不同的。
    """
    ours = bare_state(model)
    if not isinstance(weights, Mapping):
        raise MismatchError(
            f"权重应是名字到张量的字典，实际是 {type(weights).__name__}。请换成这个模型的存档。"
        )
    both = [name for name in ours if name in weights and not is_lazy(ours[name])]
    reshaped = [name for name in both if _shape(ours[name]) != _shape(weights[name])]
    changed = [n for n in both if n not in reshaped and _differ(ours[n], weights[n])]
    problems = [
        _listed("缺 ", [name for name in ours if name not in weights]),
        _listed("多出 ", [name for name in weights if name not in ours]),
        _listed(
            "形状不同：",
            [f"{n} 应为 {_shape(ours[n])}，实际是 {_shape(weights[n])}" for n in reshaped],
        ),
        _listed(
            "种类不同：",
            [f"{n} 应为 {ours[n].dtype}，实际是 {_kind(weights[n])}" for n in changed],
        ),
    ]
    if any(problems):
        raise MismatchError(
            f"权重应与 {type(unwrap(model)).__name__} 的 {len(ours)} 个名字和形状相符，实际"
            + "；".join(problem for problem in problems if problem)
            + "。请用存它时的参数重建模型，或换成这个模型的存档。"
        )


def _untie(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """``(张量, 绑定)``：张量互不共享存储；同一份数据只留第一个名字，其余的名字指向它。"""
    state, storages = bare_state(model), set()
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for kept, *others in _same_tensors(model):
        tied |= dict.fromkeys(others, kept)
        value, storage = state[kept], state[kept].untyped_storage()
        alone = storage.data_ptr() not in storages and storage.nbytes() == value.nbytes
        storages.add(storage.data_ptr())
        tensors[kept] = (
            value.contiguous() if alone else value.clone(memory_format=torch.contiguous_format)
        )
    return tensors, tied


def _same_tensors(model: nn.Module) -> list[list[str]]:
    """模型状态的全部名字，同一个张量的几个名字放在一组。"""
    groups: dict[object, list[str]] = {}
    for name, value in bare_state(model).items():
        if not isinstance(value, Tensor):
            raise ArgumentError(
                f"safetensors 只装张量，实际 {name} 是 {type(value).__name__}。"
                "请改用 save_checkpoint，或去掉模型的 get_extra_state。"
            )
        if is_lazy(value) or value.layout != torch.strided:
            problem = (
                "还没有形状，请先走一遍前向" if is_lazy(value) else "是稀疏的，请先 to_dense()"
            )
            raise ArgumentError(f"safetensors 只装有数值的稠密张量，实际 {name} {problem}。")
        view = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        groups.setdefault(view if value.numel() else name, []).append(name)
    return list(groups.values())


def _differ(ours: object, theirs: object) -> bool:
    """一个装不进另一个：会丢掉虚部、小数，或者根本没有数值。"""
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
        return False  # 模型自己的 extra_state，由模型自己看
    return theirs.is_meta or any(
        getter(ours) != getter(theirs)
        for getter in (
            *(Tensor.is_floating_point, Tensor.is_complex, lambda x: x.dtype == torch.bool),
            *(lambda x: x.layout, lambda x: x.is_quantized),
        )
    )


def _kind(value: Tensor) -> str:
    strange = "meta 上的 " if value.is_meta else ""
    return f"{strange}{value.dtype}" + (
        "" if value.layout == torch.strided else f"、{value.layout}"
    )


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _listed(verb: str, names: Sequence[object]) -> str:
    more = f" 等 {len(names)} 个" if len(names) > 3 else ""
    return f"{verb}{'、'.join(f'{name!s:.200}' for name in names[:3])}{more}" if names else ""
