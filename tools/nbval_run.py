"""像读者那样把每章从头跑一遍，并拿新输出和存下的输出逐字比较（nbval）。

用法：``python tools/nbval_run.py [--junitxml=文件] [章节名…]``

章节抄进一个名叫“我的 笔记”的空文件夹；``companion`` 来自刚打好的轮子，不是源码目录。同时：
``companion`` 与单元里不写编码就打开文件算错误，多进程一律 ``spawn``，PATH 上没有编译器。
Linux x86-64 上的 Python 3.11 逐字比较；别处只要求每个单元跑通（``--nbval-lax``）。
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.fixed import ENVIRONMENT
from tools.notebooks import ROOT, ToolError, chapter_paths, write_text
from tools.wheel import build_wheel, run_module

__all__ = ["main", "validate"]

SANITIZER = Path(__file__).with_name("nbval_sanitize.cfg")
# 每个 Python 进程一启动就执行：内核、工作进程都算在内。
SITECUSTOMIZE = '''"""章节复跑的严格条件。"""

import multiprocessing
import warnings

warnings.filterwarnings("ignore", category=EncodingWarning)
# 单元里的 open 是 IPython 包过的，所以它也算单元。
OURS = r"(companion(\\..*)?|__main__|IPython\\.core\\.interactiveshell)$"
warnings.filterwarnings("error", category=EncodingWarning, module=OURS)
multiprocessing.set_start_method("spawn")
'''


def validate(paths: Iterable[Path], root: Path = ROOT, *, strict: bool, junit: str = "") -> int:
    """返回 pytest 的退出码：0 全部跑通（``strict`` 时输出也都一致）。

    Raises:
        ToolError: 轮子打不出来、装不上，或内核导入的不是轮子里的 ``companion``。
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        base = Path(temporary).resolve()
        package, notes, bare = base / "轮子", base / "我的 笔记", base / "bin"
        notes.mkdir()
        bare.mkdir()
        wheel = build_wheel(base, root)
        run_module(["pip", "install", "--quiet", "--no-deps", "--target", str(package), str(wheel)])
        write_text(package / "sitecustomize.py", SITECUSTOMIZE)
        for path in paths:
            shutil.copy2(path, notes)
        environment = _environment(package, bare)
        _check_origin(package, notes, environment)
        command = [
            sys.executable,
            "-X",
            "warn_default_encoding",
            "-m",
            "pytest",
            "-q",
            "--tb=short",
        ]
        command += ["--nbval" if strict else "--nbval-lax", "--nbval-current-env"]
        command += ["--nbval-sanitize-with", str(SANITIZER), "-p", "no:cacheprovider"]
        command += ["--rootdir", str(notes), "--color=no", "."]
        command += [f"--junitxml={Path(junit).resolve()}"] if junit else []
        return subprocess.run(command, cwd=notes, env=environment, check=False).returncode


def main(argv: list[str] | None = None) -> int:
    """返回进程退出码。"""
    parser = argparse.ArgumentParser(description="用打好的轮子复跑章节并比较输出")
    parser.add_argument("names", nargs="*", metavar="章节", help="缺省为目录里的全部章节")
    parser.add_argument("--junitxml", default="", metavar="文件", help="结果也写在这里")
    options = parser.parse_args(argv)
    strict = platform.machine() == "x86_64" and (sys.platform, sys.version_info[:2]) == (
        "linux",
        (3, 11),
    )
    try:
        paths = chapter_paths(names=options.names)
        code = validate(paths, strict=strict, junit=options.junitxml)
    except ToolError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    print("逐字比较" if strict else "只看跑通（这个平台的浮点输出不保证逐字相同）")
    return code


def _environment(package: Path, bare: Path) -> dict[str, str]:
    """返回复跑用的环境变量；PATH 上只有当前 Python 和一个 sh。"""
    folders = [str(Path(sys.executable).parent), str(bare)]
    if sys.platform == "win32":
        folders.append(str(Path(os.environ["SYSTEMROOT"]) / "System32"))
    else:
        (bare / "sh").symlink_to("/bin/sh")
    removed = ("CC", "CXX", "PYTEST_ADDOPTS", "PYTHONWARNINGS")
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    return {
        **kept,
        **ENVIRONMENT,
        "PATH": os.pathsep.join(folders),
        "PYTHONPATH": str(package),
        "PYTHONWARNDEFAULTENCODING": "1",
    }


def _check_origin(package: Path, notes: Path, environment: dict[str, str]) -> None:
    """可编辑安装不得抢在轮子前面。"""
    command = [sys.executable, "-c", "import companion; print(companion.__file__)"]
    result = subprocess.run(
        command, cwd=notes, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    origin = result.stdout.strip()
    if not origin or package not in Path(origin).parents:
        raise ToolError(f"复跑导入的 companion 应来自轮子，实为 {origin or result.stderr[-500:]}")


if __name__ == "__main__":
    sys.exit(main())
