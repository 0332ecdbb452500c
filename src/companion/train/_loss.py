"""``loss=``：收什么样的目标，平均的又是几个什么。

一轮的损失、攒几批的梯度，都按「这个平均值是几个的平均」加权，所以必须知道它。torch 自己的损失一看
就知道：交叉熵是有标签的位置数，给了 ``weight`` 是它们的权重之和；逐元素的损失是元素数。别人写的
损失，先拿第一批拆开试：按样本平均的，两部分的加权平均应等于整批的；不等就请改用 ``step``。
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from companion._common import random_state_kept
from companion.distributed import unwrap
from companion.errors import ArgumentError, check_labels, check_same_shape
from companion.train._pure import is_stateless

Loss = Callable[[Any, Any], Tensor]
Averaged = Callable[[Any, Any], tuple[Tensor, int | Tensor]]

_CLASSES: dict[Any, Any] = {nn.CrossEntropyLoss: F.cross_entropy, nn.NLLLoss: F.nll_loss}
_ELEMENTS: dict[Any, Any] = {
    nn.MSELoss: F.mse_loss,
    nn.L1Loss: F.l1_loss,
    nn.SmoothL1Loss: F.smooth_l1_loss,
    nn.HuberLoss: F.huber_loss,
    nn.BCELoss: F.binary_cross_entropy,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
    nn.PoissonNLLLoss: F.poisson_nll_loss,
    nn.SoftMarginLoss: F.soft_margin_loss,
    nn.HingeEmbeddingLoss: F.hinge_embedding_loss,
    nn.KLDivLoss: F.kl_div,
}
_SAMPLES: dict[Any, Any] = {  # 先在一个样本里平均（或求和），再按样本平均
    nn.MultiLabelMarginLoss: F.multilabel_margin_loss,
    nn.MultiLabelSoftMarginLoss: F.multilabel_soft_margin_loss,
}
_MARGIN: dict[Any, Any] = {nn.MultiMarginLoss: F.multi_margin_loss}  # 目标是类别编号，按样本平均
_ALL = _CLASSES | _ELEMENTS | _SAMPLES | _MARGIN
_FUNCTIONS = {cls.forward: function for cls, function in _ALL.items()}
_NORMALISED = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss)  # 有 weight 时除以它的和
_STEP = "请写 step=：step(model, batch) 返回 StepOut(loss, n, (outputs, targets))，n 由你定"


class _Known(NamedTuple):
    """torch 自己的一个损失，和它的设置。"""

    function: Any
    reduction: str = "mean"
    weight: Tensor | None = None
    ignore_index: int = -100


def averaged(loss: Loss) -> Averaged:
    """算 ``loss`` 的函数：``(outputs, targets)`` 进，``(平均损失, 它是几个的平均)`` 出。

    Raises:
        ArgumentError: ``loss`` 不是函数，不取平均，或不按样本平均。
        ShapeError, DtypeError: 目标的形状或 dtype 与损失的约定不符。
    """
    if isinstance(loss, type) or not callable(loss):
        raise ArgumentError(
            f"loss 应是函数或模块，实际是{_described(loss)}。"
            "例如 loss=F.cross_entropy，或者 loss=nn.CrossEntropyLoss()，括号别忘了。"
        )
    known = _known(loss)
    if known is None:
        return _Own(loss)
    if known.reduction == "sum":
        raise ArgumentError(
            '损失应是平均，实际是 reduction="sum"：一批多大，梯度就跟着多大。请去掉 reduction；'
            f"确实要和，{_STEP}。"
        )
    count: Any
    check: Any
    if known.function in _CLASSES.values():
        count, check = partial(_count_labelled, known), _check_classes
    elif known.function in _MARGIN.values():
        count, check = _count_samples, check_labels
    else:
        by_sample = known.function in _SAMPLES.values() or known.reduction == "batchmean"
        count, check = _count_samples if by_sample else _count_elements, check_same_shape

    def judge(outputs: Tensor, targets: Tensor) -> tuple[Tensor, int | Tensor]:
        if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
            _refuse_kinds(outputs, targets)
        check(outputs, targets)
        return loss(outputs, targets), count(outputs, targets)

    return judge


def _known(loss: Any) -> _Known | None:
    """认得的就是它的设置；别人写的、参数不认得的是 ``None``。"""
    given: dict[str, Any] = {}
    while isinstance(loss, partial) and not loss.args:
        loss, given = loss.func, loss.keywords | given
    if isinstance(loss, nn.Module):
        loss = unwrap(loss)
        hooked = loss._forward_hooks or loss._forward_pre_hooks or given
        function = None if hooked else _FUNCTIONS.get(type(loss).forward)
        given = vars(loss) | dict(loss.named_buffers())
    else:
        function = loss if loss in _FUNCTIONS.values() else None
        if given.keys() & {"size_average", "reduce"}:
            function = None
    if function is None or (function in _NORMALISED and given.get("weight") is not None):
        return None
    return _Known(function, **{key: given[key] for key in _Known._fields[1:] if key in given})


def _count_labelled(known: _Known, outputs: Tensor, targets: Tensor) -> int | Tensor:
    """交叉熵的分母：有标签的位置数；给了权重，是它们的权重之和。目标是概率的，每个位置都算。"""
    if targets.is_floating_point():
        return targets.numel() // max(outputs.shape[1], 1)
    kept = targets != known.ignore_index
    if known.weight is None:
        return kept if kept.ndim == 1 else kept.sum()  # 掩码由 Mean 攒起来一起数，更快
    weights = known.weight.to(targets.device)
    return (weights[targets.where(kept, 0)] * kept).sum()


def _count_elements(outputs: Tensor, targets: Tensor) -> int:
    return outputs.numel()


def _count_samples(outputs: Tensor, targets: Tensor) -> int:
    return len(outputs)


def _check_classes(outputs: Tensor, targets: Tensor) -> None:
    """类别编号，或与得分同形状的概率。"""
    if not (targets.is_floating_point() and targets.shape == outputs.shape):
        check_labels(outputs, targets)


class _Own:
    """别人写的损失：第一批算完，试它是不是按样本平均。"""

    def __init__(self, loss: Loss) -> None:
        self._loss, self._tried = loss, False

    def __call__(self, outputs: Any, targets: Any) -> tuple[Tensor, int]:
        if not isinstance(targets, Tensor) or not targets.ndim:
            raise ArgumentError(
                f"targets 应是张量，一个样本一行，实际是{_described(targets)}。{_STEP}。"
            )
        value = self._loss(outputs, targets)
        if not self._tried:
            self._tried = True
            _check_average(self._loss, outputs, targets)
        return value, len(targets)


def _check_average(loss: Loss, outputs: Any, targets: Tensor) -> None:
    """把一批拆成不等的两份再算一次：加权平均不等于整批的，就不是按样本平均。

    模块在副本上试，函数只试没有状态的，随机数放回去：试没试过，训练都一样。同样的输入两次不同的
    （里面有随机数）、拆开就不能算的，无从试起。
    """
    n, cut = len(targets), max(1, len(targets) // 3)
    several = outputs if isinstance(outputs, list | tuple) else [outputs]
    if n < 2 or not all(isinstance(x, Tensor) and len(x.shape) and len(x) == n for x in several):
        return

    def part(start: int, stop: int) -> Any:
        pieces = [x[start:stop] for x in several]
        given = pieces[0] if isinstance(outputs, Tensor) else type(outputs)(pieces)
        return trial(given, targets[start:stop]).double()

    try:
        trial = copy.deepcopy(loss)
        if not is_stateless(trial):
            return
        with torch.no_grad(), random_state_kept():
            whole, again = part(0, n), part(0, n)
            apart = (part(0, cut) * cut + part(cut, n) * (n - cut)) / n
            trusted = whole.ndim == 0 and torch.equal(whole, again)
    except Exception:  # 真有错，正式算的时候自会报出来
        return
    if trusted and not torch.allclose(whole, apart, rtol=1e-2 if _is_half(several) else 1e-3):
        raise ArgumentError(
            "loss 应是各个样本的损失的平均，实际不是：第一批整批算是 "
            f"{float(whole):.4g}，拆成 {cut} 个和 {n - cut} 个再平均是 {float(apart):.4g}"
            f"（输出的形状 {[tuple(x.shape) for x in several]}，目标 {tuple(targets.shape)}）。"
            f"它可能不按样本数平均，也可能广播了。{_STEP}。"
        )


def _is_half(tensors: Any) -> bool:
    return any(x.dtype in (torch.float16, torch.bfloat16) for x in tensors)


def _refuse_kinds(outputs: Any, targets: Any) -> None:
    raise ArgumentError(
        f"loss= 要模型返回一个张量，目标也是一个张量，实际是{_described(outputs)}和"
        f"{_described(targets)}。{_STEP}。"
    )


def _described(value: Any) -> str:
    return f"类 {value.__name__}" if isinstance(value, type) else f" {type(value).__name__} "
