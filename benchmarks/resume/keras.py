"""keras（torch 后端）：``BackupAndRestore``；它自己找备份，找到就接着练。"""

from pathlib import Path
from typing import Any

import keras
from keras import layers
from torch import nn

from benchmarks.resume import task

__all__ = ["train"]


class Count(keras.callbacks.Callback):
    """网络不是 torch 的 Module，步数由回调来数。"""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if task.on_step is not None:
            task.on_step()


def train(folder: Path, *, epochs: int, every: int | None, resume: bool) -> nn.Module:
    """见 ``task``。"""
    hidden = layers.Dense(256, activation="relu")
    model = keras.Sequential([keras.Input((64,)), hidden, layers.Dropout(0.5), layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    backup = keras.callbacks.BackupAndRestore(
        str(folder), save_freq=every or "epoch", delete_checkpoint=False
    )
    callbacks = [backup, Count()]
    model.fit(task.make_loader(), epochs=epochs, callbacks=callbacks, verbose=0)
    return model
