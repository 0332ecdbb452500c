"""数字作业，不用框架。"""

from pathlib import Path

import torch
from given import epochs, net, train, valid
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

train_loader = DataLoader(train, 64, shuffle=True)
valid_loader = DataLoader(valid, 64)
optimizer = torch.optim.AdamW(net.parameters())
first, best, waited, last = 1, float("inf"), 0, Path("last.pt")
if last.exists():
    saved = torch.load(last)
    net.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["rng"])
    first, best, waited = saved["epoch"] + 1, saved["best"], saved["waited"]
writer = SummaryWriter("logs")
for epoch in range(first, epochs + 1):
    if waited >= 3:
        break
    net.train()
    train_loss = 0.0
    for inputs, targets in train_loader:
        loss = cross_entropy(net(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        train_loss += loss.item() * len(targets) / len(train)
    net.eval()
    valid_loss, accuracy = 0.0, 0.0
    with torch.no_grad():
        for inputs, targets in valid_loader:
            outputs = net(inputs)
            valid_loss += cross_entropy(outputs, targets).item() * len(targets) / len(valid)
            accuracy += (outputs.argmax(1) == targets).sum().item() / len(valid)
    writer.add_scalar("train_loss", train_loss, epoch)
    writer.add_scalar("valid_loss", valid_loss, epoch)
    writer.add_scalar("valid_accuracy", accuracy, epoch)
    waited = 0 if valid_loss < best else waited + 1
    if valid_loss < best:
        best = valid_loss
        torch.save(net.state_dict(), "best.pt")
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    torch.save(state | {"best": best, "waited": waited, "rng": torch.get_rng_state()}, last)
writer.close()
