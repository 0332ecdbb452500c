"""各项测量共用：起子进程、钉住一个核、统计、记下机器与版本、写 JSON。

一项测量一个脚本，都能单独运行；结果在 ``benchmarks/results``，一项一个文件。
"""

import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.peers import peers_packages, peers_python
from tools.fixed import ENVIRONMENT

__all__ = [
    "RESULTS",
    "ROOT",
    "child",
    "conditions",
    "cores",
    "pin",
    "ratio",
    "spread",
    "write",
]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def conditions(*packages: str) -> dict[str, Any]:
    """返回这次测量的条件：日期、命令、机器、负载、各包的版本（装在对照环境里的也算）。"""
    names = ("torch", "numpy", *packages)
    return {
        "date": datetime.date.today().isoformat(),
        "command": "python " + " ".join([_relative(sys.argv[0]), *sys.argv[1:]]),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
        "companion": _version("paodetong"),
    }


def cores() -> list[int]:
    """本进程可用的核的编号；系统不能钉核时是空的。"""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin(chosen: Sequence[int]) -> None:
    """把本进程（和以后起的子进程）钉在这几个核上；空的就什么也不做。"""
    if chosen:
        os.sched_setaffinity(0, chosen)


def spread(values: Sequence[float]) -> dict[str, float]:
    """中位数和四分位距，单位同 ``values``。"""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": round(median, 5), "iqr": round(q3 - q1, 5)}


def ratio(ours: Sequence[float], base: Sequence[float], draws: int = 10_000) -> dict[str, float]:
    """逐对之比的中位数，和它的 95% 区间（对「对」做自助抽样，种子固定）。"""
    ratios = [a / b for a, b in zip(ours, base, strict=True)]
    source = random.Random(0)
    medians = sorted(statistics.median(source.choices(ratios, k=len(ratios))) for _ in range(draws))
    low, high = medians[int(0.025 * draws)], medians[int(0.975 * draws) - 1]
    middle = statistics.median(ratios)
    return {"ratio": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}


def child(
    script: str,
    *arguments: object,
    peers: bool = False,
    terminal: bool = False,
    check: bool = True,
    timeout: float = 900,
) -> dict[str, Any]:
    """在新进程里运行 ``script``，返回它写进第一个参数那个文件的 JSON，加上 ``exit_code``。

    Args:
        script: 相对于仓库根的路径。
        peers: 用装着对照组的解释器。
        terminal: 给它一个伪终端，进度条才会当真画出来；画的内容读走扔掉。
        check: 退出码不是 0 时报错。
    """
    python = str(peers_python()) if peers else sys.executable
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        command = [python, script, str(answer), *map(str, arguments)]
        code, said = _call(command, terminal, timeout)
        if code and check:
            raise RuntimeError(f"{' '.join(command)} 退出码 {code}：\n{said[-3000:]}")
        found = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {}
    return {**found, "exit_code": code, "said": said[-2000:] if code else ""}


def write(name: str, report: dict[str, Any]) -> Path:
    """把结果写进 ``benchmarks/results/<name>.json``，返回路径。"""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps(report, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
    print(f"写好 {path.relative_to(ROOT).as_posix()}", flush=True)
    return path


def _call(command: list[str], terminal: bool, timeout: float) -> tuple[int, str]:
    quiet = {"PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "utf-8", "KERAS_BACKEND": "torch"}
    env = {**os.environ, **ENVIRONMENT, **quiet}
    if not terminal:
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(
            command, env=env, cwd=ROOT, timeout=timeout, encoding="utf-8", **options
        )
        return done.returncode, done.stdout
    import pty  # 只有 POSIX 有

    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    kept: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(ours, kept))
    reader.start()
    code = process.wait(timeout)
    reader.join()
    os.close(ours)
    return code, b"".join(kept).decode("utf-8", "replace")


def _drain(file: int, kept: list[bytes]) -> None:
    """读走终端上的一切，只留最后几块；对端关闭时读会出错，就到头了。"""
    while True:
        try:
            block = os.read(file, 65536)
        except OSError:
            return
        if not block:
            return
        kept.append(block)
        del kept[:-20]


def _relative(path: str) -> str:
    full = Path(path).resolve()
    return full.relative_to(ROOT).as_posix() if full.is_relative_to(ROOT) else full.name


def _version(name: str) -> str | None:
    """``name`` 的版本；只装在对照环境里的，去那里的 dist-info 目录名里找。"""
    places = [[*sys.path], [str(peers_packages())]]
    found = (d for path in places for d in distributions(name=name, path=path))
    first = next(found, None)
    return first.version if first else None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "未知"
