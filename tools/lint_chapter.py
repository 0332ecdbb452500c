"""检查规则的公共材料：一章的内容，和找正文、找单元的几个办法。"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from companion.book.widgets._questions import read_tables
from companion.errors import DataError
from tools.notebooks import Notebook, ToolError, code_cells, read_notebook

__all__ = ["Chapter", "Finding", "parse_cell", "prose_lines"]

FENCED = re.compile(r"^(`{3,}|~{3,})(?!\{)(?!.*\{).*?^\1\s*$", flags=re.DOTALL | re.MULTILINE)
NOT_PROSE = re.compile(
    r"\$\$.*?\$\$|(?<!\\)\$[^$\n]+\$|`[^`\n]+`|<[^>\n]+>|\]\([^)\n]*\)", flags=re.DOTALL
)
MAGIC = re.compile(r"^(\s*)[%!].*$", flags=re.MULTILINE)


class Finding(NamedTuple):
    """一处问题：在哪个单元，怎么改。"""

    cell_id: str
    message: str


@dataclass
class Chapter:
    """一章：笔记本，加上规则要对照的书内其他文件。"""

    path: Path
    root: Path
    notebook: Notebook = field(init=False)

    def __post_init__(self) -> None:
        self.notebook = read_notebook(self.path)

    @property
    def cells(self) -> list[Notebook]:
        return self.notebook.cells

    @property
    def code(self) -> list[Notebook]:
        return code_cells(self.notebook)

    @property
    def prose(self) -> list[Notebook]:
        return [cell for cell in self.cells if cell.cell_type == "markdown"]

    @property
    def key(self) -> str:
        """伴学包里这一章的前缀，如 ``ch01``。"""
        return f"ch{self.path.stem[:2]}"

    @cached_property
    def checkers(self) -> set[str]:
        """``companion/book/exercises/chNN.py`` 或 ``chNN/`` 里的函数名。"""
        folder = self.root / "src" / "companion" / "book" / "exercises"
        paths = [*folder.glob(f"{self.key}.py"), *folder.glob(f"{self.key}/*.py")]
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
        nodes = [node for tree in trees for node in tree.body]
        return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}

    @property
    def bets_path(self) -> Path:
        """这一章的题库文件，不一定有。"""
        return self.root / "src" / "companion" / "book" / "bets" / f"{self.key}.toml"

    @cached_property
    def bets(self) -> dict[str, Any]:
        """``companion/book/bets/chNN.toml`` 的内容；没有这个文件就是空的。"""
        if not self.bets_path.exists():
            return {}
        try:
            return read_tables(self.bets_path)
        except DataError as error:
            raise ToolError(str(error)) from error

    @cached_property
    def wheel_url(self) -> str:
        """本书伴学包的下载地址：``_config.yml`` 的站点地址加轮子文件名。"""
        config = yaml.safe_load((self.root / "_config.yml").read_text(encoding="utf-8"))
        text = (self.root / "pyproject.toml").read_text(encoding="utf-8")
        project = tomllib.loads(text)["project"]
        base = config["html"]["baseurl"].rstrip("/")
        return f"{base}/{project['name']}-{project['version']}-py3-none-any.whl"


def parse_cell(source: str) -> ast.Module | None:
    """返回单元的语法树，魔法命令当作 ``pass``；不是合法 Python 时返回 None。"""
    try:
        return ast.parse(MAGIC.sub(r"\1pass", source))
    except SyntaxError:
        return None


def prose_lines(source: str) -> list[str]:
    """返回正文的各行，代码、公式、标签和链接地址已去掉。"""
    return NOT_PROSE.sub(" ", FENCED.sub("", source)).splitlines()
