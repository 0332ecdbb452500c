"""核对依赖清单：三个 Python × 三种系统，每个包（连同间接的）在那里都有现成的轮子吗？

只解析，不安装；间接依赖的版本受 constraints.txt 约束，换了依赖以后用 ``--write`` 按 .venv 重写它。
pip 的 ``--platform`` 不改环境标记（``sys_platform`` 等仍是本机的），
所以在这里把标记一并换成目标系统的，否则在 Linux 上会替 Windows 去找 CUDA 的包。
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SOURCE_ONLY", "TARGETS", "Target", "installed", "main", "read_constraints"]
__all__ += ["resolve", "split_pins", "write_constraints"]

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13")
ELSEWHERE = ("appnope", "colorama", "pywinpty")  # 只在 macOS、Windows 上装的，版本手写
NOT_LISTED = ("paodetong", "pip")  # 自己，和装别人的那个
SOURCE_ONLY = ("jieba",)  # 只发布源码包的：另外核对，能在本机造出纯 Python 的轮子才算
PIP_AS = """
import json, sys
from pip._vendor.packaging import markers
here, there = markers.default_environment, json.loads(sys.argv[1])
markers.default_environment = lambda: {**here(), **there}
from pip._internal.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@dataclass(frozen=True)
class Target:
    """一种系统：pip 认的轮子标签，和它的环境标记。"""

    name: str
    tags: tuple[str, ...]
    markers: dict[str, str]


LINUX_TAGS = tuple(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1))
TARGETS = (
    Target(
        "Linux x86-64",
        (*LINUX_TAGS, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    ),
    Target(
        "Windows x86-64",
        ("win_amd64",),
        {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"},
    ),
    Target(
        "macOS 14 arm64",
        ("macosx_14_0_arm64",),
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    ),
)


def split_pins(text: str) -> tuple[list[str], list[str]]:
    """把清单分成 ``(要求有轮子的, 只发布源码包的)``，去掉注释和空行。"""
    pins = [line.split("#")[0].strip() for line in text.splitlines()]
    pins = [pin for pin in pins if pin]
    source_only = [pin for pin in pins if pin.split("==")[0] in SOURCE_ONLY]
    return [pin for pin in pins if pin not in source_only], source_only


def canonical(name: str) -> str:
    """包名的统一写法：小写，``-``、``_``、``.`` 不分。"""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """这个环境里装着的包：统一写法的名字到版本，不带 ``+cpu`` 之类的后缀；不算 ``NOT_LISTED``。"""
    found = {canonical(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()}
    return {k: v.partition("+")[0] for k, v in sorted(found.items()) if k not in NOT_LISTED}


def read_constraints(root: Path = ROOT) -> dict[str, str]:
    """constraints.txt：统一写法的名字到版本。"""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonical(name): version for name, _, version in (x.partition("==") for x in lines)}


def write_constraints(root: Path = ROOT) -> None:
    """按装着的重写 constraints.txt；``ELSEWHERE`` 里没装的，留着原来的版本。"""
    old = read_constraints(root)
    pins = {name: old[name] for name in ELSEWHERE if name in old} | installed()
    text = "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))
    (root / "constraints.txt").write_text(text, encoding="utf-8", newline="\n")


def resolve(pins: list[str], version: str, target: Target, constraints: Path | None = None) -> str:
    """让 pip 按 ``target`` 解析 ``pins``；返回空串表示全都有轮子，否则返回 pip 的理由。"""
    os_name = "nt" if target.name.startswith("Windows") else "posix"
    markers = {**target.markers, "os_name": os_name, "python_version": version}
    markers["python_full_version"] = f"{version}.0"
    tags = [word for tag in target.tags for word in ("--platform", tag)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PIP_AS, json.dumps(markers), "install", "--dry-run"]
        command += ["--ignore-installed", "--quiet", "--target", folder, "--only-binary=:all:"]
        command += ["--implementation", "cp", "--python-version", version, *tags, *pins]
        command += ["-c", str(constraints)] if constraints else []
        return _reason(command)


def builds_pure_wheel(pin: str) -> str:
    """把源码包 ``pin`` 造成轮子；返回空串表示它与系统、Python 版本都无关。"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", folder, pin]
        reason = _reason(command)
        names = [path.name for path in Path(folder).glob("*.whl")]
    if reason or all(name.endswith("-none-any.whl") for name in names):
        return reason
    return f"造出来的轮子限定了系统：{names[0]}"


def _reason(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True)
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["pip 没有说明"]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines)[-1].removeprefix("ERROR: ")


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """返回退出码：有一格是 ✗ 就是 1。"""
    if arguments == ["--write"]:
        write_constraints(root)
        return 0
    constraints = root / "constraints.txt"
    pins, source_only = split_pins((root / "requirements.txt").read_text(encoding="utf-8"))
    reasons = []
    for version in VERSIONS:
        for target in TARGETS:
            start = time.perf_counter()
            reason = resolve(pins, version, target, constraints)
            reasons.append(reason)
            seconds = time.perf_counter() - start
            mark = f"✗ {reason}" if reason else "✓"
            print(f"Python {version} · {target.name}  {seconds:.0f} 秒  {mark}", flush=True)
    for pin in source_only:
        reason = builds_pure_wheel(pin)
        reasons.append(reason)
        print(f"{pin} 只有源码包：{'✗ ' + reason if reason else '✓ 造得出通用的轮子'}")
    bad = sum(bool(reason) for reason in reasons)
    print(f"{len(pins)} 个直接依赖和它们的依赖，{len(reasons)} 项核对，{bad} 项没过")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
