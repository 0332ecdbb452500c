"""ignite 的 ``DeterministicEngine``：它为可复现而设，随机数状态也进存档。"""

from pathlib import Path

from ignite.engine.deterministic import DeterministicEngine
from torch import nn

from benchmarks.resume import ignite

__all__ = ["train"]


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``。"""
    how = {"epochs": epochs, "every": every, "resume": resume}
    return ignite.train(folder, engine_class=DeterministicEngine, **how)
