"""不用框架：每轮末 ``torch.save`` 一次，连同随机数状态；不在轮中存。"""

from pathlib import Path

import torch
from torch import nn

from benchmarks.resume.task import loss_fn, make_loader, make_model, make_optimizer

__all__ = ["train"]


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``。"""
    model, loader = make_model(), make_loader()
    optimizer, first, file = make_optimizer(model), 1, folder / "last.pt"
    if resume:
        saved = torch.load(file)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        first = saved["epoch"] + 1
    for epoch in range(first, epochs + 1):
        model.train()
        for inputs, targets in loader:
            loss = loss_fn(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**states, "rng": torch.get_rng_state(), "epoch": epoch}, file)
    return model
