"""单元测试也要在 3.12 和 3.13 上跑：找到它们，能跑多少跑多少，其余如实记作跳过。

那里通常没有 torch。读者的机器上不为此再装几个 GB，只跑不需要第三方包的测试；
CI 里（有环境变量 ``CI``）或运行 ``python tools/book.py pythons`` 时，另建 ``.venv-3.12``、
``.venv-3.13``，装上同一套依赖，用真的 torch 跑 ``tests/companion``。

用法：``python tools/pythons.py 3.12 [pytest 的选项]``，备好那个环境再跑。
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.install import Place, ready  # noqa: E402  先有上一行才找得到
from tools.preflight import Stop  # noqa: E402
from tools.steps import Step  # noqa: E402

__all__ = ["UNIT_TESTS", "find_python", "main", "other_python_steps"]

SLOW_TESTS = ("chapters", "exercises", "faults", "site")
UNIT_TESTS = ("tests", *(f"--ignore=tests/{name}" for name in SLOW_TESTS))
VERSIONS = ("3.12", "3.13")
PLAIN_TESTS = ("book", "install", "papers", "pins", "preflight", "pythons", "serve", "sources")
PLAIN_TESTS += ("steps",)
PYTEST_PARTS = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")
NEEDS = "import torch, matplotlib, sklearn, pytest, nbformat"
FEW = "那里没有 torch，只跑不需要它的测试；要全部跑：python tools/book.py pythons"


def in_ci() -> bool:
    """是不是在 CI 里：环境变量 ``CI`` 有值，而且不是 0、false。"""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def other_python_steps(
    python: Path, root: Path, part_of: str, *, prepare: bool | None = None
) -> list[Step]:
    """返回 3.12、3.13 各一步；``python`` 自己就是那个版本时不重复。

    ``prepare`` 为真就把缺的依赖装上，缺省在 CI 里才装。
    """
    own = _output([str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    prepare = in_ci() if prepare is None else prepare
    return [_step(v, python, root, part_of, prepare) for v in VERSIONS if v != own]


def _step(version: str, python: Path, root: Path, part_of: str, prepare: bool) -> Step:
    name = f"{part_of} · {version}"
    other = find_python(version, root)
    if other is None:
        note = f"没有找到 Python {version}，没有在它上面跑；装上它再来"
        return Step(name, part_of=part_of, note=note)
    if prepare:
        command = [str(python), "tools/pythons.py", version]
        note = f".venv-{version} 里有 torch，跑 tests/companion"
        return Step(name, command, {}, part_of, note, tests=True)
    command = [other, "-m", "pytest", "-p", "no:cacheprovider"]
    if _output([other, "-c", NEEDS + "; print('ok')"]) == "ok":
        command += UNIT_TESTS
        env = {"PYTHONPATH": str(root / "src")}
        return Step(name, command, env, part_of, "那里有 torch，全部都跑", tests=True)
    command += ["--noconftest", *(f"tests/tools/test_{name}.py" for name in PLAIN_TESTS)]
    env = {"PYTHONPATH": str(_borrow_pytest(python, root))}
    return Step(name, command, env, part_of, FEW, tests=True)


def main(version: str, *options: str, root: Path = ROOT) -> int:
    """备好 ``.venv-版本``，在里面跑伴学包的单元测试，返回 pytest 的退出码。"""
    interpreter = find_python(version, root, own=False) or find_python(version, root)
    if interpreter is None:
        raise Stop(f"没有找到 Python {version}：请先装上它。")
    python = ready(Place(root, f".venv-{version}", interpreter))
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "tests/companion", *options]
    env = os.environ | {"PYTHONPATH": str(root / "src")}
    return subprocess.run(command, cwd=root, env=env).returncode


def find_python(version: str, root: Path, *, own: bool = True) -> str | None:
    """返回能运行的 Python ``version``（如 ``"3.12"``）的路径，没有就返回 None。

    ``own`` 为假时不看本书自己的 ``.venv-版本``：要用来建它的，不能是它自己。
    """
    code = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"
    mine = _own_candidates(version, root) if own else ()
    for candidate in (*mine, *_candidates(version)):
        said = (_output([*candidate, "-c", code]) or "").splitlines()
        if len(said) == 2 and said[0] == version:
            return said[1]
    return None


def _own_candidates(version: str, root: Path) -> Iterator[list[str]]:
    for place in ("bin/python", "Scripts/python.exe"):
        yield [str(root / f".venv-{version}" / place)]


def _candidates(version: str) -> Iterator[list[str]]:
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


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Stop as stop:
        sys.exit(f"✗ {stop}")
