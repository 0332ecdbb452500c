"""把普通模型包装成多进程一起训练的：DDP（每个进程一份完整的）或 FSDP2（每个进程只存一片）。"""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from companion.device import model_device
from companion.distributed._ranks import gather_objects, is_distributed, world_size
from companion.errors import ArgumentError, check_choice

_WRAPPERS = (  # 载入都要一会儿，所以不在这里载入：文件，类，里面的模型叫什么
    ("torch._dynamo.eval_frame", "OptimizedModule", "_orig_mod"),
    (
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper",
        "ActivationWrapper",
        "_checkpoint_wrapped_module",
    ),
)


def wrap(model: nn.Module, kind: str = "ddp", blocks: Sequence[type[nn.Module]] = ()) -> nn.Module:
    """多个进程一起训练用的模型；没有进程组时就是 ``model`` 自己。优化器要在包装之后建。

    起点以 0 号进程的参数为准，各进程的种子不同也没关系。

    Args:
        model: 已经搬到本进程设备上的模型；各进程的结构必须相同。
        kind: ``"ddp"`` 每个进程一份完整的参数，返回包着 ``model`` 的新对象；
            ``"fsdp"`` 参数、梯度和优化器状态都切成片，原地修改 ``model`` 并返回它。
        blocks: 只用于 ``"fsdp"``：哪些类的模块各自成为一组，如 ``[Block]``。算到哪一组，才把哪
            一组的参数凑齐；一个也不给，就是整个模型一次凑齐。

    Raises:
        ArgumentError: ``kind`` 不认得；``blocks`` 里的某个类模型里没有，或者 DDP 也给了它。
        ArgumentError: 各进程的参数名、形状或 dtype 不同（直接包装会一直等下去）。

    出处：``torch.nn.parallel.DistributedDataParallel``，``torch.distributed.fsdp.fully_shard``。
    """
    check_choice("kind", kind, ("ddp", "fsdp"))
    _check_blocks(model, kind, tuple(blocks))
    if not is_distributed():
        return model
    _check_same(model)
    if kind == "ddp":
        return DistributedDataParallel(model)
    return _shard(model, tuple(blocks))


def _shard(model: nn.Module, blocks: tuple[type[nn.Module], ...]) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh  # 载入要半秒，用到才载入
    from torch.distributed.fsdp import fully_shard

    _copy_from_rank_0(model)
    mesh = init_device_mesh(model_device(model).type, (world_size(),))
    inside = [m for m in model.modules() if m is not model and isinstance(m, blocks)]
    for module in (*reversed(inside), model):  # 先里后外
        # 最外层不写 True 的话，前向之后它不切回去：评估完，model.parameters() 就不是优化器里的了
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    return model


def unwrap(model: nn.Module) -> nn.Module:
    """DDP、``DataParallel``、``torch.compile`` 等里面的那个模型；别的（含 FSDP2）原样返回。

    只去掉最外面的。里面的某一层也可能包着，所以名字要用 ``bare_state``、``bare_parameters`` 取。
    """
    while name := _inner_name(model):
        model = model._modules[name]  # type: ignore[assignment]
    return model


def bare_state(model: nn.Module, *, keep_vars: bool = False) -> dict[str, Any]:
    """``model.state_dict()``，名字是去掉各层包装之后的：哪一层包没包，都一样。"""
    state = model.state_dict(keep_vars=keep_vars)
    # 包装添的名字里都有 mod：没有的不用问，EMA 每一步都来
    return {_bare_name(model, n) if "mod" in n else n: value for n, value in state.items()}


def load_bare(model: nn.Module, state: Mapping[str, Any]) -> None:
    """什么也不返回：把 ``bare_state`` 取的 ``state`` 装进 ``model``，包没包都行。"""
    own = {_bare_name(model, name): name for name in model.state_dict()}
    model.load_state_dict({own.get(name, name): value for name, value in state.items()})


def bare_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """``(名字, 参数)``，名字同 ``bare_state``；几处共用的，每个名字都有。"""
    named = model.named_parameters(remove_duplicate=False)
    return [(_bare_name(model, name), parameter) for name, parameter in named]


def _bare_name(model: nn.Module, name: str) -> str:
    """去掉各层包装添的 ``module.``、``_orig_mod.`` 等；是不是包装看类，用户自己也会这样叫一层。"""
    kept: list[str] = []
    module: nn.Module | None = model
    for part in name.split("."):
        while module is not None and (inner := _inner_name(module)) not in (None, part):
            module = module._modules[inner]  # torch 自己去掉了这一层的名字
        if module is None or _inner_name(module) is None:
            kept.append(part)
        children = {} if module is None else dict(module._modules.items())
        module = children.get(part)
    return ".".join(kept)


def _inner_name(module: nn.Module) -> str | None:
    """``module`` 是包装的话，被包着的在它的哪个名字下；不是就是 ``None``。"""
    if isinstance(module, DistributedDataParallel | nn.DataParallel):
        return "module"
    for file, kind, name in _WRAPPERS:
        loaded = sys.modules.get(file)  # 没有载入，就没有用它包过的
        if loaded is not None and isinstance(module, getattr(loaded, kind)):
            return name
    return None


def is_fully_sharded(model: nn.Module) -> bool:
    """模型（或它的某一层）是不是 FSDP2 切成片的。

    看方法，不看参数：评估之后，参数可能暂时是完整的。
    """
    return any(hasattr(module, "set_requires_gradient_sync") for module in model.modules())


def is_wrapped(model: nn.Module) -> bool:
    """模型（或它的某一层）包成了 DDP 或 FSDP2 没有；没有包的，各进程各练各的。"""
    ddp = any(isinstance(module, DistributedDataParallel) for module in model.modules())
    return ddp or is_fully_sharded(model)


def local_part(tensor: Tensor) -> Tensor:
    """FSDP2 切开的张量在本进程的那一块；普通的张量就是它自己。"""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """这些张量里没有 nan 和 inf；切开的只看本进程的那一块。每种设备只读一次数值。

    float8 没有 ``isfinite``，``meta`` 设备上没有数值，都略过。
    """
    flags: dict[torch.device, list[Tensor]] = {}
    for tensor in map(local_part, tensors):
        if tensor.element_size() > 1 and not tensor.is_meta:
            flags.setdefault(tensor.device, []).append(tensor.detach().isfinite().all())
    return all(bool(torch.stack(group).all()) for group in flags.values())


def defer_sync(model: nn.Module) -> AbstractContextManager[None]:
    """这期间的 ``backward`` 只在本进程累加梯度，不通信；之后的第一次 ``backward`` 一起补上。

    梯度累积用：一个窗口里除了最后一批，前向和反向都放在它里面。没有包装的模型，什么也不改变。
    """
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    is_fsdp = hasattr(model, "set_requires_gradient_sync")
    return _defer_fsdp(model) if is_fsdp else nullcontext()


@contextmanager
def _defer_fsdp(model: Any) -> Iterator[None]:
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def _check_blocks(model: nn.Module, kind: str, blocks: tuple[type[nn.Module], ...]) -> None:
    if blocks and kind == "ddp":
        raise ArgumentError('blocks 只用于 kind="fsdp"，DDP 请不要给。')
    present = {type(module).__name__ for module in model.modules()}
    for block in blocks:
        if not any(isinstance(module, block) for module in model.modules()):
            raise ArgumentError(
                f"blocks 里的类应在模型里，{block.__name__} 一个也没有。"
                f"模型里有：{'、'.join(sorted(present))}。"
            )


def _check_same(model: nn.Module) -> None:
    """各进程的参数和缓冲区对得上就什么也不做；先只比摘要，不同才把清单传来找第一处。"""
    named = [*model.named_parameters(), *model.named_buffers()]
    ours = [f"{name} {tuple(t.shape)} {t.dtype} 求导={t.requires_grad}" for name, t in named]
    if len(set(gather_objects(hashlib.sha256(repr(ours).encode()).hexdigest()))) == 1:
        return
    lists = gather_objects(ours)
    other = next(rank for rank, theirs in enumerate(lists) if theirs != lists[0])
    here = [line for line in lists[0] if line not in lists[other]][:1] or ["没有多出来的"]
    there = [line for line in lists[other] if line not in lists[0]][:1] or ["没有多出来的"]
    raise ArgumentError(
        f"各进程的模型应完全相同，实际 0 号的 {here[0]}，{other} 号的 {there[0]}。"
        "检查建模型的参数是不是和 rank 有关。"
    )


def _copy_from_rank_0(model: nn.Module) -> None:
    """DDP 自己会做这件事，``fully_shard`` 不会：各切各的，就拼成了一个谁也不是的模型。"""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if not tensor.is_meta:
                dist.broadcast(tensor, 0)
