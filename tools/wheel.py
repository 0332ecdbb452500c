"""打伴学包的轮子：``python tools/wheel.py 文件夹``。章节复跑要装它，网站要提供它。"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.notebooks import ROOT, ToolError

__all__ = ["build_wheel", "main", "run_python"]

PACKAGED = ("pyproject.toml", "README.md", "LICENSE")


def build_wheel(folder: Path, root: Path = ROOT) -> Path:
    """返回打进 ``folder`` 的轮子；在副本里打，源码目录不留下任何东西。

    Raises:
        ToolError: 打包失败。
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for name in PACKAGED:
            if (root / name).exists():
                shutil.copy2(root / name, copy)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(root / "src", copy / "src", ignore=ignored)
        run_python(["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)], cwd=copy)
    return next(folder.glob("*.whl"))


def run_python(
    arguments: list[str], cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """返回 ``python 参数`` 印的字；失败就抛出 ToolError，附上输出的末尾。"""
    command = [sys.executable, *arguments]
    said = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    done = subprocess.run(command, cwd=cwd, env=env, **said)
    if done.returncode:
        tail = (done.stdout + done.stderr)[-2000:]
        raise ToolError(f"{' '.join(arguments[:2])} 没有跑完，退出码 {done.returncode}：\n{tail}")
    return done.stdout.strip()


def main(argv: list[str]) -> int:
    """返回进程退出码。"""
    try:
        print(build_wheel(Path(argv[0]).resolve()).name)
    except ToolError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
