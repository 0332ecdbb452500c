"""首页上按时间分的几条路线，写在 ``site/routes.toml``；``tools/alone.py`` 照着跑一遍。"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tools.minutes import chapter_minutes
from tools.notebooks import ROOT, chapter_paths, read_notebook
from tools.outline import outline

__all__ = ["Route", "labels", "problems", "read_routes"]


@dataclass(frozen=True)
class Route:
    """一条路线；``steps`` 是 ``(章, 小节标签)`` 的次序，``everything`` 是从头到尾。"""

    name: str
    gain: str
    steps: tuple[tuple[str, tuple[str, ...]], ...] = ()
    note: str = ""
    minutes: int = 0
    run: bool = True
    everything: bool = False


def read_routes(root: Path = ROOT) -> list[Route]:
    """返回 ``site/routes.toml`` 里的路线。"""
    tables = tomllib.loads((root / "site" / "routes.toml").read_text(encoding="utf-8"))["route"]
    for table in tables:
        steps = table.get("steps", ())
        table["steps"] = tuple((step["chapter"], tuple(step["sections"])) for step in steps)
    return [Route(**table) for table in tables]


def labels(path: Path) -> set[str]:
    """返回一章里二级小节的标签。"""
    return {name for section in outline(read_notebook(path).cells) for name in section.labels}


def problems(root: Path = ROOT) -> list[str]:
    """返回路线表写错的地方：没有的章、没有的小节、走完超过了说好的分钟数。"""
    paths, found = {path.stem: path for path in chapter_paths(root)}, []
    for route in read_routes(root):
        spent = 0.0
        for chapter, sections in route.steps:
            if chapter not in paths:
                found.append(f"{route.name}：没有 {chapter} 这一章")
            else:
                missing = [name for name in sections if name not in labels(paths[chapter])]
                found += [f"{route.name}：{chapter} 里没有 {name} 这一节" for name in missing]
                for section, minutes in chapter_minutes(paths[chapter], root):
                    if not set(section.labels).isdisjoint(sections):
                        spent += minutes.read + minutes.practise
        if spent > route.minutes:
            found.append(f"{route.name}：走完要 {spent:.0f} 分钟，多于 {route.minutes}")
    return found
