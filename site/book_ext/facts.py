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
from sphinx.writers.html5 import HTML5Translator

from .chapters import MARKS, Spent, chapter_number, spent_text
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
    return f'<li title="{escape(title)}">全章跑一遍 <b>{seconds}</b> 秒{memory}</li>'


def reading(totals: dict[str, Spent]) -> str:
    """★ 与 ☆ 各要读多久、练多久，供页首显示；没有这类小节就不写。"""
    return "".join(
        f'<li title="{tool("minutes").HOW}">{mark} {MARKS[mark]}：'
        f"{spent_text(spent, '<b>{}</b>')}</li>"
        for mark, spent in totals.items()
    )


def colab_link(repository: dict[str, Any], docname: str) -> str:
    """在 Colab 打开本章的链接；公开地址未定时是空串。"""
    url = str(repository.get("repository_url", ""))
    if not url or is_placeholder(url):
        return ""
    target = f"{COLAB}{urlsplit(url).path}/blob/{repository['repository_branch']}/{docname}.ipynb"
    return f'<li><a href="{escape(target)}">在 Colab 运行</a></li>'


def facts_bar(app: Sphinx, docname: str, root: str) -> str:
    """一章标题下面的事实栏，HTML；``root`` 是从这一页到网站根的相对路径。"""
    name = Path(docname).name
    items = [
        reading(app.env.metadata[docname].get("book_minutes", {})),
        measured(read_stats(app.srcdir).get(docname)),
        f'<li class="act"><a href="{root}notebooks/{name}.ipynb" download>下载笔记本</a></li>',
        colab_link(app.config.book_repository, docname),
        f'<li><a href="{root}intro.html#run-locally">本机运行</a></li>',
    ]
    return f'<ul class="book-facts" aria-label="本章概况">{"".join(items)}</ul>'


def eyebrow(docname: str) -> str:
    """标题上方的「第 N 章」。"""
    return f'<p class="book-eyebrow">第 {chapter_number(docname)} 章</p>'


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


def visit_status(self: HTML5Translator, node: status_line) -> None:
    text = status_text(read_stats(self.builder.srcdir))
    self.body.append(f'<p class="book-status">{escape(text)}</p>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_node(status_line, html=(visit_status, None))
    app.add_directive("book-status", StatusDirective)
