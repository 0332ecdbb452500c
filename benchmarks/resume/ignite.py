"""ignite：``Engine`` 和 ``Checkpoint``，按文档用 ``Checkpoint.load_objects`` 接着练。"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn

from benchmarks.resume.task import loss_fn, make_loader, make_model, make_optimizer

__all__ = ["train"]


def train(
    folder: Path,
    *,
    epochs: int,
    every: int | None,
    resume: bool,
    engine_class: type[Engine] = Engine,
) -> nn.Module:
    """见 ``task``；``engine_class`` 留给 ``ignite_deterministic``。"""
    model = make_model()
    optimizer = make_optimizer(model)

    def update(engine: Engine, batch: Any) -> float:
        model.train()
        inputs, targets = batch
        loss = loss_fn(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = engine_class(update)
    kept = {"model": model, "optimizer": optimizer, "trainer": trainer}
    saver = Checkpoint(kept, DiskSaver(folder, require_empty=False), n_saved=2)
    when = Events.ITERATION_COMPLETED(every=every) if every else Events.EPOCH_COMPLETED
    trainer.add_event_handler(when, saver)
    if resume:
        files = folder.glob("checkpoint_*.pt")
        newest = max(files, key=lambda path: path.stat().st_mtime)
        Checkpoint.load_objects(kept, torch.load(newest, weights_only=False))
    trainer.run(make_loader(), max_epochs=epochs)
    return model
