"""test_distributed_kill.py 用两个进程跑的任务：练到指定的地方杀死自己一次，重来后接着练完。

``launch("tests/faults/ranks_job.py", args=[目录, 种类, 在哪里出事])``。种类是 ``"ddp"``、``"fsdp"``
或 ``"ddp+fsdp"``。出事的地方写成 ``"1:step:7"``（1 号进程练第 7 步时）、``"1:shard:2"``（第 2 次
存档，0 号写完自己的片、1 号还没写）、``"0:rename:2"``、``"0:renamed:2"``（第 2 次存档，改名之前、
之后）、``"0:term:7"``（第 7 步给 torchrun 发 SIGTERM）；``"-"`` 是不出事。最后 0 号进程印摘要。
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.nn import functional as F

from companion.data import loaders
from companion.distributed import gather_objects, init, is_main, rank, wrap
from companion.metrics import Accuracy
from companion.optim import EMA, PerStep
from companion.run import Run
from companion.train import fit

TRAIN, VALID, BATCH, EPOCHS, EVERY = 75, 21, 16, 3, 2  # 一轮 5 步（最后一步 11 个样本），共 15 步


def data():
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(TRAIN + VALID, 5, generator=source)
    targets = (inputs.sum(1) > 0).long()
    return (inputs[:TRAIN], targets[:TRAIN]), (inputs[TRAIN:], targets[TRAIN:])


class Fault:
    """第 ``count`` 次走到那里时出事；整个任务只出一次，记在 ``folder/happened``。"""

    def __init__(self, folder, where):
        self.marker, self.count = folder / "happened", 0
        who, self.kind, count = where.split(":") if where != "-" else ("-1", "", "0")
        self.due = int(count) if not self.marker.exists() else 0
        self.here, self.ready = rank() == int(who), folder / "rank0-wrote"

    def at(self, kind):
        """走到了 ``kind``；该出事就返回 ``True``。"""
        self.count += kind == self.kind
        return kind == self.kind and self.here and self.count == self.due

    def die(self):
        self.marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def stop_torchrun(self):
        """给 torchrun 发 SIGTERM，等它转给自己，再往下走：信号一定落在这一步里。"""
        self.marker.touch()
        came, handler = [], signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *args: (came.append(1), handler(*args)))
        os.kill(os.getppid(), signal.SIGTERM)
        while not came:
            time.sleep(0.01)


def install(fault):
    """让存档的几步都经过 ``fault``。"""
    write, rename = FileSystemWriter.write_data, os.rename

    def write_data(self, *args):
        if fault.at("shard"):
            while not fault.ready.exists():  # 等 0 号进程写完它的片
                time.sleep(0.01)
            fault.die()
        done = write(self, *args)
        if rank() == 0 and fault.kind == "shard" and fault.count == fault.due:
            done.wait()
            fault.ready.touch()
        return done

    def renaming(source, target):
        is_save = Path(source).name.startswith(".tmp-save-")  # DCP 写完、删旧存档时也改名
        if is_save and fault.at("rename"):
            fault.die()
        rename(source, target)
        if is_save and fault.at("renamed"):
            fault.die()

    FileSystemWriter.write_data, os.rename = write_data, renaming


def train(folder, kind, where):
    folder.mkdir(exist_ok=True)
    fault = Fault(folder, where)
    install(fault)
    torch.manual_seed(0)
    layers = nn.Linear(5, 9), nn.ReLU(), nn.Dropout(0.2), nn.Linear(9, 2)
    model = wrap(nn.Sequential(*layers), kind)
    torch.manual_seed(100 + rank())  # dropout 各进程不同
    optimizer, ema = torch.optim.AdamW(model.parameters(), lr=0.02), EMA(model, decay=0.8)
    schedule = PerStep(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15))
    train_data, valid_data = loaders(*data(), batch_size=BATCH, valid_batch_size=8, seed=3)

    def loss(outputs, targets):
        if model.training and fault.at("step"):
            fault.die()
        if model.training and fault.at("term"):
            fault.stop_torchrun()
        return F.cross_entropy(outputs, targets)

    run = Run(folder / "run", resume=True, save_every=EVERY)
    history = fit(
        model,
        train_data,
        valid_data,
        loss=loss,
        optimizer=optimizer,
        epochs=EPOCHS,
        scheduler=schedule,
        metrics={"accuracy": Accuracy()},
        ema=ema,
        progress=False,
        run=run,
    )
    return digest(model, optimizer, ema, gather_objects(history.records))


def digest(model, optimizer, ema, records):
    """参数、优化器状态、滑动平均和各进程的记录的 sha256；分了片的先凑齐。"""
    tensors = [*model.state_dict().values(), *ema.state_dict()["average"].values()]
    for state in optimizer.state_dict()["state"].values():
        tensors += [state[key] for key in sorted(state)]
    whole = [t.full_tensor() if hasattr(t, "full_tensor") else t for t in tensors]
    content = b"".join(t.detach().numpy().tobytes() for t in whole) + repr(records).encode()
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.modules["tensorboard"] = None  # 当作没有安装：不测它，省两秒
    init(timeout_s=30)
    for each in sys.argv[2].split("+"):
        result = train(Path(sys.argv[1]) / each, each, sys.argv[3])
        if is_main():
            print("result", each, result)
