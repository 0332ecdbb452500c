"""数字作业，用 skorch。"""

from pathlib import Path

from given import epochs, net, train, valid
from skorch import NeuralNetClassifier
from skorch.callbacks import Checkpoint, EarlyStopping, TensorBoard
from skorch.helper import predefined_split
from torch import nn, optim
from torch.utils.tensorboard import SummaryWriter

last, best = Checkpoint(monitor=None, dirname="last"), Checkpoint(dirname="best")
stop, log = EarlyStopping(patience=3), TensorBoard(SummaryWriter("logs"))
learner = NeuralNetClassifier(
    net,
    criterion=nn.CrossEntropyLoss,
    optimizer=optim.AdamW,
    lr=1e-3,
    batch_size=64,
    iterator_train__shuffle=True,
    train_split=predefined_split(valid),
    callbacks=[("best", best), ("last", last), ("stop", stop), ("log", log)],
)
learner.initialize()
if Path("last/params.pt").exists():
    learner.load_params(checkpoint=last)
learner.set_params(max_epochs=epochs - len(learner.history))
learner.partial_fit(train, None)
