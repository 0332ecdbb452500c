"""transformers 的 ``Trainer``：``get_last_checkpoint`` 找最近的存档。"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from benchmarks.resume.task import BATCH, loss_fn, make_data, make_model, make_optimizer

__all__ = ["train"]


class WithLoss(nn.Module):
    """Trainer 要模型自己返回损失。"""

    def __init__(self) -> None:
        super().__init__()
        self.model = make_model()

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs = self.model(inputs)
        return {"loss": loss_fn(outputs, labels), "logits": outputs}


class Rows(Dataset[Any]):
    """Trainer 要一行一个字典。"""

    def __init__(self) -> None:
        self.rows = make_data()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        inputs, labels = self.rows[index]
        return {"inputs": inputs, "labels": labels}


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``。"""
    model = WithLoss()
    optimizer = make_optimizer(model)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    options = TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        max_grad_norm=0.0,
        save_strategy="steps" if every else "epoch",
        save_steps=every or 500,
        save_total_limit=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        seed=0,
    )
    trainer = Trainer(model, options, train_dataset=Rows(), optimizers=(optimizer, constant))
    last = get_last_checkpoint(str(folder)) if resume else None
    trainer.train(resume_from_checkpoint=last)
    return model.model
