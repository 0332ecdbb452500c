"""一步的开销：各家怎么训练同一个小网络。每个函数训练完就返回，什么也不存。

约定：``arm(model, loader, epochs, bar)``。都用交叉熵、SGD（学习率 0.05，动量 0.9），每轮得到
平均损失和准确率。``bar`` 为真时开着各家自己的进度条。种子和加载器由调用者备好，各家相同。
"""

import logging
import warnings
from collections.abc import Callable, Iterable
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

__all__ = ["ARMS", "PEER_ARMS", "make_model", "plain"]

Arm = Callable[[nn.Module, Iterable[Any], int, bool], None]


def make_model() -> nn.Module:
    """64-64-10 的两层网络，权重由种子 0 定。"""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def make_optimizer(model: nn.Module) -> SGD:
    """各家共用的优化器。"""
    return SGD(model.parameters(), lr=0.05, momentum=0.9)


def _total(values: list[Tensor]) -> float:
    return torch.stack(values).sum().item()


def plain(model: nn.Module, loader: Iterable[Any], epochs: int, bar: bool = False) -> None:
    """手写的循环，尽量快：每步只留下损失和对的个数，轮末读一次，GPU 上也不用等。"""
    optimizer, device = make_optimizer(model), next(model.parameters()).device
    for epoch in range(epochs):
        model.train()
        losses, right, count = [], [], 0
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach() * len(targets))
            right.append((outputs.argmax(1) == targets).sum())
            count += len(targets)
        print(epoch, _total(losses) / count, _total(right) / count)


def ours(model: nn.Module, loader: Iterable[Any], epochs: int, bar: bool) -> None:
    """``companion.train.fit``。"""
    from companion.metrics import Accuracy
    from companion.train import fit

    fit(
        model,
        loader,
        loss=F.cross_entropy,
        optimizer=make_optimizer(model),
        epochs=epochs,
        metrics={"accuracy": Accuracy()},
        progress=bar,
    )


def ours_run(model: nn.Module, loader: Iterable[Any], epochs: int, bar: bool) -> None:
    """读者自己的循环套在 ``companion.run.Run`` 里；每轮末存一次盘，时间算在内。"""
    from companion.metrics import Accuracy
    from companion.run import Run

    optimizer, device = make_optimizer(model), next(model.parameters()).device
    accuracy = Accuracy()
    with TemporaryDirectory() as folder:
        run = Run(folder, model=model, optimizer=optimizer, accuracy=accuracy)
        for _ in run.epochs(epochs):
            model.train()
            accuracy.reset()
            for inputs, targets in run.batches(loader):
                inputs, targets = inputs.to(device), targets.to(device)
                outputs = model(inputs)
                loss = F.cross_entropy(outputs, targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                accuracy.update(outputs, targets)
                run.log(n=len(targets), loss=loss)
            run.log(accuracy=accuracy.compute())
        run.close()


def ignite(model: nn.Module, loader: Iterable[Any], epochs: int, bar: bool) -> None:
    """ignite 的 ``create_supervised_trainer``，指标挂在训练引擎上。"""
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import ProgressBar
    from ignite.metrics import Accuracy, Loss

    trainer = create_supervised_trainer(
        model,
        make_optimizer(model),
        F.cross_entropy,
        device=next(model.parameters()).device,
        output_transform=lambda x, y, y_pred, loss: (y_pred, y),
    )
    Loss(F.cross_entropy).attach(trainer, "loss")
    Accuracy().attach(trainer, "accuracy")
    if bar:
        ProgressBar().attach(trainer)
    trainer.run(loader, max_epochs=epochs)
    print(trainer.state.metrics)


def accelerate(model: nn.Module, loader: Iterable[Any], epochs: int, bar: bool) -> None:
    """accelerate：循环自己写，三样东西交给 ``prepare``；它会另建一个加载器。"""
    from accelerate import Accelerator
    from accelerate.utils import tqdm

    accelerator = Accelerator(cpu=next(model.parameters()).device.type == "cpu")
    model, optimizer, batches = accelerator.prepare(model, make_optimizer(model), loader)
    for epoch in range(epochs):
        model.train()
        losses, right, count = [], [], 0
        for inputs, targets in tqdm(batches) if bar else batches:
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            losses.append(loss.detach() * len(targets))
            right.append((outputs.argmax(1) == targets).sum())
            count += len(targets)
        print(epoch, _total(losses) / count, _total(right) / count)
    accelerator.free_memory()


def lightning(model: nn.Module, loader: Iterable[Any], epochs: int, bar: bool) -> None:
    """lightning：``self.log`` 按轮记损失和准确率；存档、日志、摘要都关掉。"""
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            inputs, targets = batch
            outputs = self.model(inputs)
            loss = F.cross_entropy(outputs, targets)
            accuracy = (outputs.argmax(1) == targets).float().mean()
            self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(targets))
            self.log("accuracy", accuracy, on_step=False, on_epoch=True, batch_size=len(targets))
            return loss

        def configure_optimizers(self) -> SGD:
            return make_optimizer(self.model)

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    kind = next(model.parameters()).device.type
    trainer = L.Trainer(
        accelerator="cpu" if kind == "cpu" else "gpu",
        devices=1,
        max_epochs=epochs,
        enable_progress_bar=bar,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(Module(), loader)


PEER_ARMS: dict[str, Arm] = {"ignite": ignite, "accelerate": accelerate, "lightning": lightning}
ARMS: dict[str, Arm] = {"plain": plain, "fit": ours, "run": ours_run, **PEER_ARMS}
