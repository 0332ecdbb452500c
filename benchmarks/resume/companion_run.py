"""companion：自己的循环套在 ``Run`` 里，加载器是普通的 DataLoader。"""

from pathlib import Path

from torch import nn

from benchmarks.resume.task import loss_fn, make_loader, make_model, make_optimizer
from companion.run import Run

__all__ = ["train"]


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``。"""
    model, loader = make_model(), make_loader()
    optimizer = make_optimizer(model)
    run = Run(folder, resume=resume, save_every=every, model=model, optimizer=optimizer)
    for _ in run.epochs(epochs):
        model.train()
        for inputs, targets in run.batches(loader):
            loss = loss_fn(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss, n=len(targets))
    return model
