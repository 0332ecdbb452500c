"""各家共用的小任务：320 个样本，批量 16，一轮 20 步；网络里有 Dropout 0.5，优化器有动量。

每家的文件只有一个函数 ``train(folder, *, epochs, every, resume) -> nn.Module``：

- 存档都放在 ``folder``；``every`` 是 None 时每轮末存一次，是数时每这么多步存一次。
- ``resume`` 为真时，照那一家的文档「从最近的存档接着练」，练到第 ``epochs`` 轮为止。
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["BATCH", "STEPS", "loss_fn", "make_data", "make_loader", "make_model", "make_optimizer"]

BATCH, STEPS = 16, 20
loss_fn = F.cross_entropy
on_step: Callable[[], None] | None = None  # 测量程序填上：训练时每走一次前向，先调用它


def make_data() -> TensorDataset:
    """合成数据，内容固定。"""
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(BATCH * STEPS, 64, generator=source)
    return TensorDataset(inputs, torch.randint(10, (BATCH * STEPS,), generator=source))


def make_loader() -> DataLoader[Any]:
    """打乱的加载器，次序来自全局的随机数：大家平常就这样写。"""
    return DataLoader(make_data(), BATCH, shuffle=True)


def make_model() -> nn.Module:
    """64-256-10 的网络，带 Dropout。"""
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10))
    model.register_forward_pre_hook(_count)
    return model


def make_optimizer(model: nn.Module) -> SGD:
    """带动量的 SGD。"""
    return SGD(model.parameters(), lr=0.05, momentum=0.9)


def _count(module: nn.Module, inputs: Any) -> None:
    if module.training and on_step is not None:
        on_step()
