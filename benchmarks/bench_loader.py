"""把内存里的图片一批批送出来：28×28、uint8、批量 128、打乱、归一化，每秒能送多少张。

各种送法在同一个进程里轮流，一次走整整一遍；没有 worker 的钉在一个核上。CPU 时间把 worker
的也算上。比值逐遍算，以「DataLoader 读预先转成浮点的 TensorDataset、0 个 worker」为 1。

用法：python benchmarks/bench_loader.py [--images 60000] [--passes 9] [--device cpu]
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.common import child, conditions, cores, pin, ratio, spread, write
from companion.device import device_name

__all__ = ["WAYS", "main"]

BATCH, MEAN, STD = 128, 0.2860, 0.3530  # Fashion-MNIST 的均值和标准差
LIMIT = 8.0
BASE = "`DataLoader`，浮点 `TensorDataset`"
Pair = tuple[Tensor, Tensor]


def images(count: int) -> Pair:
    """随机的 uint8 图片 ``(count, 1, 28, 28)`` 和标签 ``(count,)``。"""
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 1, 28, 28), generator=source, dtype=torch.uint8)
    return pixels, torch.randint(10, (count,), generator=source)


def normalize(pixels: Tensor) -> Tensor:
    """uint8 → 归一化的 float32；一张或一批都行。"""
    return pixels.float().div_(255).sub_(MEAN).div_(STD)


class PerSample(Dataset[tuple[Tensor, Tensor]]):
    """逐张归一化，教程里最常见的写法。"""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Pair:
        return normalize(self.pixels[index]), self.labels[index]


class PerBatch(PerSample):
    """多一个 ``__getitems__``：DataLoader 一次给出整批的下标，整批归一化。"""

    def __getitems__(self, indices: list[int]) -> Pair:
        chosen = torch.tensor(indices)
        return normalize(self.pixels[chosen]), self.labels[chosen]


def as_is(batch: Pair) -> Pair:
    """已经是整批了，不用再拼。"""
    return batch


def per_sample_v2(pixels: Tensor, labels: Tensor, workers: int) -> Iterable[Any]:
    """torchvision 的 v2 变换，逐张。"""
    from torchvision.transforms import v2

    steps = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([MEAN], [STD])]
    transform = v2.Compose(steps)

    class Transformed(PerSample):
        def __getitem__(self, index: int) -> Pair:
            return transform(self.pixels[index]), self.labels[index]

    return DataLoader(Transformed(pixels, labels), BATCH, shuffle=True, num_workers=workers)


def tensor_loader(pixels: Tensor, labels: Tensor, workers: int) -> Iterable[Any]:
    """我们的 ``TensorLoader``，uint8 进，用我们的 ``Normalize`` 整批归一化：书里教的写法。"""
    from companion.data import Normalize, TensorLoader

    transform = Normalize(MEAN, STD)
    return TensorLoader(pixels, labels, batch_size=BATCH, shuffle=True, transform=transform)


def usual(pixels: Tensor, labels: Tensor, workers: int) -> Iterable[Any]:
    """最常见的 ``DataLoader(TensorDataset)``：事先转成浮点，逐张取，再拼成一批。"""
    dataset = TensorDataset(normalize(pixels), labels)
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers)


def one_by_one(pixels: Tensor, labels: Tensor, workers: int) -> Iterable[Any]:
    """uint8 的数据集，逐张归一化。"""
    return DataLoader(PerSample(pixels, labels), BATCH, shuffle=True, num_workers=workers)


def by_batch(pixels: Tensor, labels: Tensor, workers: int) -> Iterable[Any]:
    """``__getitems__``：不用新的类，只多一个方法。"""
    dataset = PerBatch(pixels, labels)
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, collate_fn=as_is)


WAYS: dict[str, tuple[Callable[..., Iterable[Any]], int]] = {
    BASE: (usual, 0),
    "`DataLoader`，浮点 `TensorDataset`，2 个 worker": (usual, 2),
    "`DataLoader`，逐张归一化": (one_by_one, 0),
    "`DataLoader`，逐张 v2 变换": (per_sample_v2, 0),
    "`DataLoader`，`__getitems__` 整批归一化": (by_batch, 0),
    "**companion：`TensorLoader`**，整批归一化": (tensor_loader, 0),
}


def walk(loader: Iterable[Any], count: int, device: str) -> tuple[float, float]:
    """走一遍，返回 CPU 秒数（含 worker）和墙钟秒数。"""
    cpu, wall, seen = _cpu_s(), time.perf_counter(), 0
    for pixels, labels in loader:
        seen += len(pixels.to(device))
        labels.to(device)
    if device != "cpu":
        torch.accelerator.synchronize()
    if seen != count:
        raise RuntimeError(f"一遍应送出 {count} 张，实际 {seen} 张")
    return _cpu_s() - cpu, time.perf_counter() - wall


def _cpu_s() -> float:
    finished = os.times()  # 只有结束了的子进程算在里面：一遍走完，worker 也就退出了
    return time.process_time() + finished.children_user + finished.children_system


def measure(count: int, passes: int, device: str) -> dict[str, dict[str, list[float]]]:
    """各种送法轮流走 ``passes`` 遍（另有一遍热身），返回每遍的秒数。"""
    available, data = cores(), images(count)
    loaders = {way: build(*data, workers) for way, (build, workers) in WAYS.items()}
    found: dict[str, dict[str, list[float]]] = {way: {"cpu_s": [], "wall_s": []} for way in WAYS}
    for i in range(passes + 1):
        for way, loader in loaders.items():
            pin(available if WAYS[way][1] else available[-1:])
            cpu, wall = walk(loader, count, device)
            if i > 0:
                found[way]["cpu_s"].append(round(cpu, 6))
                found[way]["wall_s"].append(round(wall, 6))
    return found


def main() -> None:
    """各种送法轮流测，写 JSON。"""
    parser = argparse.ArgumentParser(description="每秒送出多少张图片")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--passes", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    size = (options.images, options.passes, options.device)
    found = child("benchmarks/bench_loader.py", "--child", *size)
    rows = []
    for way in WAYS:
        raw = found[way]
        rates = {
            clock: spread([options.images / s for s in raw[f"{clock}_s"]])
            for clock in ("cpu", "wall")
        }
        times = {
            clock: ratio(found[BASE][f"{clock}_s"], raw[f"{clock}_s"]) for clock in ("cpu", "wall")
        }
        rows.append({"way": way, "per_second": rates, "times_base": times, "raw": raw})
        cpu, wall = times["cpu"]["ratio"], times["wall"]["ratio"]
        print(f"{cpu:6.2f} 倍（CPU）{wall:6.2f} 倍（墙钟）  {way}", flush=True)
    ours = rows[-1]["times_base"]
    report = {
        "what": f"28×28 uint8 图片，批量 {BATCH}，打乱，归一化：每秒送出多少张",
        **conditions("torchvision"),
        "device": options.device,
        "device_name": None
        if options.device == "cpu"
        else device_name(torch.device(options.device)),
        "images": options.images,
        "passes": options.passes,
        "base": BASE,
        "limit": LIMIT,
        "passed": min(ours["cpu"]["low"], ours["wall"]["low"]) >= LIMIT,
        "rows": rows,
    }
    write("loader" if options.device == "cpu" else "loader_accelerator", report)


def child_main(answer: str, count: str, passes: str, device: str) -> None:
    """子进程的入口：测完，写进约定的文件。"""
    found = measure(int(count), int(passes), device)
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[2:3] == ["--child"]:
        child_main(sys.argv[1], *sys.argv[3:])
    else:
        main()
