"""companion：``fit`` 加 ``loaders``。"""

from pathlib import Path

from torch import nn

from benchmarks.resume.task import BATCH, loss_fn, make_data, make_model, make_optimizer
from companion.data import loaders
from companion.run import Run
from companion.train import fit

__all__ = ["train"]


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``。"""
    model = make_model()
    fit(
        model,
        loaders(make_data(), batch_size=BATCH),
        loss=loss_fn,
        optimizer=make_optimizer(model),
        epochs=epochs,
        run=Run(folder, resume=resume, save_every=every),
        progress=False,
    )
    return model
