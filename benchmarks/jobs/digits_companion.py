"""数字作业，用 companion：训练、验证、最好与最近的存档、断了接着练、日志、早停。"""

from given import epochs, net, train, valid
from torch import nn, optim

from companion.data import loaders
from companion.metrics import Accuracy
from companion.run import Run
from companion.train import fit

data = loaders(train, valid, batch_size=64)
task = {"loss": nn.CrossEntropyLoss(), "metrics": {"accuracy": Accuracy()}}
adam = optim.AdamW(net.parameters())
fit(net, *data, **task, optimizer=adam, epochs=epochs, run=Run("digits", resume=True), patience=3)
