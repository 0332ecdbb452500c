"""test_distributed_fit.py 用两个进程跑的脚本：各种包装练同一个任务，结果由测试与单进程的比较。"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from companion.data import loaders
from companion.distributed import gather_objects, init, is_main, wrap
from companion.metrics import Accuracy, ConfusionMatrix
from companion.optim import EMA, PerStep
from companion.run import Run
from companion.train import evaluate, fit

KINDS = ("ddp", "fsdp")
SETTINGS = {
    "plain": {},
    "accumulate": {"accumulate": 2},
    "clip": {"accumulate": 2, "clip_norm": 0.3},
    "ema": {"ema": 0.8},
}
RUNS = ("accumulate", "ema")
TRAIN, VALID, BATCH = 45, 21, 16  # 最后一批 13 个：两个进程各 7、6 个


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(7), nn.Linear(7, 7)

    def forward(self, x):
        return x + torch.tanh(self.linear(self.norm(x)))


def data():
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(TRAIN + VALID, 5, generator=source)
    targets = (inputs.sum(1) > 0).long() + (inputs[:, 0] > 0.5).long()
    return (inputs[:TRAIN], targets[:TRAIN]), (inputs[TRAIN:], targets[TRAIN:])


def train(kind, settings, run=None):
    """``(模型, 记录)``：没有进程组时就是单进程的结果。"""
    torch.manual_seed(0)
    model = wrap(
        nn.Sequential(nn.Linear(5, 7), Block(), Block(), nn.Linear(7, 3)),
        kind,
        [Block] if kind == "fsdp" else [],
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    schedule = PerStep(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95))
    ema = EMA(model, settings["ema"]) if "ema" in settings else None
    train_data, valid_data = loaders(*data(), batch_size=BATCH, valid_batch_size=8, seed=3)
    history = fit(
        model,
        train_data,
        valid_data,
        loss=F.cross_entropy,
        optimizer=optimizer,
        epochs=3,
        scheduler=schedule,
        metrics={"accuracy": Accuracy(), "table": ConfusionMatrix()},
        progress=False,
        run=run,
        **settings | {"ema": ema},
    )
    return model, history.records


def weights(model):
    full = {
        n: t.full_tensor() if hasattr(t, "full_tensor") else t.clone()
        for n, t in model.state_dict().items()
    }
    return {name.removeprefix("module."): tensor for name, tensor in full.items()}


def counted():
    """评估时每个进程看见的样本：合起来每个一次。"""
    seen = []
    _, valid = loaders(data()[0], (torch.arange(VALID), torch.zeros(VALID)), batch_size=8)

    class Remember(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            seen.extend(x.tolist())
            return x * self.weight

    evaluate(Remember(), valid, loss=F.mse_loss)
    return seen


def best(run, model):
    """取回最好的一轮的权重之后，验证损失是多少，和那一轮记下的。"""
    run.load_best()
    _, valid = loaders(*data(), batch_size=BATCH, valid_batch_size=8)
    again = evaluate(model, valid, loss=F.cross_entropy)["loss"]
    return again, run.history.best("valid_loss")[1]


def main(folder):
    init(timeout_s=30)
    for kind in KINDS:
        for name, settings in SETTINGS.items():
            run = Run(folder / f"{kind}-{name}", save_every=2) if name in RUNS else None
            model, records = train(kind, settings, run)
            everyone = gather_objects(records)
            result = {
                "weights": weights(model),
                "records": everyone,
                "seen": gather_objects(counted()),
                "best": best(run, model) if name == "accumulate" else None,
            }
            if is_main():
                torch.save(result, folder / f"{kind}-{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
