"""数字作业，用 ignite。"""

from pathlib import Path

import torch
from given import epochs, net, train, valid
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import (
    Checkpoint,
    DiskSaver,
    EarlyStopping,
    TensorboardLogger,
    global_step_from_engine,
)
from ignite.metrics import Accuracy, Loss
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

train_loader, valid_loader = DataLoader(train, 64, shuffle=True), DataLoader(valid, 64)
optimizer = torch.optim.AdamW(net.parameters())
trainer = create_supervised_trainer(
    net, optimizer, cross_entropy, output_transform=lambda x, y, outputs, loss: (outputs, y)
)
Loss(cross_entropy).attach(trainer, "loss")
metrics = {"loss": Loss(cross_entropy), "accuracy": Accuracy()}
evaluator = create_supervised_evaluator(net, metrics=metrics)
trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(valid_loader))


def score(engine):
    return -engine.state.metrics["loss"]


stop = EarlyStopping(3, score, trainer)
evaluator.add_event_handler(Events.COMPLETED, stop)
epoch = global_step_from_engine(trainer)
kept = {"net": net, "optimizer": optimizer, "trainer": trainer, "stop": stop}
folder = DiskSaver("saves", require_empty=False)
best = Checkpoint(
    {"net": net}, folder, filename_prefix="best", score_function=score, global_step_transform=epoch
)
evaluator.add_event_handler(Events.COMPLETED, best)
last = Checkpoint(kept, folder, filename_prefix="last", global_step_transform=epoch)
evaluator.add_event_handler(Events.COMPLETED, last)
logger = TensorboardLogger("logs")
for tag, engine in {"train": trainer, "valid": evaluator}.items():
    logger.attach_output_handler(
        engine,
        Events.EPOCH_COMPLETED,
        tag=tag,
        metric_names="all",
        global_step_transform=epoch,
    )
saved = sorted(Path("saves").glob("last*"), key=lambda path: path.stat().st_mtime)
if saved:
    Checkpoint.load_objects(kept, torch.load(saved[-1]))
trainer.run(train_loader, max_epochs=epochs)
logger.close()
