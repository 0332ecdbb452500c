"""fastai：``SaveModelCallback(every_epoch=True, with_opt=True)`` 和 ``fit(start_epoch=…)``。"""

from functools import partial
from pathlib import Path

from fastai.callback.progress import ProgressCallback
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import SGD
from torch import nn

from benchmarks.resume.task import loss_fn, make_loader, make_model

__all__ = ["train"]


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``；它只在轮末存。"""
    learner = Learner(
        DataLoaders(make_loader(), make_loader()),
        make_model(),
        loss_func=loss_fn,
        opt_func=partial(SGD, mom=0.9),
        lr=0.05,
        path=folder,
    )
    learner.remove_cb(ProgressCallback)
    done = 0
    if resume:
        files = (folder / "models").glob("model_*.pth")
        newest = max(files, key=lambda path: path.stat().st_mtime)
        learner.load(newest.stem, with_opt=True)
        done = int(newest.stem.removeprefix("model_")) + 1
    saver = SaveModelCallback(every_epoch=True, with_opt=True)
    learner.fit(epochs, start_epoch=done, cbs=[saver])
    return learner.model
