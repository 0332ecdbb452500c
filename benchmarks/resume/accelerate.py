"""accelerate：``save_state``、``load_state``；轮中接着练用文档里的 ``skip_first_batches``。"""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration
from torch import nn

from benchmarks.resume.task import STEPS, loss_fn, make_loader, make_model, make_optimizer

__all__ = ["train"]


class Progress:
    """走到第几步，随存档一起存。"""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        return vars(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``；``use_seedable_sampler`` 两种取值都试过，轮中断了都续不上。"""
    naming = {"automatic_checkpoint_naming": True, "total_limit": 2}
    config = ProjectConfiguration(str(folder), **naming)
    order = DataLoaderConfiguration(use_seedable_sampler=True)
    accelerator = Accelerator(cpu=True, project_config=config, dataloader_config=order)
    module = make_model()
    prepared = accelerator.prepare(module, make_optimizer(module), make_loader())
    model, optimizer, loader = prepared
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    if resume:
        accelerator.load_state()
        config.iteration = progress.step // (every or STEPS)
    for epoch in range(progress.step // STEPS, epochs):
        model.train()
        loader.set_epoch(epoch)
        skipped = progress.step % STEPS
        batches = accelerator.skip_first_batches(loader, skipped) if skipped else loader
        for inputs, targets in batches:
            loss = loss_fn(model(inputs), targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            progress.step += 1
            if every and progress.step % every == 0:
                accelerator.save_state()
        if not every:
            accelerator.save_state()
    return module
