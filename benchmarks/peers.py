"""备好对照组：lightning、ignite、accelerate 等，装在 ``_build/peers``，不碰书的 ``.venv``。

新环境看得见 ``.venv`` 里的包（一个 .pth 文件），所以各家用的是同一份 torch，``requirements.txt``
里的版本一个不动。名单没变就什么也不做。用法：.venv/bin/python benchmarks/peers.py
"""

import os
import re
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

__all__ = ["main", "peers_packages", "peers_python"]

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "_build" / "peers"
LIST = ROOT / "benchmarks" / "peers.txt"
STAMP = PEERS / "installed.txt"


def peers_python() -> Path:
    """装着对照组的解释器。

    Raises:
        SystemExit: 还没装。
    """
    if not STAMP.exists():
        raise SystemExit("对照组还没有装。请先运行 .venv/bin/python benchmarks/peers.py。")
    return _python()


def peers_packages() -> Path:
    """对照组装在哪个文件夹里；还没装时那里是空的。"""
    where = {"base": str(PEERS), "platbase": str(PEERS)}
    return Path(sysconfig.get_path("purelib", "venv", vars=where))


def main() -> int:
    """装好名单里的包，返回退出码。"""
    wanted = LIST.read_text(encoding="utf-8")
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted:
        print("对照组已经装好")
        return 0
    if sys.prefix == sys.base_prefix:
        raise SystemExit("请用书的环境运行：.venv/bin/python benchmarks/peers.py。")
    venv.create(PEERS, with_pip=False, clear=True)
    shared = [path for path in site.getsitepackages() if Path(path).is_dir()]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in shared]
    (peers_packages() / "book.pth").write_text("".join(lines), encoding="utf-8", newline="\n")
    limits = PEERS / "constraints.txt"  # pip 的约束文件里不许写附加项，如 pagefind[extended]
    ours = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    limits.write_text(re.sub(r"\[.*?\]", "", ours), encoding="utf-8", newline="\n")
    pins = ["-r", str(LIST), "-c", str(limits)]
    code = subprocess.run([str(_python()), "-m", "pip", "install", *pins]).returncode
    if code == 0:
        STAMP.write_text(wanted, encoding="utf-8", newline="\n")
    return code


def _python() -> Path:
    return PEERS / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


if __name__ == "__main__":
    raise SystemExit(main())
