"""误解诊所的清单：覆盖表里的每条论断在哪里证明，读者会怎么说，链接指到哪个标签。

诊所是 ``chapters/A…`` 那几页。在那里，一条误解是一个三级标题、标题下的误解框、证明它的单元和
一段真相；读者的原话就是标题。在章节里证明的，原话写在 ``site/beliefs.toml``，链接指到那一节。
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tools.notebooks import ROOT, Notebook, ToolError, chapter_paths, read_notebook
from tools.outline import Section, outline
from tools.proven import load

__all__ = ["SPELLING", "Claim", "beliefs", "boxes", "claims", "is_clinic", "section_of"]

SPELLING = "拼写与名字"  # 不值得单独一条的，合成一节
BOX = re.compile(
    r"^:+\{admonition\}\s*误解((?:\s+C\d{3})+)(?:\s*·\s*(.+))?\n(?:^:\w.*\n)*?^:class:.*\bmyth\b",
    re.MULTILINE,
)
REF = re.compile(r"\{ref\}`(?:[^`<]*<)?([\w-]+)>?`")


@dataclass(frozen=True)
class Claim:
    """一条论断：编号，读者的说法（还没有就是空串），在哪一页，标签，讲清它的那一节的标签。"""

    number: str
    title: str
    document: str
    label: str
    see: str


def is_clinic(name: str) -> bool:
    """``name``（如 ``A1_clinic_tensors`` 或带文件夹的文档名）是不是诊所的一页。"""
    return re.match(r"A\d_", Path(name).name) is not None


def beliefs(root: Path = ROOT) -> dict[str, str]:
    """返回 ``site/beliefs.toml``：在章节里证明的论断，读者会怎么说。"""
    path = root / "site" / "beliefs.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def boxes(cell: Notebook) -> list[tuple[list[str], str]]:
    """返回一个单元里的误解框：``([编号, …], 一句话)``。"""
    if cell.cell_type != "markdown":
        return []
    return [(numbers.split(), title or "") for numbers, title in BOX.findall(cell.source)]


def section_of(sections: list[Section], cell_id: str) -> Section:
    """返回装着单元 ``cell_id`` 的那一节。

    Raises:
        ToolError: 没有这样的单元。
    """
    for section in sections:
        if any(cell.id == cell_id for cell in section.cells):
            return section
    raise ToolError(f"哪一节里也没有单元 {cell_id}。")


def claims(root: Path = ROOT) -> dict[str, Claim]:
    """返回 ``{编号: Claim}``，按编号。

    Raises:
        ToolError: 覆盖表指到了不存在的单元，或证明它的那一节没有标签。
    """
    said, found = beliefs(root), {}
    pages = {path.stem: path for path in chapter_paths(root)}
    outlines: dict[str, list[Section]] = {}
    for number, (chapter, cells) in sorted(load(root).items()):
        if number.startswith("T"):
            continue
        if chapter not in pages:
            raise ToolError(f"{number}：没有 {chapter} 这一章。")
        if chapter not in outlines:
            depth = 3 if is_clinic(chapter) else 2
            outlines[chapter] = outline(read_notebook(pages[chapter]).cells, depth)
        document = pages[chapter].relative_to(root).with_suffix("").as_posix()
        section = section_of(outlines[chapter], cells[0])
        found[number] = _claim(number, document, section, said.get(number, ""))
    return found


def _claim(number: str, document: str, section: Section, said: str) -> Claim:
    own = number.lower()
    label = own if own in section.labels else section.label
    if not label:
        raise ToolError(f"{number}：{document} 的“{section.title}”上面要有一行 (标签)=。")
    if is_clinic(document):
        refs = [name for cell in section.prose for name in REF.findall(cell.source)]
        return Claim(number, section.title.strip("「」"), document, label, (refs or [label])[-1])
    title = said or next(
        (text for cell in section.cells for numbers, text in boxes(cell) if number in numbers), ""
    )
    return Claim(number, title, document, label, label)
