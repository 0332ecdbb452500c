"""站内搜索：构建结束时用 pagefind 逐节收录，搜索框直接指到小节；用不了它的地方读原文。"""

from __future__ import annotations

import asyncio
import json
import shutil
import tomllib
from html import escape
from pathlib import Path
from typing import NamedTuple

from pagefind.index import IndexConfig, PagefindIndex
from sphinx.application import Sphinx
from sphinx.util import logging

from .chapters import chapter_number
from .sections import Section, split_sections
from .words import encoded, inner_tokens, is_han, token

SYNONYMS = Path(__file__).resolve().parents[1] / "synonyms.toml"
LOG = logging.getLogger(__name__)
RECORD = """<html lang="und"><body>
<p data-pagefind-ignore data-pagefind-meta="title">{title}</p>
<p data-pagefind-ignore data-pagefind-meta="page">{page}</p>
<p data-pagefind-ignore data-pagefind-meta="text">{text}</p>
<p data-pagefind-weight="{weight}">{heading} {keywords}</p>
<p>{prose}</p>
<p data-pagefind-weight="0.5">{code} {inner}</p></body></html>"""
CHAPTER_WEIGHT, ENTRY_WEIGHT, OTHER_WEIGHT = 10, 6, 2  # 标题在章节、诊所和词典、别处的分量
UNUSED = ("*-ui.*", "*-highlight.js")


def read_groups() -> list[dict[str, list[str]]]:
    """同义说法表；每组有 ``words`` 与 ``phrases``。"""
    return list(tomllib.loads(SYNONYMS.read_text(encoding="utf-8"))["group"])


def keywords(section: Section, groups: list[dict[str, list[str]]]) -> list[str]:
    """这一节还该用哪些说法找到。

    一是它引入的术语；二是它提到某组同义说法的 ``phrases``，就有该组的 ``words``。
    """
    text = section.text().lower()
    words = [
        word
        for group in groups
        if any(phrase.lower() in text for phrase in group["phrases"])
        for word in group["words"]
    ]
    return [*section.terms, *words]


def record(section: Section, page: str, groups: list[dict[str, list[str]]], weight: int) -> str:
    """一节的索引用 HTML：标题、术语与同义说法重 ``weight`` 倍，代码最轻。

    结果列表显示的文字存在元数据里；参加检索的是换成记号的文字。
    """
    extra = keywords(section, groups)
    return RECORD.format(
        weight=weight,
        title=escape(section.title),
        page=escape(page),
        text=escape(f"{section.prose} {section.code}"),
        heading=escape(encoded(section.title)),
        keywords=escape(" ".join([*map(encoded, extra), *map(token, filter(is_han, extra))])),
        prose=escape(encoded(section.prose)),
        code=escape(encoded(section.code)),
        inner=inner_tokens(section.text()),
    )


class Found(NamedTuple):
    """要收录的一节：它的网址（相对网站根）、所在的页名、标题的分量。"""

    url: str
    page: str
    weight: int
    section: Section


def numbers(app: Sphinx, docname: str) -> dict[str, str]:
    """一页里图、表和练习的编号，``{id: "图 1.2"}``；公式的编号不收录。"""
    words = app.config.numfig_format
    return {
        name: words[kind] % ".".join(map(str, number))
        for kind, found in app.env.toc_fignumbers.get(docname, {}).items()
        for name, number in found.items()
        if kind in words
    }


def collect(app: Sphinx) -> list[Found]:
    """全书各页里的各节，按先后。"""
    found = []
    for name in sorted(app.env.found_docs):
        doctree = app.env.get_and_resolve_doctree(name, app.builder)
        sections = split_sections(doctree, numbers(app, name))
        page, weight = sections[0].title, OTHER_WEIGHT
        if (number := chapter_number(name)) is not None:
            page, weight = f"第 {number} 章 {page}", CHAPTER_WEIGHT
        elif name.startswith("chapters/"):
            weight = ENTRY_WEIGHT
        for section in sections:
            found.append(Found(f"{name}.html#{section.anchor}", page, weight, section))
    return found


async def build_index(outdir: Path, found: list[Found]) -> None:
    """给 ``found`` 建索引，写到 ``outdir/pagefind``。"""
    groups = read_groups()
    config = IndexConfig(output_path=str(outdir / "pagefind"), force_language="und")
    shutil.rmtree(outdir / "pagefind", ignore_errors=True)
    async with PagefindIndex(config=config) as index:
        for url, page, weight, section in found:
            content = record(section, page, groups, weight)
            await index.add_html_file(content=content, url=f"/{url}")


def sections_script(found: list[Found]) -> str:
    """search_plain.js 读的脚本：一节一个列表，网址、标题、页名、正文、代码和另外的说法。"""
    groups = read_groups()
    rows = []
    for url, page, _, section in found:
        extra = " ".join(keywords(section, groups))
        rows.append([url, section.title, page, section.prose.strip(), section.code.strip(), extra])
    return f"window.bookSections = {json.dumps(rows, ensure_ascii=False)};\n"


def on_finish(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    outdir = Path(app.outdir)
    found = collect(app)
    asyncio.run(build_index(outdir, found))
    for unused in (path for name in UNUSED for path in (outdir / "pagefind").glob(name)):
        unused.unlink()
    script = outdir / "_static" / "search_sections.js"
    script.write_text(sections_script(found), encoding="utf-8", newline="\n")
    LOG.info("站内搜索：收录 %d 节", len(found))


def setup(app: Sphinx) -> None:
    app.connect("build-finished", on_finish, priority=900)
