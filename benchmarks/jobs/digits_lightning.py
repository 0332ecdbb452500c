"""数字作业，用 lightning。"""

import lightning as L
import torch
from given import epochs, net, train, valid
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader


class Digits(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net

    def training_step(self, batch, index):
        inputs, targets = batch
        loss = cross_entropy(self.net(inputs), targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        inputs, targets = batch
        outputs = self.net(inputs)
        self.log("valid_loss", cross_entropy(outputs, targets))
        self.log("valid_accuracy", (outputs.argmax(1) == targets).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


best = ModelCheckpoint("saves", monitor="valid_loss", save_last=True)
stop = EarlyStopping("valid_loss", patience=3)
trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[best, stop])
data = DataLoader(train, 64, shuffle=True), DataLoader(valid, 64)
trainer.fit(Digits(), *data, ckpt_path="last")
