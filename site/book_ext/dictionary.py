"""报错词典与旧写法两页：条目来自伴学包的 ``_dict``，消息是建站时 torch 真的说的那句。

``tools/dictionary.py`` 在另一个进程里把条目跑一遍，结果记在 ``_build/dictionary.json``；
条目或 torch 变了才重跑。页首的输入框由 ``site/assets/lookup.js`` 管，在浏览器里查，不联网。
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from .clinic import CODE, registry
from .page import need
from .tooling import ROOT, tool

RECORD = Path("_build", "dictionary.json")
TODAY = {"raises": "今天报错", "warns": "今天警告", "works": "今天照跑"}
PLEASE = "贴一行报错，比如 RuntimeError: mat1 and mat2 shapes cannot be multiplied"
NOTE = "报错 {errors} 条，旧写法 {old} 条，都在 torch {version} 上跑过："
NOTE += "消息是建站时它说的原话，改法跑得通。"
BOX = """<form class="lookup" hidden role="search" aria-label="查报错"
 data-errors="B1_errors.html" data-old="B2_old.html">
<label for="lookup-text">把报错的最后一行贴进来</label>
<textarea id="lookup-text" rows="2" spellcheck="false" autocomplete="off"
 placeholder="{please}"></textarea>
<output class="lookup-answer" for="lookup-text" aria-live="polite"></output>
<ul class="lookup-entries" hidden>{items}</ul>
</form>"""


def record(srcdir: Path) -> dict[str, Any]:
    """记下的消息，``{"torch": 版本, "said": {目标: 消息}}``；旧了就先重跑。"""
    path = srcdir / RECORD
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known.get("digest") == tool("dictionary").digest():
            return dict(known)
    command = [sys.executable, str(ROOT / "tools" / "dictionary.py"), str(path)]
    environment = {**os.environ, **tool("fixed").ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise ExtensionError(f"报错词典没有跑通：{done.stderr.strip()[-2000:]}")
    return dict(json.loads(path.read_text(encoding="utf-8")))


class DictionaryDirective(SphinxDirective):
    """两页的公共部分：读条目、读消息、排 Markdown。"""

    prefix = ""

    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        recorded = record(root)
        for path in (Path(__file__), root / RECORD, *tool("dictionary").DICTIONARY.glob("*.toml")):
            self.env.note_dependency(str(path))
        shown = [e for e in tool("dictionary").entries() if e.target.startswith(self.prefix)]
        titled = {number for number, claim in registry(root).items() if claim.title}
        self.env.metadata[self.env.docname]["tocdepth"] = 2  # 目录里只列组名
        lines = list(self.body(shown, recorded["said"], titled))
        text = StringList(lines, self.env.docname)  # 小节会直接接到这一页上
        self.state.nested_parse(text, self.content_offset, nodes.Element(), match_titles=True)
        return []

    def body(self, shown: list[Any], said: dict[str, str], titled: set[str]) -> Iterator[str]:
        raise NotImplementedError


class LookupDirective(SphinxDirective):
    """```` ```{error-lookup} ````：查报错的框，两页都有。"""

    def run(self) -> list[nodes.Node]:
        entries = tool("dictionary").entries()
        errors = sum(entry.target.startswith("err-") for entry in entries)
        version = record(Path(self.env.srcdir))["torch"]
        note = NOTE.format(errors=errors, old=len(entries) - errors, version=version)
        need(self.state.document, "lookup.js")
        return [nodes.raw("", box(entries), format="html"), nodes.paragraph("", note)]


class ErrorDirective(DictionaryDirective):
    """```` ```{error-dictionary} ````：全部条目，按题材分组。"""

    prefix = "err-"

    def body(self, shown: list[Any], said: dict[str, str], titled: set[str]) -> Iterator[str]:
        for group in tool("dictionary").GROUPS:
            yield from ("", f"## {group}", "")
            for entry in shown:
                if entry.content["group"] == group:
                    yield from error_lines(entry, said.get(entry.target), titled)


class OldDirective(DictionaryDirective):
    """```` ```{old-idioms} ````：旧写法，按今天怎样分组。"""

    prefix = "old-"

    def body(self, shown: list[Any], said: dict[str, str], titled: set[str]) -> Iterator[str]:
        for today, name in TODAY.items():
            yield from ("", f"## {name}", "")
            for entry in shown:
                if entry.content["today"] == today:
                    yield from old_lines(entry, said.get(entry.target))


def error_lines(entry: Any, said: str | None, titled: set[str]) -> list[str]:
    """一条报错的 Markdown。"""
    content = entry.content
    lines = [f"({entry.target})=", f"### {span(content['says'])}", "", f"{content['when']}。", ""]
    lines += fence(content["code"])
    lines += message(said) if said else ["这台机器上不报这个错，所以这里没有 torch 的原话。", ""]
    lines += [content["truth"] + links(content, titled), "", *fence(content["fix"])]
    if others := content.get("elsewhere"):
        words = "、".join(map(span, others))
        lines += [f"别的机器或版本上，同一件事可能说成：{words}。这几句没有在这里跑过。", ""]
    return lines


def old_lines(entry: Any, said: str | None) -> list[str]:
    """一条旧写法的 Markdown。"""
    content = entry.content
    setup = [content["setup"].strip()] if "setup" in content else []
    code = "\n".join([*setup, f"{content['old']}  # 从前", f"{content['new']}  # 现在"])
    lines = [f"({entry.target})=", f"### {span(content['old'])}", "", *fence(code)]
    return [*lines, *(message(said) if said else []), content["truth"] + links(content, set()), ""]


def links(content: dict[str, Any], titled: Iterable[str]) -> str:
    """真相后面的两个链接：讲它的一节，和同一件事的误解。"""
    section = f"见{{ref}}`{content['see']}`。" if "see" in content else ""
    number = content.get("myth", "")
    return section + (f"{{myth}}`{number}`。" if number in titled else "")


def span(text: str) -> str:
    """一段代码；里面有反引号就用两个包。"""
    text = text.strip()
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def fence(code: str) -> list[str]:
    """一块 Python 代码。"""
    return ["```python", *code.strip().splitlines(), "```", ""]


def message(said: str) -> list[str]:
    """torch 说的话：报错的样子和章节里一样，警告是另一种颜色。"""
    kind = "warned" if said.split(":")[0].endswith("Warning") else "error"
    lines = said.replace("\n\n", "\n").splitlines()
    return ["```{code-block} text", f":class: output {kind}", "", *lines, "```", ""]


def box(entries: Iterable[Any]) -> str:
    """查报错的框：要查的句子藏在里面的列表里；没有脚本时整个不显示。"""
    items = []
    for entry in entries:
        when = CODE.sub(
            r"<code>\1</code>", escape(entry.content.get("when", entry.content["truth"]))
        )
        phrases = escape(json.dumps(entry.phrases))
        items.append(f'<li data-target="{entry.target}" data-phrases="{phrases}">{when}</li>')
    return BOX.format(please=escape(PLEASE), items="".join(items))


def setup(app: Sphinx) -> None:
    app.add_directive("error-lookup", LookupDirective)
    app.add_directive("error-dictionary", ErrorDirective)
    app.add_directive("old-idioms", OldDirective)
