"""按书的规矩检查章节；一处问题一行：``章:单元: 怎么改``。

用法：``python tools/nb_lint.py [章节名…]``。有问题时退出码为 1。
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import lint_cells, lint_form, lint_prose, lint_teaching
from tools.lint_chapter import Chapter, Finding
from tools.notebooks import ROOT, ToolError, chapter_paths

__all__ = ["lint", "main"]

RULES = (*lint_cells.RULES, *lint_teaching.RULES, *lint_prose.RULES, *lint_form.RULES)


def lint(path: Path, root: Path = ROOT) -> Iterator[Finding]:
    """逐条返回一章的问题。"""
    chapter = Chapter(path, root)
    for rule in RULES:
        yield from rule(chapter)


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """返回进程退出码：有任何问题时为 1。"""
    parser = argparse.ArgumentParser(description="检查章节")
    parser.add_argument("names", nargs="*", metavar="章节", help="缺省为目录里的全部章节")
    options = parser.parse_args(argv)
    count = 0
    try:
        paths = chapter_paths(root, options.names)
        for path in paths:
            for finding in lint(path, root):
                count += 1
                print(f"{path.stem}:{finding.cell_id}: {finding.message}")
        for path in _forgotten(root):
            count += 1
            print(f"{path.stem}:（全章）: 没有列进 _toc.yml")
        for key in lint_form.unused_references(root):
            count += 1
            print(f"references.bib：没有一处引用 {key}")
        for path in paths:
            for finding in lint_form.hints(Chapter(path, root)):
                print(f"提示 {path.stem}:{finding.cell_id}: {finding.message}")
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(paths)} 章，{count} 处问题。")
    return int(count > 0)


def _forgotten(root: Path) -> list[Path]:
    return sorted(set((root / "chapters").glob("*.ipynb")) - set(chapter_paths(root)))


if __name__ == "__main__":
    sys.exit(main())
