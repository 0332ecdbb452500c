"""``make bench``：备好对照组，依次做完各项测量，印出小结。结果写进 ``benchmarks/results``。

要在安静的机器上跑。用法：python benchmarks/run_all.py [import loader step job resume …]
"""

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import peers
from benchmarks.common import RESULTS, ROOT

__all__ = ["BENCHES", "main"]

BENCHES = ("import", "loader", "step", "job", "resume")


def verdict(name: str) -> str:
    """一项测量的结论，一行字。"""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"没有结果  {name}"
    report = json.loads(path.read_text(encoding="utf-8"))
    word = "达到" if report["passed"] else "没达到"
    return f"{word:<4}  {name:<8}{report['what']}"


def main() -> int:
    """跑完选中的测量，返回退出码：有一项没跑完或没达到目标就是 1。"""
    names = sys.argv[1:] or list(BENCHES)
    unknown = sorted(set(names) - set(BENCHES))
    if unknown:
        raise SystemExit(f"没有这项测量：{'、'.join(unknown)}。可选：{'、'.join(BENCHES)}。")
    if peers.main():
        raise SystemExit("对照组没有装上，原因在上面。")
    broken = []
    for name in names:
        print(f"\n—— {name}", flush=True)
        start = time.perf_counter()
        command = [sys.executable, f"benchmarks/bench_{name}.py"]
        if subprocess.run(command, cwd=ROOT).returncode:
            broken.append(name)
        print(f"用了 {time.perf_counter() - start:.0f} 秒", flush=True)
    print("\n小结")
    lines = [f"没跑完  {name}" if name in broken else verdict(name) for name in names]
    print("\n".join(lines), flush=True)
    return int(any(not line.startswith("达到") for line in lines))


if __name__ == "__main__":
    raise SystemExit(main())
