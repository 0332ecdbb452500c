"""数字作业，用 accelerate。"""

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from given import epochs, net, train, valid
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader


class Progress:
    def __init__(self):
        self.epoch, self.best, self.waited = 0, float("inf"), 0

    def state_dict(self):
        return vars(self)

    def load_state_dict(self, state):
        vars(self).update(state)


config = ProjectConfiguration("saves", automatic_checkpoint_naming=True, total_limit=2)
accelerator = Accelerator(cpu=True, log_with="tensorboard", project_config=config)
accelerator.init_trackers("digits")
train_loader, valid_loader = DataLoader(train, 64, shuffle=True), DataLoader(valid, 64)
optimizer = torch.optim.AdamW(net.parameters())
net, optimizer, train_loader, valid_loader = accelerator.prepare(
    net, optimizer, train_loader, valid_loader
)
progress = Progress()
accelerator.register_for_checkpointing(progress)
if Path("saves/checkpoints").exists():
    accelerator.load_state()
    config.iteration = progress.epoch
for epoch in range(progress.epoch + 1, epochs + 1):
    if progress.waited >= 3:
        break
    net.train()
    train_loss = 0.0
    for inputs, targets in train_loader:
        loss = cross_entropy(net(inputs), targets)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        train_loss += loss.item() * len(targets) / len(train)
    net.eval()
    valid_loss, accuracy = 0.0, 0.0
    with torch.no_grad():
        for inputs, targets in valid_loader:
            outputs = net(inputs)
            valid_loss += cross_entropy(outputs, targets).item() * len(targets) / len(valid)
            accuracy += (outputs.argmax(1) == targets).sum().item() / len(valid)
    values = {"train_loss": train_loss, "valid_loss": valid_loss, "valid_accuracy": accuracy}
    accelerator.log(values, step=epoch)
    progress.epoch, progress.waited = epoch, progress.waited + 1
    if valid_loss < progress.best:
        progress.best, progress.waited = valid_loss, 0
        accelerator.save_model(net, "saves/best")
    accelerator.save_state()
accelerator.end_training()
