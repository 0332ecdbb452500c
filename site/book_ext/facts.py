"""页面上的实测事实：章首的耗时与内存、下载与运行入口，首页的「今天跑通了多少单元」。"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from .chapters import MARKS, Spent, chapter_number, is_notebook, spent_text
from .tooling import tool

COLAB = "https://colab.research.google.com/github"
Stats = dict[str, dict[str, Any]]


def read_stats(srcdir: str | Path) -> Stats:
    """执行记录 ``_build/stats.json``：章 → 秒数、峰值内存等；还没执行过时为空。"""
    path = Path(srcdir, "_build", "stats.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def is_placeholder(url: str) -> bool:
    """公开地址是否还没定：域名是保留的 example，或仓库属于占位用户 example。"""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return host.split(".")[-2:-1] == ["example"] or parts.path.startswith("/example/")


def measured(stats: dict[str, Any] | None) -> str:
    """一章的实测耗时与内存，供页首显示；没有记录时照实说。"""
    if not stats:
        return '<li class="unknown">尚无执行记录</li>'
    title = f"{stats['date']}，torch {stats['torch']}，Python {stats['python']}，CPU"
    seconds = max(1, round(stats["seconds"]))
    peak = stats.get("peak_mb")
    memory = f" · {round(peak)} MB 内存" if peak else ""
    return f'<li title="{escape(title)}">跑一遍 <b>{seconds}</b> 秒{memory}</li>'


def reading(totals: dict[str, Spent]) -> str:
    """★ 与 ☆ 各要读多久、练多久，★ 有几格代码，供页首显示；没有这类小节就不写。"""
    items = []
    for mark, spent in totals.items():
        cells = f" · {spent[2]} 格代码" if mark == "★" else ""
        text = f"{mark} {MARKS[mark]}：{spent_text(spent, '<b>{}</b>')}{cells}"
        items.append(f'<li title="{tool("minutes").HOW}">{text}</li>')
    return "".join(items)


def colab_link(repository: dict[str, Any], docname: str) -> str:
    """在 Colab 打开本章的链接；公开地址未定时是空串。"""
    url = str(repository.get("repository_url", ""))
    if not url or is_placeholder(url):
        return ""
    target = f"{COLAB}{urlsplit(url).path}/blob/{repository['repository_branch']}/{docname}.ipynb"
    return f'<a href="{escape(target)}">在 Colab 运行</a>'


def facts_bar(app: Sphinx, docname: str) -> str:
    """一章标题下面的事实栏，HTML。"""
    root, name = "../" * docname.count("/"), Path(docname).name
    items = [
        reading(app.env.metadata[docname].get("book_minutes", {})),
        measured(read_stats(app.srcdir).get(docname)),
        f'<li class="act"><a href="{root}notebooks/{name}.ipynb" download>下载笔记本</a>',
        colab_link(app.config.book_repository, docname),
        f'<a href="{root}intro.html#run-locally">本机运行</a></li>',
    ]
    return f'<ul class="book-facts" aria-label="概况">{"".join(items)}</ul>'


def eyebrow(docname: str) -> str:
    """标题上方的「第 N 章」，HTML；不是章节就是空串。"""
    number = chapter_number(docname)
    return "" if number is None else f'<p class="book-eyebrow">第 {number} 章</p>'


class status_line(nodes.General, nodes.Element):
    """首页的占位：写页面时换成最近一次执行的结果。"""


class StatusDirective(SphinxDirective):
    """``{book-status}``：一行「今天 torch x.y：N 个单元全部跑通」，数字来自执行记录。"""

    def run(self) -> list[nodes.Node]:
        return [status_line()]


def status_text(stats: Stats) -> str:
    """最近一次执行的结果，一句话。"""
    if not stats:
        return "这一份网页没有带执行记录，所以这里不报数字。"
    runs = list(stats.values())
    dates = sorted({run["date"] for run in runs})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} 至 {dates[-1]}"
    versions = "、".join(sorted({run["torch"] for run in runs}))
    cells = sum(run["code_cells"] for run in runs)
    seconds = round(sum(run["seconds"] for run in runs))
    return f"{when}，torch {versions}：{cells} 个单元全部跑通，共 {seconds} 秒。"


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """首页的占位换成那句话，笔记本的标题上下加章号和事实栏。"""
    for line in list(doctree.findall(status_line)):
        text = status_text(read_stats(app.srcdir))
        line.replace_self(nodes.paragraph("", text, classes=["book-status"]))
    title = doctree.next_node(nodes.title)
    if title is not None and is_notebook(app, docname):
        head = [
            nodes.raw("", text, format="html")
            for text in (eyebrow(docname), facts_bar(app, docname))
        ]
        title.replace_self([head[0], title, head[1]])


def setup(app: Sphinx) -> None:
    app.add_node(status_line)
    app.connect("doctree-resolved", resolve, priority=600)  # 在 chapters 算出分钟数之后
    app.add_directive("book-status", StatusDirective)
