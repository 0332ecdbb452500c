"""执行章节，把结果存进 Sphinx 要读的缓存，并记下每章用时与内存。

用法：``python tools/execute.py [--force] [--write] [--print-cache] [章节名…]``

缓存目录名里的哈希取自 ``src/companion``、``chapters/*.py``、装着的每个包与 Python 版本：
其中任何一样变了，所有章节重跑；只有一章的代码变了，只重跑那一章；改正文不重跑。
站点扩展用 ``cache_path()``（或环境变量 ``BOOK_CACHE``）找到同一个目录。
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import importlib.metadata
import json
import platform
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.kernel_run import CellFailure, kernel_environment, run_notebook
from tools.nb_format import canonical, canonical_text
from tools.notebooks import (
    ROOT,
    Notebook,
    ToolError,
    chapter_paths,
    code_cells,
    read_notebook,
    write_text,
)

__all__ = ["cache_path", "changed_cells", "execute", "main"]

CACHE_PREFIX = ".jupyter_cache-"
PROGRESS_EVERY_S = 20


def cache_path(root: Path = ROOT) -> Path:
    """返回当前代码对应的缓存目录，``_build/.jupyter_cache-哈希``；不保证已经存在。"""
    files = [
        path
        for path in sorted((root / "src" / "companion").rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    files += sorted((root / "chapters").glob("*.py"))
    site_packages = Path(sysconfig.get_path("purelib"))  # 文件夹名里有包名和版本
    packages = sorted(path.name for path in site_packages.glob("*.dist-info"))
    digest = hashlib.sha256(f"{platform.python_version()} {packages}".encode())
    for path in files:
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return root / "_build" / f"{CACHE_PREFIX}{digest.hexdigest()[:16]}"


class Progress:
    """进度：终端上原地刷新一行；不是终端时隔一阵才写一行。"""

    def __init__(self) -> None:
        self.where = ""
        self._live = sys.stdout.isatty()
        self._last = time.monotonic()

    def line(self, text: str) -> None:
        """写完整的一行。"""
        print(f"\r\x1b[K{text}" if self._live else text, flush=True)
        self._last = time.monotonic()

    def cell(self, text: str, where: str) -> None:
        """报告正在跑的单元；``where`` 供中断时指明位置。"""
        self.where = where
        if self._live:
            print(f"\r\x1b[K{text}", end="", flush=True)
        elif time.monotonic() - self._last > PROGRESS_EVERY_S:
            self.line(text)


def execute(
    root: Path = ROOT,
    names: Iterable[str] = (),
    *,
    force: bool = False,
    write: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """返回这一次真正执行了的章节名；其余的取自缓存。

    ``force`` 连缓存里有的也重跑；``write`` 把新的文字输出写回笔记本。

    Raises:
        CellFailure: 有单元失败；之前跑完的章节仍留在缓存里。
    """
    progress = progress or Progress()
    folder = cache_path(root)
    cache = get_cache(folder)
    paths = chapter_paths(root, names)
    executed = []
    for position, path in enumerate(paths, start=1):
        label = f"[{position}/{len(paths)}] {path.stem}"
        source = read_notebook(path)
        if write:  # 先规范再跑：缓存认的是写回之后的样子
            source = canonical(source)
        stats = None if force else _cached_stats(cache, source)
        if stats is None:
            stats = _execute_chapter(cache, path, source, label, root, progress)
            executed.append(path.stem)
            progress.line(f"{label}：{_measured(stats)}")
        else:
            progress.line(f"{label}：没有变化，取自缓存（{_measured(stats)}）")
        _save_stats(root, path, stats)
        if write:
            _, fresh = cache.merge_match_into_notebook(source)
            write_text(path, canonical_text(fresh))
    for old in folder.parent.glob(f"{CACHE_PREFIX}*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return executed


def changed_cells(path: Path, root: Path = ROOT) -> list[str]:
    """返回这一次的输出与笔记本里存下的不一样的单元；缓存里没有就先执行。"""
    execute(root, [path.stem])
    stored = read_notebook(path)
    _, fresh = get_cache(cache_path(root)).merge_match_into_notebook(stored)
    pairs = zip(code_cells(canonical(stored)), code_cells(canonical(fresh)), strict=True)
    return [old.id for old, new in pairs if old.outputs != new.outputs]


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """返回进程退出码：0 全部跑通，1 有单元失败，130 被 Ctrl-C 打断。"""
    parser = argparse.ArgumentParser(description="执行章节并填好缓存")
    parser.add_argument("names", nargs="*", metavar="章节", help="缺省为目录里的全部章节")
    parser.add_argument("--force", action="store_true", help="缓存里有的也重跑")
    parser.add_argument("--write", action="store_true", help="把新的文字输出写回笔记本")
    parser.add_argument("--print-cache", action="store_true", help="只打印缓存目录，不执行")
    options = parser.parse_args(argv)
    if options.print_cache:
        print(cache_path(root))
        return 0
    progress = Progress()
    try:
        execute(root, options.names, force=options.force, write=options.write, progress=progress)
    except ToolError as error:
        progress.line(f"✗ {error}")
        return 1
    except KeyboardInterrupt:
        where = progress.where or "第一章开始之前"
        progress.line(f"✗ 已中断，停在 {where}；跑完的章节留在缓存里。")
        return 130
    return 0


def _cached_stats(cache: Any, source: Notebook) -> dict[str, Any] | None:
    try:
        return dict(cache.match_cache_notebook(source).data)
    except KeyError:
        return None


def _execute_chapter(
    cache: Any, path: Path, source: Notebook, label: str, root: Path, progress: Progress
) -> dict[str, Any]:
    """返回这一章的统计，并把执行结果放进缓存。"""
    notebook = copy.deepcopy(source)
    total, start = len(code_cells(notebook)), time.monotonic()

    def report(number: int, name: str) -> None:
        elapsed = time.monotonic() - start
        progress.cell(
            f"{label}：单元 {number}/{total} {name}，{elapsed:.0f} 秒", f"{path.stem} 单元 {name}"
        )

    report(0, "（启动内核）")
    try:
        seconds, peak_mb = run_notebook(
            notebook, path.parent, kernel_environment(root / "src"), report
        )
    except CellFailure as error:
        raise CellFailure(f"{path.stem} 单元 {error}") from error
    stats = {
        "seconds": seconds,
        "peak_mb": peak_mb,
        "code_cells": total,
        "date": date.today().isoformat(),
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
    }
    bundle = CacheBundleIn(notebook, str(path), data={**stats, "execution_seconds": seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return stats


def _save_stats(root: Path, path: Path, stats: dict[str, Any]) -> None:
    """更新 ``_build/stats.json`` 里这一章的一项；已不在目录里的章节顺手去掉。"""
    file = root / "_build" / "stats.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    key = path.relative_to(root).with_suffix("").as_posix()
    known[key] = {name: value for name, value in stats.items() if name != "execution_seconds"}
    kept = {name: known[name] for name in sorted(known) if (root / f"{name}.ipynb").exists()}
    write_text(file, json.dumps(kept, ensure_ascii=False, indent=1) + "\n")


def _measured(stats: dict[str, Any]) -> str:
    memory = "" if stats["peak_mb"] is None else f"，内存峰值 {stats['peak_mb']} MB"
    return f"{stats['code_cells']} 个单元，{stats['seconds']} 秒{memory}"


if __name__ == "__main__":
    sys.exit(main())
