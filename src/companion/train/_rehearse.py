"""正式训练之前先试一下：能不能跑通，模型能不能把一批背下来。都在副本上做，原来的一样不动。"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy
from torch.optim import Adam, Optimizer

from companion._common import (
    eval_mode,
    overwrite,
    random_state_kept,
    say,
    stored,
    train_mode,
)
from companion.errors import ArgumentError, DataError
from companion.metrics import Metric
from companion.train._checks import check_batch_norm
from companion.train._fit import fit
from companion.train._loss import Loss
from companion.train._step import Record, Step, make_forward

_MEMORISED = 0.05  # 损失降到开头的这么多，就算背下来了


def overfit_one_batch(
    model: nn.Module,
    batch: Any,
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    lr: float = 3e-3,
    steps: int = 200,
) -> list[float]:
    """在同一批上用 Adam 练 ``steps`` 步，返回逐步的损失，并印一行：背下来了没有。

    连一批都背不下来，多半不是模型太小，而是哪里接错了：参数冻结了，梯度断了，标签对不上。损失
    有下限的（如标签平滑）降不到开头的 5%，看返回的数自己判断。

    Args:
        model: 练的是它的副本。
        batch: 一批数据，样子与训练时相同。
        loss, step: 给且只给一个，同 ``companion.train``。
        lr: Adam 的学习率。
        steps: 练几步，至少 2。

    Raises:
        ArgumentError: 参数全冻结了；``steps`` 太少；``step`` 用的不是交给它的 ``model``。
    """
    if steps < 2:
        raise ArgumentError(f"steps 至少为 2，实际是 {steps}。背一批通常要一两百步。")
    copied, _, how = _copied(model, None, {"loss": loss, "step": step})
    train_mode(copied)
    if not any(parameter.requires_grad for parameter in copied.parameters()):
        raise ArgumentError("模型应有可以训练的参数，实际全冻结了（requires_grad 都是 False）。")
    forward, optimizer = make_forward(copied, **how), Adam(copied.parameters(), lr=lr)
    losses: list[Tensor] = []
    idle = ""
    with random_state_kept(), _untouched(model, copied):
        for _ in range(steps):
            out = forward(batch)
            optimizer.zero_grad()
            out.loss.backward()
            _check_dense(copied)
            idle = idle if losses else _without_gradient(copied)
            optimizer.step()
            losses.append(out.loss.detach())
    numbers: list[float] = torch.stack(losses).tolist()
    say(_verdict(numbers, idle))
    return numbers


def dry_run(
    model: nn.Module,
    train: Iterable[Any],
    valid: Iterable[Any] | None = None,
    *,
    loss: Loss | None = None,
    step: Step | None = None,
    optimizer: Optimizer,
    metrics: Mapping[str, Metric] | None = None,
    precision: str = "fp32",
    accumulate: int = 1,
    clip_norm: float | None = None,
) -> Record:
    """用副本练 2 批、验证 1 批，返回 ``fit`` 会有的那条记录，并印出各处的形状。

    参数同 ``fit``；``fit`` 会报的错，这里几秒钟就报。模型、优化器、损失、指标、随机数和加载器都回到
    原样；从 ``IterableDataset`` 取走的样本还不回去。``step`` 里要用交给它的 ``model``。

    Raises:
        DataError: ``train`` 或 ``valid`` 是空的，或是只能走一遍的生成器。
        ArgumentError, ShapeError, DtypeError, NonFiniteError: 同 ``fit``。
    """
    check_batch_norm(model, train)  # 只练头两批，看不到最后一批
    with random_state_kept():
        first = _peek(train, 2)
        judged = None if valid is None else _peek(valid, 1)
        given = {"loss": loss, "step": step, "metrics": metrics}
        copied, copied_optimizer, how = _copied(model, optimizer, given)
        options: Any = {"precision": precision, "accumulate": accumulate, "clip_norm": clip_norm}
        options |= how | {"optimizer": copied_optimizer, "epochs": 1, "progress": False}
        with _untouched(model, copied):
            record = fit(copied, first, judged, **options).records[0]
            with eval_mode(copied), torch.no_grad():
                out = make_forward(copied, how["loss"], how["step"], precision)(first[0])
    tested = f"{len(first)} 批训练" + ("" if judged is None else "、1 批验证")
    say(f"试跑通过：{tested}，用的是副本，模型、优化器、随机数和加载器都没有动。")
    say(f"  一批  {_shapes(first[0])}")
    if out.values:
        say(f"  输出  {_shapes(out.values[0])}")
    shown = {"训练": record["train_loss"], "验证": record.get("valid_loss")}
    say("  损失  " + "，".join(f"{k} {v:.4g}" for k, v in shown.items() if v is not None))
    return record


def _copied(
    model: nn.Module, optimizer: Any, others: dict[str, Any]
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """模型、优化器和 ``others`` 的副本，一起复制：优化器里的、损失拿着的，才还是同一个模型。

    模型留着的中间结果（非叶张量）换成不带图的。函数和方法不复制，它们用了什么由 ``_untouched`` 看。
    """
    fresh: Any = UninitializedBuffer  # 它不会复制自己
    lazy = [buffer for buffer in model.buffers() if is_lazy(buffer)]
    memo: dict[int, Any] = {id(b): fresh(device=b.device, dtype=b.dtype) for b in lazy}
    memo |= {id(f): f for f in others.values() if callable(f) and not isinstance(f, nn.Module)}
    pending: list[Any] = [vars(module) for module in model.modules()]
    for value in pending:  # 边走边加：列表、字典里也可能有
        inside = value.values() if isinstance(value, dict) else value
        for item in inside:
            if isinstance(item, Tensor) and not item.is_leaf:
                memo[id(item)] = item.detach().clone()
            elif isinstance(item, list | tuple | dict):
                pending.append(item)
    try:
        return copy.deepcopy((model, optimizer, others), memo)
    except Exception as error:
        raise ArgumentError(
            f"模型应能复制一份（copy.deepcopy），损失、指标也是，好在副本上试，实际不能：{error}。"
            "锁、打开的文件等请别放在里面。"
        ) from error


@contextmanager
def _untouched(model: nn.Module, copied: nn.Module) -> Iterator[None]:
    """期间谁用到了原来的模型就报错，它的参数、缓冲区、梯度和状态都换回来：试的是副本，用它就试错了。"""
    modules = set(model.modules()) - set(copied.modules())
    modes = [(module, module.training) for module in modules]
    parameters = set(model.parameters()) - set(copied.parameters())
    grads = [(p, p.grad) for p in parameters if not is_lazy(p)]
    tensors = [*parameters, *(set(model.buffers()) - set(copied.buffers()))]
    tensors += [grad for _, grad in grads if grad is not None]
    full = [tensor for tensor in tensors if not (is_lazy(tensor) or tensor.is_meta)]
    kept = [(tensor, tensor._version, tensor.detach().clone()) for tensor in full]
    hooks: list[Any] = [module.register_forward_pre_hook(_refuse) for module in modules]
    hooks += [p.register_hook(_refuse) for p, _ in grads if p.requires_grad]
    written = False
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
        for parameter, grad in grads:
            parameter.grad = grad
        for tensor, version, value in kept:
            written |= tensor._version != version
            if not all(map(torch.equal, stored(tensor), stored(value))):  # 批归一化改了也不记版本
                overwrite(tensor.data, value)
    if written:
        _refuse()


def _refuse(*_: Any) -> None:
    raise ArgumentError(
        "试跑用的是模型的副本，step 和损失应只用交给它的 model，实际用到了原来的那个（外面的变量、"
        "self 上的，或模型里的 lambda）。请写成 def step(model, batch)，里面用参数 model。"
    )


def _check_dense(model: nn.Module) -> None:
    if any(p.grad is not None and p.grad.layout != torch.strided for p in model.parameters()):
        raise ArgumentError(
            "overfit_one_batch 用的 Adam 要稠密的梯度，实际有稀疏的。请先去掉 sparse=True 再试。"
        )


def _verdict(losses: list[float], idle: str) -> str:
    change = f"同一批练 {len(losses)} 步，损失 {losses[0]:.4g} → {losses[-1]:.4g}"
    if losses[-1] <= _MEMORISED * losses[0]:
        return f"{change}：背下来了。前向、损失、梯度、更新都接通了。"
    advice = f"先看没有梯度的参数：{idle}。" if idle else "梯度都有：先查标签对不对，再换几档 lr。"
    return f"{change}：没有背下来。{advice}"


def _without_gradient(model: nn.Module) -> str:
    """没有梯度、或梯度全是 0 的参数，最多写出三个名字；都有就是空的。"""
    named = model.named_parameters()
    names = [name for name, p in named if p.grad is None or not bool(p.grad.any())]
    return "、".join(names[:3]) + (f" 等 {len(names)} 个" if len(names) > 3 else "")


def _shapes(value: Any) -> str:
    """张量写 ``float32 (64, 10)``；容器逐项写，别的写类名。"""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "，".join(f"{key}: {_shapes(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "，".join(map(_shapes, value))
    return type(value).__name__


def _peek(batches: Iterable[Any], count: int) -> list[Any]:
    """开头几批；加载器回到取之前的样子。"""
    if isinstance(batches, Iterator):
        raise DataError(
            "加载器应能走许多遍，实际是只能走一遍的生成器，取走就没有了。请换成 DataLoader 或列表。"
        )
    kept = batches.state_dict() if hasattr(batches, "state_dict") else None
    sources = [batches, *(getattr(batches, name, None) for name in ("sampler", "batch_sampler"))]
    sources.append(getattr(sources[-1], "sampler", None))
    generators = [getattr(source, "generator", None) for source in sources]
    states = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    try:
        return list(islice(batches, count))
    finally:
        for generator, state in states:
            generator.set_state(state)
        if kept is not None:
            batches.load_state_dict(kept)  # type: ignore[attr-defined]
