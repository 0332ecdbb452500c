"""单元测试也要在 3.12 和 3.13 上跑：找到它们，能跑多少跑多少，其余如实记作跳过。

那里通常没有 torch，也不为此再装几个 GB：只跑不需要第三方包的测试。
想在那里跑全部，建一个 ``.venv-3.12`` 并装上 requirements.txt。
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.steps import Step

__all__ = ["UNIT_TESTS", "find_python", "other_python_steps"]

SLOW_TESTS = ("chapters", "exercises", "faults", "site")
UNIT_TESTS = ("tests", *(f"--ignore=tests/{name}" for name in SLOW_TESTS))
VERSIONS = ("3.12", "3.13")
PLAIN_TESTS = ("book", "install", "papers", "pins", "preflight", "pythons", "serve", "sources")
PLAIN_TESTS += ("steps",)
PYTEST_PARTS = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")
NEEDS = "import torch, matplotlib, sklearn, pytest, nbformat"


def other_python_steps(python: Path, root: Path, part_of: str) -> list[Step]:
    """返回 3.12、3.13 各一步；``python`` 自己就是那个版本时不重复。"""
    own = _output([str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    return [_step(version, python, root, part_of) for version in VERSIONS if version != own]


def _step(version: str, python: Path, root: Path, part_of: str) -> Step:
    name = f"{part_of} · {version}"
    other = find_python(version, root)
    if other is None:
        return Step(name, part_of=part_of, note=f"没有找到 Python {version}")
    command: list[str] = [other, "-m", "pytest", "-p", "no:cacheprovider"]
    if _output([other, "-c", NEEDS + "; print('ok')"]) == "ok":
        command += UNIT_TESTS
        env = {"PYTHONPATH": str(root / "src")}
        return Step(name, command, env, part_of, "那里有 torch，全部都跑")
    command += ["--noconftest", *(f"tests/tools/test_{name}.py" for name in PLAIN_TESTS)]
    env = {"PYTHONPATH": str(_borrow_pytest(python, root))}
    return Step(name, command, env, part_of, "那里没有 torch，只跑不需要它的测试")


def find_python(version: str, root: Path) -> str | None:
    """返回能运行的 Python ``version``（如 ``"3.12"``）的路径，没有就返回 None。"""
    code = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"
    for candidate in _candidates(version, root):
        said = (_output([*candidate, "-c", code]) or "").splitlines()
        if len(said) == 2 and said[0] == version:
            return said[1]
    return None


def _candidates(version: str, root: Path) -> Iterator[list[str]]:
    for place in ("bin/python", "Scripts/python.exe"):
        yield [str(root / f".venv-{version}" / place)]
    if os.name == "nt" and (launcher := shutil.which("py")):
        yield [launcher, f"-{version}"]
    if found := shutil.which(f"python{version}"):
        yield [found]
    versions = Path.home() / ".pyenv" / "versions"
    yield from ([str(path / "bin" / "python")] for path in sorted(versions.glob(f"{version}.*")))


def _borrow_pytest(python: Path, root: Path) -> Path:
    """把 .venv 里的 pytest（纯 Python）抄一份给别的解释器用，返回那个文件夹。"""
    code = "import pytest; print(pytest.__file__)"
    source = Path(_output([str(python), "-c", code]) or "").parent.parent
    target = root / "_build" / "pytest-only"
    for part in PYTEST_PARTS:
        if (source / part).is_dir():
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source / part, target / part, ignore=skip, dirs_exist_ok=True)
        else:
            shutil.copy(source / f"{part}.py", target)
    return target


def _output(command: list[str]) -> str | None:
    """返回命令的输出；跑不起来或失败时返回 None。"""
    try:
        done = subprocess.run(command, capture_output=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None
