"""lightning：``ModelCheckpoint(save_last=True)`` 和 ``ckpt_path="last"``。"""

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from benchmarks.resume.task import loss_fn, make_loader, make_model, make_optimizer

__all__ = ["train"]


class Module(L.LightningModule):
    """把网络包成 lightning 要的样子。"""

    def __init__(self) -> None:
        super().__init__()
        self.model = make_model()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        inputs, targets = batch
        return loss_fn(self.model(inputs), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.model)


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``。"""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    often = {"every_n_train_steps": every} if every else {"every_n_epochs": 1}
    saver = ModelCheckpoint(folder, save_last=True, **often)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[saver], **quiet)
    module = Module()
    trainer.fit(module, make_loader(), ckpt_path="last" if resume else None)
    return module.model
