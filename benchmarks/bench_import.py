"""量一量：``import companion.train`` 比 ``import torch`` 多花多少时间。预算 0.1 秒。

每一对先后起两个新进程，一个只导入 torch，一个再导入 companion.train；先后次序逐对轮换。
报两种差：整个进程的 CPU 时间之差（含噪声），和第二个进程里那一句 import 自己的时间。
用法：python benchmarks/bench_import.py [对数，默认 15]，打印一行 JSON。
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version

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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    cpu_s, own_s = map(float, done.stdout.split())
    return cpu_s, own_s


def spread(values: list[float]) -> dict[str, float]:
    """中位数和四分位距，单位秒。"""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"median_s": round(median, 4), "iqr_s": round(q3 - q1, 4)}


def main() -> None:
    """跑完全部对数，打印一行 JSON。"""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
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
        "budget_s": 0.1,
        "own_wall": spread(own),
        "extra_cpu": spread(extra),
        "torch_cpu": spread(bare),
        "pairs": pairs,
        "torch": version("torch"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} 核",
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    main()
