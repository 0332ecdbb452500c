"""备好 ``.venv``：该装的装一次，装好之后不再碰网络。

直接依赖的版本在 requirements.txt，其余每个包的版本在 constraints.txt，谁来装都是同一套。
"装好"的凭据是 ``.venv/.book-stamp``：这两份清单、pyproject.toml 和 Python 版本的哈希。
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.preflight import Stop, check_disk, check_python, check_registry, check_venv_module

__all__ = ["Place", "ready"]


@dataclass(frozen=True)
class Place:
    """一份书的文件夹，以及它的虚拟环境在哪、用哪个 Python 建。"""

    root: Path
    name: str = ".venv"
    interpreter: str = sys.executable

    @property
    def venv(self) -> Path:
        return self.root / self.name

    @property
    def python(self) -> Path:
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def requirements(self) -> Path:
        return self.root / "requirements.txt"

    @property
    def constraints(self) -> Path:
        return self.root / "constraints.txt"

    @property
    def stamp(self) -> Path:
        return self.venv / ".book-stamp"


def ready(place: Place) -> Path:
    """返回装好了全部依赖的解释器；什么都没变时不运行 pip。

    Raises:
        Stop: 预检没过，或 pip 失败。
    """
    version = _venv_version(place)
    if version and _stamp_of(place, version) == _read(place.stamp):
        return place.python
    if not version:
        version = _make_venv(place)
    check_python(tuple(int(part) for part in version.split(".")[:2]))
    _install(place)
    place.stamp.write_text(_stamp_of(place, version), encoding="utf-8", newline="\n")
    return place.python


def _make_venv(place: Place) -> str:
    """建虚拟环境（坏掉的重建），返回其中 Python 的版本。"""
    check_venv_module()
    check_disk(place.root)
    print(f"建虚拟环境 {place.name}", flush=True)
    _run([place.interpreter, "-m", "venv", "--clear", str(place.venv)], "建不出虚拟环境")
    version = _venv_version(place)
    if not version:
        raise Stop(f"{place.python} 运行不起来：请删掉 {place.name} 再来一次，或换一个 Python。")
    return version


def _install(place: Place) -> None:
    pins = ["-r", str(place.requirements), "-c", str(place.constraints)]
    offline = _pip(place, "install", "--dry-run", "--no-index", "--quiet", *pins)
    if subprocess.run(offline, capture_output=True).returncode == 0:
        print("依赖都在本机，不用下载", flush=True)
        _run(_pip(place, "install", "--no-index", "--quiet", *pins), "依赖没有装上")
    else:
        check_disk(place.root)
        check_registry(place.python, place.requirements)
        _install_cpu_torch(place)
        print("下载并安装依赖：只此一次，几分钟到半小时，看网速", flush=True)
        _run(_pip(place, "install", *pins), "依赖没有装全；再运行一次会接着装")
    ours = ["--no-deps", "--no-build-isolation", "--quiet", "-e", str(place.root)]
    _run(_pip(place, "install", *ours), "伴学包没有装上")


def _install_cpu_torch(place: Place) -> None:
    """设了 ``BOOK_TORCH_INDEX`` 时先从那里装 torch；它的 CPU 版同样满足清单。"""
    index = os.environ.get("BOOK_TORCH_INDEX")
    if not index:
        return
    lines = place.requirements.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line.startswith(("torch==", "torchvision=="))]
    print("从 BOOK_TORCH_INDEX 装 " + "、".join(pins), flush=True)
    _run(_pip(place, "install", "--index-url", index, *pins), "这个地址装不上 torch")


def _pip(place: Place, *arguments: str) -> list[str]:
    return [str(place.python), "-m", "pip", "--disable-pip-version-check", *arguments]


def _run(command: list[str], problem: str) -> None:
    """运行 ``command``，进度直接给读者看；失败时带上它最后的话抛出 ``Stop``。"""
    done = subprocess.run(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise Stop(f"{problem}。\n{said}")


def _venv_version(place: Place) -> str:
    """返回 ``.venv`` 里 Python 的版本，如 ``"3.11.7"``；没有或跑不动时返回空串。"""
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        done = subprocess.run([str(place.python), "-c", code], capture_output=True, timeout=60)
    except OSError:
        return ""
    except subprocess.TimeoutExpired as error:
        raise Stop(f"{place.python} 一分钟没有回音：机器可能太忙，等等再来。") from error
    return done.stdout.decode("ascii", "replace").strip() if done.returncode == 0 else ""


def _stamp_of(place: Place, version: str) -> str:
    digest = hashlib.sha256(version.encode())
    for name in ("requirements.txt", "constraints.txt", "pyproject.toml"):
        digest.update((place.root / name).read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
