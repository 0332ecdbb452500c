"""核对依赖清单：三个 Python × 三种系统，每个包（连同间接的）在那里都有现成的轮子吗？

用法：``python tools/pins.py [--write]``。请 uv 按 requirements.txt 解析九次，只解析，不安装；
九次要的版本合起来，应与 constraints.txt 一字不差。改了 requirements.txt 以后用 ``--write`` 重写它，
还合用的版本都留着。uv 装在 ``_build`` 里，只有这里用；它不读 pip 的设置，镜像写在环境变量
``UV_DEFAULT_INDEX`` 里。
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SOURCE_ONLY", "TARGETS", "NoWheel", "builds_pure_wheel", "install_uv", "main"]
__all__ += ["pins_of", "problems", "resolve", "uv_folder", "write_constraints"]

ROOT = Path(__file__).resolve().parent.parent
UV = ("uv", "0.13.9")
VERSIONS = ("3.11", "3.12", "3.13")
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Windows x86-64": "x86_64-pc-windows-msvc",
    "macOS 14 arm64": "aarch64-apple-darwin",
}
TARGETS = tuple(itertools.product(VERSIONS, PLATFORMS))
SOURCE_ONLY = ("jieba",)  # 只发布源码包的：另外核对，能在本机造出纯 Python 的轮子才算


class NoWheel(Exception):
    """解析不出来；消息是 uv 或 pip 的理由。"""


def pins_of(text: str) -> dict[str, str]:
    """返回 constraints.txt 那种清单里的名字和版本。"""
    return dict(line.split("==") for line in text.splitlines())


def uv_folder(root: Path = ROOT) -> Path:
    """uv 装在哪里。"""
    return root / "_build" / "-".join(UV)


def install_uv(root: Path = ROOT) -> None:
    """装好 uv；装过就不再装。"""
    folder = uv_folder(root)
    if not folder.exists():
        _run(["pip", "install", "--quiet", "--target", str(folder), "==".join(UV)])


def resolve(
    requirements: Path, version: str, platform: str, known: str = "", root: Path = ROOT
) -> dict[str, str]:
    """返回 ``requirements`` 在那个 Python 和系统上要的每个包和版本，``known`` 里合用的优先。

    Raises:
        NoWheel: 有一个包在那里没有轮子。
    """
    uv = uv_folder(root)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "pins.txt")
        output.write_text(known, encoding="utf-8")  # uv 照着上一次的结果来
        command = ["uv", "pip", "compile", str(requirements), "--output-file", str(output)]
        command += ["--python-version", version, "--python-platform", PLATFORMS[platform]]
        command += ["--only-binary=:all:", *(f"--no-binary={name}" for name in SOURCE_ONLY)]
        command += ["--no-header", "--no-annotate", "--no-config", "--quiet"]
        command += ["--python", sys.executable, "--cache-dir", str(uv / "cache")]
        _run(command, PYTHONPATH=str(uv), MACOSX_DEPLOYMENT_TARGET="14.0")
        return pins_of(output.read_text(encoding="utf-8"))


def builds_pure_wheel(pin: str) -> str:
    """把源码包 ``pin`` 造成轮子；返回空串表示它与系统、Python 版本都无关，否则返回理由。"""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run(["pip", "wheel", "--no-deps", "--quiet", "-w", folder, pin])
        except NoWheel as error:
            return str(error)
        names = [path.name for path in Path(folder).glob("*.whl")]
    limited = [name for name in names if not name.endswith("-none-any.whl")]
    return f"造出来的轮子限定了系统：{limited[0]}" if limited else ""


def _run(arguments: list[str], **environment: str) -> None:
    """运行 ``python -m …``，输出不显示。"""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, capture_output=True, env=os.environ | environment)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").split()
        raise NoWheel(" ".join(said) or f"{arguments[0]} 没有说明")


def write_constraints(root: Path = ROOT) -> None:
    """按九次解析重写 constraints.txt。

    Raises:
        NoWheel: 有一个包在一处没有轮子。
    """
    file, pins = root / "constraints.txt", {}
    for version, platform in TARGETS:
        known = file.read_text(encoding="utf-8")
        pins |= resolve(root / "requirements.txt", version, platform, known, root)
    text = "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))
    file.write_text(text, encoding="utf-8", newline="\n")


def problems(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """依次给出 ``(核对了什么, 空串或哪里不对)``。"""
    text = (root / "constraints.txt").read_text(encoding="utf-8")
    listed, used = pins_of(text), set()
    for version, platform in TARGETS:
        try:
            found = resolve(root / "requirements.txt", version, platform, text, root)
            used |= found.keys()
            wrong = [f"{name}=={found[name]}" for name in found if listed.get(name) != found[name]]
            reason = "constraints.txt 里应有 " + "、".join(wrong) if wrong else ""
        except NoWheel as error:
            reason = str(error)
            used |= listed.keys()  # 它用哪些，不得而知
        yield f"Python {version} · {platform}", reason
    unused = "、".join(sorted(listed.keys() - used))
    yield f"constraints.txt 的 {len(listed)} 行", f"多了 {unused}" if unused else ""
    for name in SOURCE_ONLY:
        yield f"{name} 只有源码包，造得出通用的轮子", builds_pure_wheel(f"{name}=={listed[name]}")


def main(arguments: list[str], root: Path = ROOT) -> int:
    """返回退出码：有一项是 ✗ 就是 1。"""
    try:
        install_uv(root)
        if arguments == ["--write"]:
            write_constraints(root)
    except NoWheel as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    start, bad = time.perf_counter(), 0
    for what, reason in problems(root):
        bad += bool(reason)
        print(f"{'✗' if reason else '✓'} {what}{'：' if reason else ''}{reason}", flush=True)
    print(f"{bad} 项没过，{time.perf_counter() - start:.0f} 秒")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
