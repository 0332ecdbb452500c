"""第一步之前就看得出的错：模型、优化器、调度器、加载器配不配得上。消息都写着怎么改。"""

import copy
import inspect
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from companion._common import random_state_kept
from companion.device import model_device, to_device
from companion.distributed import is_fully_sharded, is_wrapped, say, world_size
from companion.errors import ArgumentError, DataError
from companion.optim import EMA, PerStep, check_scheduler, schedule_total
from companion.run import Run
from companion.train._means import EMPTY
from companion.train._progress import size
from companion.train._step import OneSampleError, one_sample_explained

_Embeddings = nn.Embedding | nn.EmbeddingBag


def check_ema(ema: Any, model: nn.Module) -> None:
    """``ema`` 平均的正是这个模型，就什么也不做。"""
    if ema is not None and not isinstance(ema, EMA):
        raise ArgumentError(f"ema 应是 EMA(model)，实际是 {type(ema).__name__}。")
    if ema is not None and not ema.follows(model):
        raise ArgumentError(
            "ema 应平均这个 model，实际平均的是另一个。重建模型之后，EMA 也要重建：EMA(model)。"
        )


def check_batches(name: str, batches: Any) -> None:
    """能一批一批地走、不是空的，就什么也不做。"""
    if isinstance(batches, Dataset) and not isinstance(batches, DataLoader):
        raise DataError(
            f"{name} 应一批一批地给出，实际是数据集 {type(batches).__name__}，一次只给一个样本。"
            f"请包成加载器：loaders({name}, batch_size=32)，或 DataLoader({name}, batch_size=32)。"
        )
    if not (isinstance(batches, Iterable) or hasattr(batches, "__getitem__")):
        raise ArgumentError(
            f"{name} 应是加载器（可以一批一批走的），实际是 {type(batches).__name__}。"
        )
    if size(batches) == 0:
        raise DataError(EMPTY)


def check_sampler(batches: object) -> None:
    """``DistributedSampler`` 为了分得匀，会把有的样本给两遍（或扔掉）；训练无妨，评估就不准了。"""
    sampler = getattr(batches, "sampler", None)
    samples = size(getattr(sampler, "dataset", None))
    if isinstance(sampler, DistributedSampler) and sampler.total_size != samples:
        raise DataError(
            f"评估应让每个样本算一次，DistributedSampler 却把 {samples} 个样本当成 "
            f"{sampler.total_size} 个来分。请用 companion.data 的 loaders()。"
        )


def check_parts(run: Any, on_epoch: Any) -> None:
    """``fit`` 的几个对象各是该是的种类，就什么也不做。"""
    if run is not None and not isinstance(run, Run):
        raise ArgumentError(
            f"run 应是 Run，实际是 {type(run).__name__}。请写成 run=Run({run!r}, resume=True)。"
        )
    if on_epoch is not None and not callable(on_epoch):
        raise ArgumentError(
            f"on_epoch 应是函数 on_epoch(record)，实际是 {type(on_epoch).__name__}。"
        )


def check_optimizer(model: nn.Module, optimizer: Any) -> None:
    """优化器走一步不用闭包，更新的正是模型要练的参数，就什么也不做。"""
    if not isinstance(optimizer, Optimizer) and not hasattr(optimizer, "param_groups"):
        name = (
            f"类 {optimizer.__name__}" if isinstance(optimizer, type) else type(optimizer).__name__
        )
        raise ArgumentError(
            f"optimizer 应是建好的优化器，实际是 {name}。请写 AdamW(model.parameters(), lr=1e-3)。"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ArgumentError(
            f"优化器走一步应不用闭包，实际 {type(optimizer).__name__} 的 step 要一个 closure，"
            "一步里要算好几次损失。请换成 SGD、AdamW 等；确实要用它，就自己写循环，存档用 Run。"
        )
    _check_fits(model, [p for group in optimizer.param_groups for p in group["params"]])
    _check_sparse(model, optimizer)


def _check_sparse(model: nn.Module, optimizer: Any) -> None:
    """``sparse=True`` 的嵌入层，梯度是稀疏的，优化器收得下就什么也不做：拿一个小的问它自己。"""
    modules = list(model.modules())
    uses = Counter(id(p) for module in modules for p in module.parameters(recurse=False))
    weights = [m.weight for m in modules if isinstance(m, _Embeddings) and m.sparse]
    for weight in weights if isinstance(optimizer, Optimizer) else []:
        groups = [g for g in optimizer.param_groups if any(p is weight for p in g["params"])]
        if not groups or uses[id(weight)] > 1 or not weight.requires_grad or weight.is_meta:
            continue  # 与别的层共用的，加起来是稠密的
        small = nn.Parameter(torch.zeros(1, 1, dtype=weight.dtype, device=weight.device))
        small.grad = torch.zeros_like(small).to_sparse()
        asked = copy.copy(optimizer)
        asked.param_groups, asked.state = [groups[0] | {"params": [small]}], defaultdict(dict)
        try:
            with warnings.catch_warnings(action="ignore"):
                asked.step()
        except RuntimeError as error:
            refuse_sparse(optimizer, error)
        except (AttributeError, TypeError, KeyError):  # 自己写的优化器，这样问不了
            return


def refuse_sparse(optimizer: Any, error: RuntimeError) -> None:
    """``optimizer.step()`` 的错要是因为它不收稀疏（或稠密）的梯度，就说清楚；不是，什么也不做。"""
    if "sparse" in str(error).lower():
        raise ArgumentError(
            f"{type(optimizer).__name__} 应收得下模型的梯度，实际不收：{str(error).rstrip('.')}。请"
            "去掉嵌入层的 sparse=True，或换成稀疏、稠密都收的 SGD、Adagrad（不加 weight_decay）。"
        ) from error


def _check_fits(model: nn.Module, held: list[Any]) -> None:
    """建好优化器之后换过层、重建过模型、忘了冻结，就会对不上：有的永远不会被练，又不报错。"""
    ours, theirs = {id(p) for p in model.parameters()}, {id(p) for p in held}
    if ours and not ours & theirs:
        raise ArgumentError(
            "optimizer 应更新 model 的参数，实际一个也不是 model 的。"
            "重建模型之后，优化器也要重建：AdamW(model.parameters(), …)。"
        )
    if not any(p.requires_grad for p in held):
        raise ArgumentError(
            "要有可以训练的参数，实际优化器里的全冻结了（requires_grad 都是 False）。"
            "先把要练的 requires_grad_(True)；只想评估请用 evaluate()。"
        )
    if is_fully_sharded(model):  # 切了片的参数会换，认不准
        return
    named = model.named_parameters()
    left = [name for name, p in named if p.requires_grad and id(p) not in theirs]
    if left:
        foreign = len(theirs - ours)
        raise ArgumentError(
            f"model 里要练的参数应都在 optimizer 里，实际有 {len(left)} 个不在，永远不会被更新：如 "
            f"{'、'.join(left[:3])}（优化器里另有 {foreign} 个不是 model 的）。建好优化器之后换过层"
            "，就重建优化器；有意不练的，先 requires_grad_(False)。"
        )


def check_wrapped(model: nn.Module) -> None:
    """有几个进程，而模型没有包成 DDP 或 FSDP2 时报错：梯度不会合并，各练各的。"""
    if world_size() > 1 and not is_wrapped(model):
        raise ArgumentError(
            f"有 {world_size()} 个进程，model 应包装过，实际没有，各进程会各练各的。"
            '请先 model = companion.distributed 里的 wrap(model, "ddp")，再建优化器。'
        )


def check_schedule(scheduler: Any, optimizer: Optimizer) -> None:
    """是调度器，调的正是这个优化器，就什么也不做。"""
    if scheduler is None:
        return
    check_scheduler(scheduler)
    inner = scheduler.scheduler if isinstance(scheduler, PerStep) else scheduler
    if getattr(inner, "optimizer", optimizer) is not optimizer:
        raise ArgumentError(
            "scheduler 应调这个 optimizer 的学习率，实际调的是另一个。"
            "重建优化器之后，调度器也要重建。"
        )


def check_total(
    scheduler: Any, rounds: int | None, batches: int | None, updates: int | None
) -> None:
    """调度器的总步数与要走的步数相同就什么也不做；单位弄错了、不够走的报错，走不完的说一声。

    ``rounds`` 轮，一共 ``batches`` 批，更新 ``updates`` 次；说不出来的是 ``None``。在恢复之后查：
    ``OneCycleLR`` 的总步数跟着存档走。
    """
    total, per_step = schedule_total(scheduler), isinstance(scheduler, PerStep)
    steps = updates if per_step else rounds
    if total is None or steps is None or total == steps:
        return
    inner = scheduler.scheduler if per_step else scheduler
    facts = (
        f"{type(inner).__name__} 的总步数是 {total}，"
        f"每{'次更新' if per_step else '轮'}走一步，一共走 {steps} 步"
    )
    if total in ((rounds, batches) if per_step else (updates, batches)):
        raise ArgumentError(
            f"调度器的总步数与走法的单位应相同，实际 {facts}。{_unit_advice(per_step, steps)}"
        )
    if isinstance(inner, OneCycleLR) and total < steps:
        raise ArgumentError(
            f"调度器应够走完全程，实际 {facts}，走到头就不能再走。总步数请写成 {steps}；接着练时它"
            "跟着存档，加不了：轮数照旧，或换一个新目录从头练。"
        )
    if total > steps or isinstance(inner, CosineAnnealingLR):
        say(f"学习率的曲线与要走的步数不一样长：{facts}。")


def _unit_advice(per_step: bool, steps: int) -> str:
    if per_step:
        return f"每轮走一步的，去掉 PerStep；每次更新走一步的，总步数写成 {steps}（更新几次）。"
    return f"请包成 PerStep(…)，每次更新走一步；或者把总步数写成轮数 {steps}。"


def check_batch_norm(model: nn.Module, train: Any) -> None:
    """最后一批只有一个样本，而模型的批归一化算不了它，就报错；能算的什么也不做。"""
    norms = (nn.modules.batchnorm._BatchNorm,)
    if _last_batch(train) != 1 or not any(isinstance(m, norms) for m in model.modules()):
        return
    try:
        with random_state_kept(), torch.no_grad(), one_sample_explained():
            one = [x[:1] for x in train.tensors] if hasattr(train, "tensors") else None
            inputs = (one or train.collate_fn([train.dataset[0]]))[0]
            copy.deepcopy(model).train()(to_device(inputs, model_device(model)))
    except OneSampleError:
        raise
    except Exception:  # 试不了，正式练的时候自会报出来
        return


def _last_batch(train: Any) -> int | None:
    """最后一批有几个样本；说不出来是 ``None``。"""
    samplers = [getattr(train, name, None) for name in ("batch_sampler", "sampler")]
    sampler = next((x for x in samplers if x is not None), None)  # 问真假会去数长度，它未必有
    samples = getattr(sampler, "n", None)
    if samples is None and isinstance(train, DataLoader):
        samples = size(train.sampler)
    sizes = (train, sampler)
    batch = next((n for n in (getattr(x, "batch_size", None) for x in sizes) if n), None)
    dropped = getattr(train, "drop_last", False) or getattr(sampler, "drop_last", False)
    if not samples or not batch or dropped or world_size() > 1:
        return None
    return int(samples % batch) or int(batch)
