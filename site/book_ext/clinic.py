"""误解诊所：正文里的 ``{myth}`C049` `` 变成指向那一条的链接，``{clinic-index}`` 是全部误解的索引。

清单由 ``tools/clinic.py`` 从覆盖表和各章的标题读出来，这里只排版。
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.nodes import make_refnode

from .tooling import tool

LOG = logging.getLogger(__name__)
CODE = re.compile(r"`([^`]+)`")
LEAD = "误解："
IN_INDEX = "book_clinic_index"  # 索引里全是误解，不必句句都说
EMPTY = "还没有一条误解登记在册。"


class myth_link(nodes.Inline, nodes.TextElement):
    """指到一条误解的链接，写页面之前换成真的；``label`` 是它的标签。"""


@cache
def registry(root: Path) -> dict[str, Any]:
    """``{编号: tools.clinic.Claim}``；没有覆盖表的书（测试里的）是空的。"""
    if not (root / "tests" / "coverage.yml").is_file():
        return {}
    return dict(tool("clinic").claims(root))


def depend(env: BuildEnvironment, documents: Iterable[str]) -> None:
    """链接的文字取自别处：那里改了，这一页也要重读。"""
    root = Path(env.srcdir)
    for path in (Path(__file__), root / "tests" / "coverage.yml", root / "site" / "beliefs.toml"):
        env.note_dependency(str(path))
    for document in documents:
        env.note_dependency(str(root / f"{document}.ipynb"))


def words(text: str) -> list[nodes.Node]:
    """一行字变成节点，反引号里的是代码。"""
    pieces = CODE.split(text)
    return [
        nodes.literal("", piece) if i % 2 else nodes.Text(piece)
        for i, piece in enumerate(pieces)
        if piece
    ]


class MythRole(SphinxRole):
    """``{myth}`C049` ``：“误解：`argmax()` 给我行号和列号”，链到那一条。"""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        claim = registry(Path(self.env.srcdir)).get(self.text)
        if claim is None or not claim.title:
            why = "覆盖表里没有它" if claim is None else "它还没有一句原话，写进 site/beliefs.toml"
            LOG.warning("误解 %s 链接不到：%s", self.text, why, location=self.get_location())
            return [nodes.literal("", self.text)], []
        depend(self.env, [claim.document])
        lead = [] if self.env.temp_data.get(IN_INDEX) else [nodes.Text(LEAD)]
        return [myth_link("", "", *lead, *words(claim.title), label=claim.label)], []


class IndexDirective(SphinxDirective):
    """```` ```{clinic-index} ````：全部误解，一页一张表。"""

    def run(self) -> list[nodes.Node]:
        found = [claim for claim in registry(Path(self.env.srcdir)).values() if claim.title]
        depend(self.env, sorted({claim.document for claim in found}))
        holder = nodes.Element()
        text = StringList(index_lines(found, self._title), self.env.docname)
        self.env.temp_data[IN_INDEX] = True
        self.state.nested_parse(text, self.content_offset, holder, match_titles=True)
        self.env.temp_data[IN_INDEX] = False
        return list(holder.children)

    def _title(self, document: str) -> str:
        """一页的标题，取自源文件。"""
        path = Path(self.env.srcdir, f"{document}.ipynb")
        cells = tool("notebooks").read_notebook(path)["cells"]
        return str(tool("outline").outline(cells, 1)[0].title)


def index_lines(claims: list[Any], title_of: Callable[[str], str]) -> list[str]:
    """索引的 Markdown，一行一个元素：诊所的几页在前，章节在后，各一个标题、一张表。"""
    if not claims:
        return [EMPTY]
    pages = {claim.document: Path(claim.document).name for claim in claims}
    lines = []
    for page in sorted(pages, key=lambda page: (pages[page][0] != "A", page)):
        lines += [f"## {title_of(page)}", "", "| 编号 | 有人以为 | 讲清它的一节 |"]
        lines += ["| --- | --- | --- |"]
        lines += [
            f"| {claim.number} | {{myth}}`{claim.number}` | {{ref}}`{claim.see}` |"
            for claim in claims
            if claim.document == page
        ]
        lines.append("")
    return lines


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """占位的链接换成真的；标签不在书里就是一条警告。"""
    labels = app.env.domains["std"].anonlabels
    for link in list(doctree.findall(myth_link)):
        target, anchor = labels.get(link["label"], ("", ""))
        if target:
            reference = make_refnode(app.builder, docname, target, anchor, link.children)
            reference["classes"].append("myth-link")
            link.replace_self(reference)
        else:
            LOG.warning("误解的标签 %s 不在书里", link["label"], location=link)
            link.replace_self(nodes.inline("", "", *link.children))


def setup(app: Sphinx) -> None:
    app.add_node(myth_link)
    app.add_role("myth", MythRole())
    app.add_directive("clinic-index", IndexDirective)
    app.connect("doctree-resolved", resolve)
