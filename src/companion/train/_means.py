"""一轮的平均损失和各指标：一步一步攒，最后读一次；记到一半能存，几个进程的能合。"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from companion.device import to_device
from companion.distributed import any_rank, gather_objects, rank, say, world_size
from companion.errors import ArgumentError, DataError, NonFiniteError
from companion.metrics import Mean, Metric
from companion.train._step import Record, StepOut

EMPTY = (
    "加载器应至少给出一批，实际一批也没有。检查：数据集是不是空的；样本不足一批而 "
    "drop_last=True；它是不是只能走一遍的生成器（第二轮就空了，请换成 DataLoader）。"
)
_BLOCK = 256  # 每这么多步查一次损失


class EpochMeans:
    """一轮里的平均损失和各指标。``add`` 不读数值，满 256 步才读一次；``finish`` 给出结果。

    Args:
        metrics: 名字到指标；一轮的第一批之前各 ``reset`` 一次。
        finite: 损失必须是有限的数；满 256 步、``finish``、``state_dict`` 时各查一次。

    Raises:
        ArgumentError: ``metrics`` 不是名字到指标；有指标叫 ``"loss"``；或有几个进程，而某个指标不会
            合并。
    """

    def __init__(self, metrics: Mapping[str, Metric] | None, *, finite: bool = False) -> None:
        _check_metrics(metrics)
        self.metrics: dict[str, Any] = dict(metrics or {})
        if world_size() > 1:
            _check_mergeable(self.metrics)
        self.finite, self.epoch = finite, 0  # 第几轮，见 begin；0 是不知道
        self._result: Record | None = None  # 这一轮已经有了的结果
        self._clear()

    def begin(self, epoch: int) -> None:
        """开始第 ``epoch`` 轮，错误里好说是哪一轮。接着练的那一轮，已经有的结果留着。"""
        if epoch != self.epoch:
            self.epoch, self._result = epoch, None

    def add(self, out: StepOut) -> None:
        """记下一步；梯度会被切断。"""
        if not self.batches:
            self._result = None
            for metric in self.metrics.values():
                metric.reset()
        self.batches += 1
        self._loss.update(out.loss, out.n)
        if self.metrics:
            if not out.values:
                raise ArgumentError("要算指标，step 应返回 StepOut(loss, n, (outputs, targets))。")
            values = [v.detach() if isinstance(v, Tensor) else v for v in out.values]
            for metric in self.metrics.values():
                metric.update(*values)
        if self.batches % _BLOCK == 0:
            self._checked()

    def mean(self) -> float:
        """到现在为止的平均损失，只算本进程的；要等设备算完，别每步都问。"""
        sums = self._checked() if world_size() == 1 else self._loss.state_dict()
        return sums["sum"] / sums["weight"] if sums["weight"] else math.nan

    def finish(self) -> Record:
        """``{"loss": …, 指标名: …}``，各进程的合在一起，标量都是 Python 数；之后从头记。

        结果留到下一轮：接着练的地方若在各批之后，一批也不用再走，结果就是它。

        Raises:
            DataError: 一步都没有记，或样本数加起来是 0。
            NonFiniteError: ``finite=True``，而有一步的损失是 nan 或 inf。
        """
        if not self.batches:
            if self._result is None:
                raise DataError(EMPTY)
            return dict(self._result)
        loss = Mean()
        loss.merge(gather_objects(self._checked()))
        if not loss.state_dict()["weight"]:
            raise DataError("样本数加起来是 0，平均损失没有定义。请检查 step 返回的 n。")
        if world_size() > 1:
            _merge(self.metrics)
        self._clear()
        results = {name: metric.compute() for name, metric in self.metrics.items()}
        self._result = {"loss": loss.compute()} | {
            name: value.item() if isinstance(value, Tensor) and value.ndim == 0 else value
            for name, value in results.items()
        }
        return dict(self._result)

    def state_dict(self) -> dict[str, Any]:
        """这一轮记到了哪里，各进程的都在里面，所以每个进程都要调用。

        Raises:
            NonFiniteError: 同 ``finish``。先查再存，存下的就不会是练坏了的参数。
        """
        mine: dict[str, Any] = {"batches": self.batches, "loss": self._checked()}
        mine["metrics"] = {
            name: metric.state_dict()
            for name, metric in self.metrics.items()
            if self.batches and hasattr(metric, "state_dict")
        }
        ranks = gather_objects(to_device(mine, torch.device("cpu")))
        return {"ranks": ranks, "epoch": self.epoch, "result": self._result}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """从 ``state`` 那里接着记；进程数变了也行，存下的几份大家分着接。"""
        self._clear()
        self.epoch, self._result = state["epoch"], state["result"]
        self.batches = state["ranks"][0]["batches"]
        mine = state["ranks"][rank() :: world_size()]
        self._loss.merge([piece["loss"] for piece in mine])
        for name, metric in self.metrics.items():
            metric.reset()
            states = [piece["metrics"][name] for piece in mine if name in piece["metrics"]]
            if len(states) == 1:
                metric.load_state_dict(states[0])
            elif states:
                metric.merge(states)
            elif self.batches:
                say(f"存档里没有指标 {name} 记到一半的数：这一轮的 {name} 只算恢复之后的批。")

    def _clear(self) -> None:
        self.batches, self._loss = 0, Mean()

    def _checked(self) -> dict[str, Any]:
        """损失的和与总权重；``finite`` 时先查有没有 nan 和 inf，各进程的都查。"""
        sums = self._loss.state_dict()
        if self.finite and any_rank(self._loss.first_bad is not None):
            self._refuse(sums)
        return sums

    def _refuse(self, sums: Mapping[str, float]) -> None:
        epoch = f"第 {self.epoch} 轮" if self.epoch else "这一轮"
        if self._loss.first_bad is None:
            raise NonFiniteError(f"损失应是有限的数，{epoch}别的进程上有 nan 或 inf，一起停下。")
        first = self.batches - self._loss.count + self._loss.first_bad
        raise NonFiniteError(
            f"损失应是有限的数，{epoch}的平均训练损失是 {sums['sum'] / sums['weight']}，"
            f"从第 {first} 批起。模型的参数已经坏了：请重建模型，把学习率调小（先除以 10），"
            "并检查输入里有没有 nan。"
        )


def _check_metrics(metrics: Any) -> None:
    """名字到指标的实例就什么也不做。"""
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ArgumentError(
            f"metrics 应是名字到指标的字典，实际是 {type(metrics).__name__}。"
            '请写成 metrics={"accuracy": Accuracy()}。'
        )
    for name, metric in (metrics or {}).items():
        if name == "loss":
            raise ArgumentError('指标不能叫 "loss"，这个名字留给损失。请换一个名字。')
        if isinstance(metric, type) or not hasattr(metric, "update"):
            actual = f"类 {metric.__name__}" if isinstance(metric, type) else type(metric).__name__
            raise ArgumentError(
                f"指标 {name} 应是有 update、compute、reset 的对象，实际是 {actual}。"
                "类要加括号：Accuracy()；函数请包成有这三个方法的类。"
            )


def _check_mergeable(metrics: Mapping[str, Any]) -> None:
    for name, metric in metrics.items():
        if not (hasattr(metric, "merge") or hasattr(metric, "dist_sync_on_step")):  # torchmetrics
            raise ArgumentError(
                f"有 {world_size()} 个进程，指标 {name} 应有 state_dict() 和 merge(states)，"
                f"好把各进程的合起来，{type(metric).__name__} 没有。"
                "请补上，或改用 torchmetrics 的。"
            )


def _merge(metrics: Mapping[str, Any]) -> None:
    """每个指标都换成各进程合在一起的；torchmetrics 的在 compute 里自己合。"""
    for metric in metrics.values():
        if hasattr(metric, "merge"):
            metric.merge(gather_objects(to_device(metric.state_dict(), torch.device("cpu"))))
