"""首页的路线表：从 ``site/routes.toml`` 生成，CI 照着跑的也是它。"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from .chapters import chapter_number
from .tooling import tool

HEAD = ["| 时间 | 从哪里进 | 出来时你有什么 |", "|---|---|---|"]


def route_lines(routes: list[Any], known: dict[str, set[str]]) -> list[str]:
    """路线表的 Markdown；``known`` 是写好的章和各自的小节标签，还没有的小节先不列。"""
    lines = list(HEAD)
    for route in routes:
        doors = [
            f"第 {int(chapter[:2])} 章的" + "、".join(f"{{ref}}`{name}`" for name in there)
            for chapter, sections in route.steps
            if (there := [name for name in sections if name in known.get(chapter, ())])
        ]
        entry = "；".join(doors)
        entry += f"：{route.note}" if entry and route.note else route.note
        if route.everything:
            numbers = "、".join(str(int(chapter[:2])) for chapter in sorted(known))
            entry += f"；现在写好的是第 {numbers} 章"
        lines.append(f"| {route.name} | {entry} | {route.gain} |")
    return lines


class RoutesDirective(SphinxDirective):
    """```` ```{routes} ````：按时间分的几条路线。"""

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        for path in (Path(__file__), root / "site" / "routes.toml"):
            self.env.note_dependency(str(path))
        known = {}
        for document in self.env.found_docs:
            path = Path(self.env.doc2path(document))
            if chapter_number(document) is not None and path.suffix == ".ipynb":
                known[path.stem] = tool("routes").labels(path)
                self.env.note_dependency(str(path))
        holder = nodes.container(classes=["book-routes"])
        text = StringList(route_lines(tool("routes").read_routes(root), known), "routes.toml")
        self.state.nested_parse(text, self.content_offset, holder)
        return [holder]


def setup(app: Sphinx) -> None:
    app.add_directive("routes", RoutesDirective)
