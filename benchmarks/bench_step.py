"""一步的开销：同一个小网络（64-64-10，批量 64），各家的总时间除以手写循环的总时间。

一家一个进程，钉在一个核上；进程里手写循环和它轮流跑，先后次序逐对轮换。两边遍历同一个加载器
对象，训练完权重必须逐位相同，否则这一行作废。CPU 上比的是 CPU 时间；加速器上比的是墙钟时间，
计时前后都同步。进度条打开时，子进程接在伪终端上，条是真画的。

用法：python benchmarks/bench_step.py [--pairs 100] [--epochs 1] [--device cpu] [--only fit …]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset

from benchmarks import step_arms
from benchmarks.common import child, conditions, cores, pin, ratio, spread, write
from companion.device import device_name

__all__ = ["compare", "main"]

BATCHES, BATCH = 400, 64
LIMITS = {  # 95% 区间的上端
    ("fit", "off", "DataLoader"): 1.05,
    ("fit", "on", "DataLoader"): 1.05,
    ("run", "off", "DataLoader"): 1.07,
    ("fit", "off", "TensorLoader"): 1.07,
}
WARM_UP = 2  # 头几对不算：各家第一次调用时才导入、才编译


class Shuffle(Sampler[int]):
    """同 ``RandomSampler``，只是次序由「第几次真的开始走」定：lightning 会多要一个不用的迭代器。"""

    def __init__(self, size: int) -> None:
        self.size, self.passes = size, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        order = torch.Generator().manual_seed(self.passes)
        yield from torch.randperm(self.size, generator=order).tolist()


def make_loader(kind: str) -> Any:
    """合成数据的加载器，打乱，400 批；``kind`` 是 ``"DataLoader"`` 或 ``"TensorLoader"``。"""
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(BATCHES * BATCH, 64, generator=source)
    targets = torch.randint(10, (BATCHES * BATCH,), generator=source)
    if kind == "TensorLoader":
        from companion.data import TensorLoader

        return TensorLoader(inputs, targets, batch_size=BATCH, shuffle=True)
    dataset = TensorDataset(inputs, targets)
    return DataLoader(dataset, BATCH, sampler=Shuffle(len(dataset)))


def rewind(loader: Any) -> None:
    """让加载器回到第一轮，于是每次都走同样的次序。"""
    if isinstance(loader, DataLoader):
        loader.sampler.passes = 0
    else:
        loader.set_epoch(1)


def once(arm: Callable[..., None], loader: Any, device: str, epochs: int, bar: bool) -> Any:
    """训练一次，返回 CPU 秒数、墙钟秒数和训练完的权重。"""
    rewind(loader)
    model = step_arms.make_model().to(device)
    synchronize(device)
    cpu, wall = time.process_time(), time.perf_counter()
    arm(model, loader, epochs, bar)
    synchronize(device)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu, wall, [parameter.detach().cpu() for parameter in model.parameters()]


def synchronize(device: str) -> None:
    """等加速器干完手上的活。"""
    if device != "cpu":
        torch.accelerator.synchronize()


def compare(name: str, *, bar: bool, kind: str, device: str, pairs: int, epochs: int) -> Any:
    """在本进程里成对地测 ``name`` 和手写循环，返回两边每次的秒数与权重是否逐位相同。"""
    loader, arm = make_loader(kind), step_arms.ARMS[name]
    times: dict[str, list[tuple[float, float]]] = {"plain": [], "arm": []}
    same = True
    for i in range(pairs + WARM_UP):
        jobs = [("plain", step_arms.plain), ("arm", arm)]
        results = {
            label: once(run, loader, device, epochs, bar)
            for label, run in (jobs if i % 2 == 0 else reversed(jobs))
        }
        weights = zip(results["plain"][2], results["arm"][2], strict=True)
        same = same and all(torch.equal(a, b) for a, b in weights)
        if i >= WARM_UP:
            for label, (cpu, wall, _) in results.items():
                times[label].append((cpu, wall))
    clock = 0 if device == "cpu" else 1
    return {
        "same_weights": same,
        "plain_s": [round(pair[clock], 5) for pair in times["plain"]],
        "arm_s": [round(pair[clock], 5) for pair in times["arm"]],
    }


def row(name: str, bar: bool, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """起一个子进程测一行，返回比值、区间、每步多花的微秒数和原始数据。"""
    arguments = (name, int(bar), kind, options.device, options.pairs, options.epochs)
    how: dict[str, Any] = {"peers": True, "terminal": bar, "check": False}
    raw = child("benchmarks/bench_step.py", "--child", *arguments, **how)
    if raw["exit_code"]:
        print(f"{name} 没有跑完：{raw['said'].strip().splitlines()[-1]}", flush=True)
        return {"arm": name, "bar": "on" if bar else "off", "loader": kind, "error": raw["said"]}
    steps = options.epochs * BATCHES
    plain, arm = raw["plain_s"], raw["arm_s"]
    extra = [1e6 * (a - b) / steps for a, b in zip(arm, plain, strict=True)]
    found = {"arm": name, "bar": "on" if bar else "off", "loader": kind, **ratio(arm, plain)}
    found |= {"valid": raw["same_weights"], "extra_us": spread(extra)}
    found |= {"plain_us": spread([1e6 * s / steps for s in plain]), "raw": raw}
    if limited(found):
        limit = LIMITS[name, found["bar"], kind]
        found |= {"limit": limit, "passed": found["high"] <= limit}
    note = "" if raw["same_weights"] else "  权重不同，作废"
    print(
        f"{name:<11}{kind:<13}进度条{'开' if bar else '关'}  {found['ratio']:.3f} "
        f"[{found['low']:.3f}, {found['high']:.3f}]{note}",
        flush=True,
    )
    return found


def limited(found: dict[str, Any]) -> bool:
    """这一行有没有要达到的目标。"""
    return (found["arm"], found["bar"], found["loader"]) in LIMITS


def main() -> None:
    """测完各行，写 JSON。"""
    parser = argparse.ArgumentParser(description="训练一步的开销")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", default=list(step_arms.ARMS))
    options = parser.parse_args()
    rows = [
        row(name, bar, "DataLoader", options)
        for bar in (False, True)
        for name in options.only
        if not (bar and name in ("plain", "run"))
    ]
    if "fit" in options.only:  # 更难的一场：加载器快了，框架的开销就显出来了
        rows.append(row("fit", False, "TensorLoader", options))
    report = {
        "what": "训练一步的开销：总时间与手写循环之比",
        **conditions("lightning", "pytorch-ignite", "accelerate"),
        "device": options.device,
        "device_name": None
        if options.device == "cpu"
        else device_name(torch.device(options.device)),
        "clock": "CPU 时间" if options.device == "cpu" else "墙钟时间",
        "pairs": options.pairs,
        "steps": options.epochs * BATCHES,
        "passed": all(
            found.get("valid") and found.get("passed") for found in rows if limited(found)
        ),
        "rows": rows,
    }
    write("step" if options.device == "cpu" else "step_accelerator", report)


def child_main(arguments: list[str]) -> None:
    """子进程的入口：测一行，写进约定的文件。"""
    answer, name, bar, kind, device, pairs, epochs = arguments
    pin(cores()[-1:])
    numbers = {"pairs": int(pairs), "epochs": int(epochs)}
    found = compare(name, bar=bool(int(bar)), kind=kind, device=device, **numbers)
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[2:3] == ["--child"]:
        child_main([sys.argv[1], *sys.argv[3:]])
    else:
        main()
