"""装任何东西之前先看一眼机器；不合适就停下，用一句话说怎么办。

只用标准库；语法停在 Python 3.7，好让旧 Python 也读得到那句话，而不是报语法错误。
"""

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["Stop", "check_disk", "check_python", "check_registry", "check_venv_module"]

MINIMUM = (3, 11)
FREE_GB = 10
SMALL_PIN = "nbclient"  # 拿它试软件源：24 KB，反正要装


class Stop(Exception):
    """要说给读者听的一句话；``book.py`` 打印它，以退出码 1 结束。"""


def check_python(version: tuple) -> None:
    """``version`` 低于 3.11 时抛出 ``Stop``。"""
    if tuple(version[:2]) < MINIMUM:
        raise Stop(
            "需要 Python 3.11 或更新的版本，现在是 {}.{}：请装一个新的，"
            "再用它运行，例如 python3.13 tools/book.py book。".format(*version[:2])
        )


def check_venv_module() -> None:
    """这个 Python 建不了虚拟环境时抛出 ``Stop``。"""
    for name in ("venv", "ensurepip"):
        if importlib.util.find_spec(name) is None:
            raise Stop(
                f"这个 Python 缺 {name} 模块，建不了虚拟环境："
                "Debian、Ubuntu 请运行 sudo apt-get install python3-venv，其他系统请重装 Python。"
            )


def check_disk(folder: Path) -> None:
    """``folder`` 所在的盘剩余不足 10 GB 时抛出 ``Stop``。"""
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < FREE_GB:
        raise Stop(
            f"这个盘只剩 {free_gb:.1f} GB，安装要留出 {FREE_GB} GB："
            "请腾出空间，或把整个文件夹挪到别的盘再运行。"
        )


def check_registry(python: Path, requirements: Path) -> None:
    """让 ``python`` 的 pip 真取一个小包；取不到就抛出 ``Stop``。

    不自己连网：软件源、代理、证书、本地轮子目录都以 pip 的设置为准。
    """
    lines = requirements.read_text(encoding="utf-8").splitlines()
    pin = next((line for line in lines if line.startswith(SMALL_PIN)), SMALL_PIN)
    with tempfile.TemporaryDirectory() as target:
        command = [str(python), "-m", "pip", "download", pin, "--no-deps", "--no-cache-dir"]
        command += ["--dest", target, "--timeout", "15", "--retries", "1", "--quiet"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=90)
            code, said = done.returncode, done.stderr.decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            code, said = 1, "90 秒没有回音"
    if code:
        errors = [line for line in said.splitlines() if line.strip()] or ["没有说明"]
        raise Stop(
            "软件源取不到包：请检查网络和代理，"
            "或换一个镜像 pip config set global.index-url ‹镜像地址›"
            f"（pip 说：{errors[-1].strip()}）。"
        )
