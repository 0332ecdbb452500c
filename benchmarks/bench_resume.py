"""接着练还是不是同一次训练？存档写到一半被杀，还剩什么？各家跑同样的三项。

- 轮末：一口气练 4 轮，对照「练 2 轮，换个进程再练 2 轮」，权重逐位比较。
- 轮中：每 5 步存一次，第 33 步前向时被 SIGKILL，换个进程接着练到第 4 轮，再与一口气的比。
- 存盘中被杀：第二次存盘时文件长到上限，系统发 SIGXFSZ，进程当场死在 ``write`` 里，来不及做任何
  清理；然后照各家的文档接着练。存档里每个文件都轮到一次，取最坏的结果。

每次训练一个新进程，开头都设同一个种子。各家怎么写见 ``benchmarks/resume``。
用法：python benchmarks/bench_resume.py [名字 …]
"""

import hashlib
import importlib
import json
import os
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import child, conditions, write

__all__ = ["PEERS", "main"]

PEERS = (
    *("companion_run", "companion_fit", "plain", "transformers", "accelerate"),
    *("ignite_deterministic", "ignite", "lightning", "fastai", "skorch", "keras"),
)
EPOCHS, STEPS, EVERY, KILL_AT, LIMIT_AT = 4, 20, 5, 33, 25
SMALL = 10_000  # 比这小的文件不当作存档的一部分


def train(peer: str, folder: Path, epochs: int, every: int | None, *, resume: bool, act: str = ""):
    """起一个进程训练，返回它报告的 ``{"weights": 摘要, "steps": 步数, …}``。"""
    arguments = (peer, folder, epochs, every or 0, int(resume), act)
    return child("benchmarks/bench_resume.py", "--child", *arguments, peers=True, check=False)


def same_run(peer: str, every: int | None) -> dict[str, Any]:
    """一口气练完，和断一次再练完：权重是否逐位相同，接上之后走了几步。"""
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as parts:
        straight = train(peer, Path(whole), EPOCHS, every, resume=False)
        if every:
            train(peer, Path(parts), EPOCHS, every, resume=False, act=f"kill:{KILL_AT}")
            left = EPOCHS * STEPS - (KILL_AT - 1) // every * every
        else:
            train(peer, Path(parts), EPOCHS // 2, every, resume=False)
            left = EPOCHS * STEPS // 2
        resumed = train(peer, Path(parts), EPOCHS, every, resume=True)
    for found in (straight, resumed):
        if found["exit_code"]:
            return {"exact": False, "error": last_line(found["said"])}
    exact = straight["weights"] == resumed["weights"]
    return {"exact": exact, "steps": resumed["steps"], "left": left}


def killed_in_save(peer: str) -> dict[str, Any]:
    """第二次存盘时被杀，每个文件轮一次；返回最坏的一次和各次的细节。"""
    with tempfile.TemporaryDirectory() as folder:
        first = train(peer, Path(folder), 2, None, resume=False, act=f"look:{LIMIT_AT}")
    sizes = sorted({size for size, _ in first["files"].values() if size > SMALL})
    limits = sorted({size - 1 for size in sizes} | {sizes[-1] // 2})
    tries = [one_kill(peer, limit) for limit in limits]
    order = ("intact", "again", "error_intact", "error_broken")
    return {"result": max((t["result"] for t in tries), key=order.index), "tries": tries}


def one_kill(peer: str, limit: int) -> dict[str, Any]:
    """文件的上限是 ``limit`` 字节时的一次：被杀，再接着练。"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killed = train(peer, folder, EPOCHS, None, resume=False, act=f"limit:{LIMIT_AT}:{limit}")
        if killed["exit_code"] != -signal.SIGXFSZ:
            raise RuntimeError(f"{peer} 应死于 SIGXFSZ，实际退出码 {killed['exit_code']}")
        now = fingerprints(folder)
        kept = all(now.get(file) == print_ for file, print_ in killed["files"].items())
        resumed = train(peer, folder, EPOCHS, None, resume=True)
    if resumed["exit_code"]:
        result = "error_intact" if kept else "error_broken"
        return {"limit": limit, "result": result, "error": last_line(resumed["said"])}
    left = (EPOCHS - 1) * STEPS
    result = "intact" if resumed["steps"] == left else "again"
    return {"limit": limit, "result": result, "steps": resumed["steps"], "left": left}


def last_line(text: str) -> str:
    """出错时的最后一行。"""
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "没有输出"


def fingerprints(folder: Path) -> dict[str, list[Any]]:
    """文件夹里每个文件的大小和摘要。"""
    return {
        path.relative_to(folder).as_posix(): [
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        ]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size > SMALL
    }


def measure(peer: str) -> dict[str, Any]:
    """一家的三项。"""
    row = {"peer": peer, "epoch": same_run(peer, None), "middle": same_run(peer, EVERY)}
    row["killed"] = killed_in_save(peer)
    found = row["epoch"]["exact"], row["middle"]["exact"], row["killed"]["result"]
    print(f"{peer:<21}轮末 {found[0]!s:<6}轮中 {found[1]!s:<6}存盘中被杀 {found[2]}", flush=True)
    return row


def main() -> None:
    """跑完各家，写 JSON。"""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # 不计时，几家可以一起跑
        rows = list(pool.map(measure, sys.argv[1:] or PEERS))
    ours = [row for row in rows if row["peer"].startswith("companion")]
    packages = ("lightning", "pytorch-ignite", "accelerate", "transformers", "fastai", "skorch")
    report = {
        "what": "接着练是不是同一次训练；存档写到一半被杀之后",
        **conditions(*packages, "keras"),
        "passed": all(
            row["epoch"]["exact"] and row["middle"]["exact"] and row["killed"]["result"] == "intact"
            for row in ours
        ),
        "rows": rows,
    }
    write("resume", report)


class Watch:
    """在子进程里数步数；数到约定的一步，就做约定的事。"""

    def __init__(self, answer: Path, folder: Path, act: str) -> None:
        self.answer, self.folder, self.steps = answer, folder, 0
        kind, *numbers = act.split(":")
        self.kind, self.numbers = kind, [int(n) for n in numbers]

    def __call__(self) -> None:
        """训练时每走一次前向调用一次。"""
        self.steps += 1
        if not self.numbers or self.steps != self.numbers[0]:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.report(files=fingerprints(self.folder))
        if self.kind == "look":
            os._exit(0)
        import resource  # 只有 POSIX 有

        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python 平时忽略它
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.numbers[1], self.numbers[1]))

    def report(self, **found: Any) -> None:
        """写下结果。"""
        self.answer.write_text(json.dumps(found), encoding="utf-8")


def child_main(arguments: list[str]) -> None:
    """子进程的入口：训练一次，写下步数和权重的摘要。"""
    answer, peer, folder, epochs, every, resume, act = arguments
    import torch

    from benchmarks.resume import task

    task.on_step = watch = Watch(Path(answer), Path(folder), act)
    torch.manual_seed(0)
    run = importlib.import_module(f"benchmarks.resume.{peer}").train
    options = {"epochs": int(epochs), "every": int(every) or None, "resume": resume == "1"}
    model = run(Path(folder), **options)
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    watch.report(weights=digest.hexdigest(), steps=watch.steps)


if __name__ == "__main__":
    if sys.argv[2:3] == ["--child"]:
        child_main([sys.argv[1], *sys.argv[3:]])
    else:
        main()
