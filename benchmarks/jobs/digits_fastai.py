"""数字作业，用 fastai。"""

from pathlib import Path

from fastai.callback.progress import CSVLogger
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.metrics import accuracy
from given import epochs, net, train, valid
from torch import nn

data = DataLoaders(DataLoader(train, bs=64, shuffle=True), DataLoader(valid, bs=64))
learner = Learner(data, net, loss_func=nn.CrossEntropyLoss(), metrics=accuracy, path=".")
last = SaveModelCallback(fname="last", every_epoch=True, with_opt=True)
stop, log = EarlyStoppingCallback(patience=3), CSVLogger(append=True)
done = len(list(Path("models").glob("last_*.pth")))
if done:
    learner.load(f"last_{done - 1}", with_opt=True)
callbacks = [last, SaveModelCallback(fname="best"), stop, log]
learner.fit(epochs, start_epoch=done, cbs=callbacks)
