"""skorch：``Checkpoint`` 回调和 ``load_params(checkpoint=…)``；它只在轮末存。"""

from pathlib import Path

import torch
from skorch import NeuralNet
from skorch.callbacks import Checkpoint
from torch import nn

from benchmarks.resume.task import BATCH, make_data, make_model

__all__ = ["train"]


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``。"""
    saver = Checkpoint(monitor=None, dirname=str(folder))
    net = NeuralNet(
        make_model,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.05,
        batch_size=BATCH,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[("saver", saver)],
        verbose=0,
    )
    net.initialize()
    if resume:
        net.load_params(checkpoint=saver)
    net.set_params(max_epochs=epochs - len(net.history))
    net.partial_fit(make_data())
    return net.module_
