"""每个命令做哪几步。怎么装在 ``install``，怎么跑在 ``steps``，这里只有菜谱。"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.fixed import ENVIRONMENT
from tools.install import Place, ready
from tools.preflight import Stop
from tools.pythons import UNIT_TESTS, other_python_steps
from tools.serve import serve
from tools.steps import Step, run_steps, stream, summary

__all__ = ["run"]

UNIT = "单元测试"
ANSI = re.compile(r"\x1b\[[0-9;]*[mK]")  # 终端颜色
CODE_FOLDERS = ("src", "tools", "site", "tests", "benchmarks", "examples")
SITE_SOURCES = ("*.md", "*.yml", "*.bib", "requirements.txt", "constraints.txt", "tools/*.py")
SITE_SOURCES += (
    "tests/coverage.yml",
    "chapters/**/*",
    "site/**/*",
    "src/companion/**/*",
    "_build/stats.json",
)
SITE_SOURCES += ("benchmarks/results/*.json",)
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def run(name: str, arguments: Sequence[str], root: Path) -> int:
    """执行命令 ``name``，返回退出码。

    Raises:
        Stop: 有一件事得由读者先解决。
    """
    if name == "clean":
        return _clean(root, everything="--all" in arguments)
    if name == "serve":
        return serve(_built(root))
    python = ready(Place(root))
    env = _environment(python)
    if name == "book":
        return _book(python, env, root)
    if name == "test":
        return _report(run_steps(_test_steps(python, root), env, root))
    if name == "pythons":
        return _report(run_steps(other_python_steps(python, root, UNIT, prepare=True), env, root))
    if name == "check":
        return _report(run_steps(_check_steps(python, root), env, root))
    commands = {
        "execute": [[python, "tools/execute.py", "--write", *arguments]],
        "pins": [[python, "tools/pins.py", *arguments]],
        "format": _format_commands(python, root),
        "site-test": [[python, "-m", "pytest", "tests/site"]],
        "faults": [[python, "-m", "pytest", "tests/faults"]],
        "bench": [[python, "benchmarks/run_all.py", *arguments]],
    }
    if name == "site-test":
        _built(root)
    if name == "faults":
        env["FAULTS"] = "all"  # 不设就只跑固定的一份样本
    codes = [stream(command, env, root)[0] for command in commands[name]]
    return max(codes)


def _environment(python: Path) -> dict[str, str]:
    """返回子程序的环境变量：固定的算法分支、UTF-8 输出、.venv 在前。"""
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    text = {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **ENVIRONMENT, **text, "PATH": path}


def _book(python: Path, env: dict[str, str], root: Path) -> int:
    start = time.perf_counter()
    code, _ = stream([python, "tools/execute.py"], env, root)
    if code:
        return code
    executed = time.perf_counter()
    _build_site(python, env, root)
    built = time.perf_counter()
    print(_times(root))
    print(f"执行 {executed - start:.1f} 秒，建站 {built - executed:.1f} 秒")
    print(f"首页：{_built(root) / 'index.html'}")
    return 0


def _build_site(python: Path, env: dict[str, str], root: Path) -> None:
    """严格建站；来源与上次建成时一字不差就不再建。

    Raises:
        Stop: 建站有一条警告或错误。
    """
    stamp, digest = root / "_build" / ".site-stamp", _site_digest(root)
    index = root / "_build" / "html" / "index.html"
    if index.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        print("网站没有变化，不用重建", flush=True)
        return
    print("建站", flush=True)
    stamp.unlink(missing_ok=True)
    build = [python, "-c", JUPYTER_BOOK, "build", ".", "-W", "-n", "--keep-going"]
    code, text = stream(build, env, root, echo=False)
    text = ANSI.sub("", text)
    (root / "_build" / "site.log").write_text(text, encoding="utf-8", newline="\n")
    if code:
        print("\n".join(_complaints(text)))
        raise Stop("网站没有建成：原因在上面，全部输出在 _build/site.log。")
    code, _ = stream([python, "tools/wheel.py", index.parent], env, root, echo=False)
    if code:  # 单独打开的笔记本从网站上装它
        raise Stop("网站建成了，伴学包的轮子没有打出来：运行 python tools/wheel.py _build 看原因。")
    stamp.write_text(digest, encoding="utf-8", newline="\n")


def _site_digest(root: Path) -> str:
    """返回建站要读的全部文件的哈希。"""
    digest = hashlib.sha256()
    found = {path for pattern in SITE_SOURCES for path in root.glob(pattern)}
    for path in sorted(found):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _complaints(text: str) -> list[str]:
    """返回建站输出里的警告和错误；一条都没有时返回最后 20 行。"""
    lines = text.splitlines()
    return [line for line in lines if re.search(r"WARNING|ERROR|Error:", line)] or lines[-20:]


def _times(root: Path) -> str:
    """返回各章最近一次执行的秒数，一行一章。"""
    file = root / "_build" / "stats.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return "\n".join(f"  {item['seconds']:6.1f} 秒  {name}" for name, item in sorted(known.items()))


def _check_steps(python: Path, root: Path) -> list[Step]:
    folders = [name for name in CODE_FOLDERS if (root / name).is_dir()]
    return [
        Step("代码风格", [python, "-m", "ruff", "check", "."]),
        Step("代码格式", [python, "-m", "ruff", "format", "--check", *folders]),
        Step("类型", [python, "-m", "mypy"]),
        Step("笔记本格式", [python, "tools/nb_format.py", "--check"]),
        Step("笔记本规范", [python, "tools/nb_lint.py"]),
        Step("中文排版", [python, "tools/typography.py"]),
        Step("覆盖数", [python, "tools/proven.py"]),
    ]


def _test_steps(python: Path, root: Path) -> list[Step]:
    pytest = [python, "-m", "pytest"]
    return [
        *_check_steps(python, root),
        Step(UNIT, [*pytest, *UNIT_TESTS], tests=True),
        Step("故障样本", [*pytest, "tests/faults"], tests=True),
        *other_python_steps(python, root, part_of=UNIT),
        Step("执行章节", [python, "tools/execute.py"]),
        Step("习题与章节", [*pytest, "tests/exercises", "tests/chapters"], tests=True),
    ]


def _format_commands(python: Path, root: Path) -> list[list[str | Path]]:
    folders = [name for name in CODE_FOLDERS if (root / name).is_dir()]
    return [
        [python, "-m", "ruff", "check", "--fix", "--quiet", "."],
        [python, "-m", "ruff", "format", "--quiet", *folders],
        [python, "tools/typography.py", "--fix"],
        [python, "tools/nb_format.py"],
    ]


def _report(results: list) -> int:
    print("\n小结")
    print(summary(results), flush=True)
    return int(any(item.failed for item in results))


def _built(root: Path) -> Path:
    html = root / "_build" / "html"
    if not (html / "index.html").exists():
        raise Stop("还没有建好的网站：请先运行 make book（或 python tools/book.py book）。")
    return html


def _clean(root: Path, *, everything: bool) -> int:
    for folder in [root / "_build", *(sorted(root.glob(".venv*")) if everything else [])]:
        if Path(sys.prefix).resolve() == folder.resolve():
            raise Stop(f"正在用 {folder.name} 里的 Python，删不掉它自己：请换系统的 Python 运行。")
        if folder.exists():
            shutil.rmtree(folder)
            print(f"删掉了 {folder}")
    return 0
