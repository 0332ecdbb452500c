"""一格的输出：组件自带的脚本与样式换成站内的那份，报错去掉手机上占两行的抬头。"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from IPython.lib.lexers import IPythonTracebackLexer  # type: ignore[import-untyped]
from sphinx.application import Sphinx

from .page import need
from .tooling import tool

SOURCE = Path("src", "companion", "book", "_js")
SUFFIX = {"script": ".js", "style": ".css"}
LINE = "-" * 75 + "\n"
HEAD = re.compile(r"-{20,}\n.*Traceback \(most recent call last\)\n")


class Traceback(IPythonTracebackLexer):
    """没有抬头的报错：着色时把那条横线补上，不然它当是普通的代码。"""

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, object, str]]:
        for at, kind, value in super().get_tokens_unprocessed(LINE + text):
            if at >= len(LINE):
                yield at - len(LINE), kind, value


def shared(html: str) -> tuple[str, list[str]]:
    """去掉内联脚本与样式后的 HTML，以及应改为引用的文件名（按出现先后，不重复）。"""
    inline = tool("readers").COMPANION
    found = [match[2] + SUFFIX[match[1]] for match in inline.finditer(html)]
    return inline.sub("", html), list(dict.fromkeys(found))


def tidy(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for raw in list(doctree.findall(nodes.raw)):
        html, names = shared(raw.astext())
        if names:
            raw.replace_self(nodes.raw("", html, format="html"))
            need(doctree, *(f"companion/{name}" for name in names))
    for block in doctree.findall(nodes.literal_block):
        if "traceback" in block["classes"]:
            block.rawsource = HEAD.sub("", block.astext())
            block[:] = [nodes.Text(block.rawsource)]


def copy_assets(app: Sphinx) -> None:
    source = Path(app.srcdir) / SOURCE
    if app.builder.format == "html" and source.is_dir():
        target = Path(app.outdir, "_static", "companion")
        shutil.copytree(source, target, dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    app.add_lexer("ipythontb", Traceback)
    app.connect("builder-inited", copy_assets)
    app.connect("doctree-resolved", tidy)
