"""断了再接的测试共用的一份小训练：dropout、AdamW、逐步的调度器、打乱的次序。"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from companion.repro import seed_everything
from companion.run import Run

EPOCHS, BATCHES, SIZE = 3, 5, 8
STEPS = EPOCHS * BATCHES


def data(n: int = BATCHES * SIZE - 3) -> TensorDataset:
    """一小份数据；最后一批短。"""
    g = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, 4, generator=g), torch.randint(3, (n,), generator=g))


def shuffled(workers: int = 0) -> DataLoader:
    return DataLoader(data(), batch_size=SIZE, shuffle=True, num_workers=workers)


def train(
    folder: Path,
    make: Callable[[], Any] = shuffled,
    *,
    at: int = 0,
    number: int = 0,
    epochs: int = EPOCHS,
    **options: Any,
) -> dict[str, Any]:
    """练 ``epochs`` 轮，返回最后的一切；给了 ``at`` 就在那一步里给自己发信号 ``number``。"""
    seed_everything(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS + 1)
    objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    loader, valid = make(), DataLoader(data(11), batch_size=SIZE)
    run = Run(folder, resume=True, **objects, **options)
    for _ in run.epochs(epochs):
        tilt = random.random() + np.random.rand()  # 每轮开头也抽随机数
        model.train()
        for inputs, targets in run.batches(loader):
            loss = F.cross_entropy(model(inputs), targets) * (1 + tilt * random.random())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            run.log(loss=loss, n=len(targets))
            if run.step + 1 == at:
                os.kill(os.getpid(), number)
        model.eval()
        with torch.no_grad():
            hits = sum((model(x).argmax(1) == y).sum() for x, y in valid)
        run.log(valid_loss=1 - hits / 11)
    states = {name: part.state_dict() for name, part in objects.items()}
    drawn = [random.random(), float(np.random.rand()), torch.rand(2)]
    result = states | {"history": run.history.records, "drawn": drawn, "inexact": run.inexact}
    run.close()
    return result


def same(one: Any, two: Any) -> bool:
    """逐位相同。"""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def interrupted(folder: Path, make: Callable[[], Any], at: int, kind: str, **options: Any) -> int:
    """在子进程里练到第 ``at`` 步被信号打断，返回退出码。"""
    from tests.faults.children import run_child

    number = signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL
    every = {"save_every": 1} if kind == "SIGKILL" else {}
    return run_child(lambda: train(folder, make, at=at, number=number, **every, **options))
