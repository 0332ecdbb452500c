"""打伴学包的轮子：``python tools/wheel.py 文件夹``。章节复跑要装它，网站要提供它。"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.notebooks import ROOT, ToolError

__all__ = ["build_wheel", "main", "run_module"]

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
        run_module(["build", "--wheel", "--no-isolation", "--outdir", str(folder)], cwd=copy)
    return next(folder.glob("*.whl"))


def run_module(arguments: list[str], cwd: Path | None = None) -> None:
    """运行 ``python -m 模块 参数``；失败就抛出 ToolError，附上输出的末尾。"""
    result = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode:
        raise ToolError(f"{' '.join(arguments[:2])} 失败：\n{result.stdout[-1500:]}")


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
