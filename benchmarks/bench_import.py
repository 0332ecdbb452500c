"""量一量：``import companion.train`` 比 ``import torch`` 多花多少时间。预算 0.05 秒。

每一对先后起两个新进程，一个只导入 torch，一个再导入 companion.train；先后次序逐对轮换。
报两种差：整个进程的 CPU 时间之差（含噪声），和第二个进程里那一句 import 自己的时间。

用法：python benchmarks/bench_import.py [--pairs 15]
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import conditions, spread, write

__all__ = ["main"]

BUDGET_S = 0.05
BARE = "import time, torch; print(time.process_time(), 0.0)"
OURS = """
import time, torch
start = time.perf_counter()
import companion.train
own = time.perf_counter() - start
print(time.process_time(), own)
"""


def run(code: str) -> tuple[float, float]:
    """新进程的 CPU 时间，和其中导入 companion.train 的时间，单位秒。"""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # 要用 .pyc
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=kept)
    cpu_s, own_s = map(float, done.stdout.split())
    return cpu_s, own_s


def main() -> None:
    """跑完全部对数，写 JSON。"""
    parser = argparse.ArgumentParser(description="导入要多久")
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    run(OURS)  # 热身：编译 .pyc，把文件读进缓存
    bare, extra, own = [], [], []
    for i in range(pairs):
        codes = (BARE, OURS) if i % 2 == 0 else (OURS, BARE)
        results = {code: run(code) for code in codes}
        bare.append(results[BARE][0])
        extra.append(results[OURS][0] - results[BARE][0])
        own.append(results[OURS][1])
    report = {
        "what": "import companion.train 比 import torch 多出的时间",
        **conditions(),
        "pairs": pairs,
        "limit_s": BUDGET_S,
        "passed": max(spread(own)["median"], spread(extra)["median"]) <= BUDGET_S,
        "own_wall_s": spread(own),
        "extra_cpu_s": spread(extra),
        "torch_cpu_s": spread(bare),
        "raw": {"own_wall_s": own, "extra_cpu_s": extra, "torch_cpu_s": bare},
    }
    print(f"多出 {report['own_wall_s']['median']:.4f} 秒；预算 {BUDGET_S} 秒")
    write("import", report)


if __name__ == "__main__":
    main()
