"""中文排版：标点、中英文之间的空格。``--fix`` 改好，不带时只检查。

规则来自 autocorrect；笔记本只看正文单元，代码与输出不动。
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import autocorrect_py

__all__ = ["fix", "main", "problems"]

ROOT = Path(__file__).resolve().parent.parent
PATTERNS = {
    "chapters/*.ipynb": "ipynb",
    "*.md": "markdown",
    "chapters/*.md": "markdown",
    "src/companion/book/bets/*.toml": "toml",
    "src/companion/book/_dict/*.toml": "toml",
}


def problems(path: Path, kind: str) -> list[str]:
    """返回 ``path`` 里该改的地方，每处一行：原文 → 建议。"""
    text = path.read_text(encoding="utf-8")
    if kind == "toml":
        return [f"{path.name}：{old} → {new}" for old, new in _toml_changes(text)]
    found = autocorrect_py.lint_for(text, kind).lines
    return [f"{path.name}:{item.line}：{item.old.strip()} → {item.new.strip()}" for item in found]


def fix(path: Path, kind: str) -> None:
    """就地改好 ``path``。"""
    text = path.read_text(encoding="utf-8")
    if kind == "toml":
        fixed = text
        for old, new in _toml_changes(text):
            fixed = fixed.replace(old, new)
    else:
        fixed = autocorrect_py.format_for(text, kind)
    if fixed != text:
        path.write_text(fixed, encoding="utf-8", newline="\n")


def main(arguments: list[str], root: Path = ROOT) -> int:
    """返回退出码：有该改的地方而没有改，就是 1。"""
    files = [(path, kind) for pattern, kind in PATTERNS.items() for path in root.glob(pattern)]
    if "--fix" in arguments:
        for path, kind in files:
            fix(path, kind)
    found = [line for path, kind in sorted(files) for line in problems(path, kind)]
    print("\n".join(found) if found else f"{len(files)} 个文件的排版都合规")
    if found:
        print(f"{len(found)} 处要改：运行 make format，或照箭头右边改。")
    return int(bool(found))


def _toml_changes(text: str) -> list[tuple[str, str]]:
    """返回 TOML 里要改的字符串：``(原文, 建议)``；autocorrect 自己只看 TOML 的注释。"""
    pairs = [(old, autocorrect_py.format_for(old, "markdown")) for old in _strings(text)]
    return [(old, new) for old, new in pairs if old != new]


def _strings(text: str) -> list[str]:
    found: list[str] = []
    waiting = [tomllib.loads(text)]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
