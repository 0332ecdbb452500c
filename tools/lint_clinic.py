"""检查误解诊所：一条论断只有一个家，每条四件齐全，诊所不代替章节讲课。"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from tools.clinic import REF, SPELLING, beliefs, boxes, claims, is_clinic, section_of
from tools.lint_cells import stored_texts
from tools.notebooks import ROOT, Notebook, chapter_paths, read_notebook
from tools.outline import Section, outline
from tools.proven import load

__all__ = ["problems"]

# 讲清它的那一章还没有写，真相先指到术语表或别处：编号 → 等哪一章
WAITING: dict[str, str] = {}
# 还没有哪一章的单元可指的主题：第 14、15 章写好就划掉
CLINIC_TOPICS = {"T001", "T050", "T056", "T057", "T061", "T062", "T065", "T142"}
HEARSAY = re.compile(r"有人说|有文章|网上|教程里|某文")
BET = re.compile(r"\b(?:bet|quiz)\(")
Books = dict[str, list[Notebook]]


def problems(root: Path = ROOT) -> list[str]:
    """返回诊所里每一处不合规矩的地方，一处一句。"""
    books = {path.stem: read_notebook(path).cells for path in chapter_paths(root)}
    pages = {name: cells for name, cells in books.items() if is_clinic(name)}
    found = [*_homes(books, root), *_words(root), *_topics(root)]
    labels = _labels(books)
    for name, cells in pages.items():
        found += _page(name, cells)
        for section in outline(cells, 3):
            if section.level == 3:
                found += [f"{name}:{section.title}：{text}" for text in _entry(section, labels)]
    return found


def _homes(books: Books, root: Path) -> Iterator[str]:
    """一个编号最多一个误解框，框就在覆盖表说的地方。"""
    known, seen = load(root), dict[str, str]()
    for name, cells in books.items():
        for cell in cells:
            for number in (number for numbers, _ in boxes(cell) for number in numbers):
                here = f"{name} 的单元 {cell.id}"
                if number in seen:
                    yield f"{number} 有两个误解框：{seen[number]}，{here}；留一个"
                seen[number] = here
                chapter, proofs = known.get(number, ("", []))
                if chapter != name:
                    yield f"{number} 的误解框在 {here}，覆盖表却说在 {chapter or '（没有登记）'}"
                elif is_clinic(name):
                    home = section_of(outline(cells, 3), cell.id)
                    if not any(cell.id in proofs for cell in home.code):
                        yield f"{number} 的误解框与证明它的单元不在同一条里"


def _words(root: Path) -> Iterator[str]:
    """章节里证明的论断也要有一句读者的话，只在一处；样式还没有改好的章不管。"""
    found, said = claims(root), beliefs(root)
    for number in said:
        if number not in found or is_clinic(found[number].document):
            yield f"{number} 不在章节里证明：site/beliefs.toml 里的那一行删掉"
    for number, claim in found.items():
        if not claim.title:
            yield f"{number} 还没有一句读者的话：写进 site/beliefs.toml"


def _topics(root: Path) -> Iterator[str]:
    """诊所不是讲课：主题要有诊所以外的单元。"""
    for number, (chapter, _) in load(root).items():
        if number.startswith("T") and is_clinic(chapter) and number not in CLINIC_TOPICS:
            yield f"主题 {number} 只在诊所 {chapter} 里：指到讲它的章节单元"


def _labels(books: Books) -> set[str]:
    """章节（不算诊所）里全部小节的标签。"""
    chapters = (cells for name, cells in books.items() if not is_clinic(name))
    return {label for cells in chapters for part in outline(cells, 6) for label in part.labels}


def _page(name: str, cells: list[Notebook]) -> Iterator[str]:
    """一页诊所：不下注，不算阅读时间，不转述别人。"""
    for cell in cells:
        if cell.cell_type == "code" and BET.search(cell.source):
            yield f"{name}:{cell.id}：诊所不下注"
        elif cell.cell_type == "markdown" and (heard := HEARSAY.search(cell.source)):
            yield f"{name}:{cell.id}：直接说误解，不转述“{heard[0]}”"
    for section in outline(cells, 6):
        if section.mark:
            yield f"{name}:{section.title}：诊所不分 ★ 与 ☆，也就没有分钟数"


def _entry(section: Section, labels: set[str]) -> Iterator[str]:
    """一条误解依次有：原话与误解框、证明它的单元、真相。"""
    if section.title == SPELLING:
        yield from _silent(section.code)
        return
    belief, *rest = section.cells
    numbers = [number for numbers, _ in boxes(belief) for number in numbers]
    if not re.search("「.+」", section.title):
        yield "标题应是读者的原话，写在「」里"
    if not numbers:
        yield "标题下面要有误解框：:::{admonition} 误解 C编号"
    elif numbers[0].lower() not in section.labels:
        yield f"标题上面要有标签 ({numbers[0].lower()})="
    proof = list(takewhile(lambda cell: cell.cell_type == "code", rest))
    if not proof:
        yield "误解框后面紧跟证明它的代码单元"
        return
    yield from _silent(proof)
    after = rest[len(proof) :]
    if not after:
        yield "证明后面要有一段真相"
        return
    yield from _truth(after[0], labels, waiting=not WAITING.keys().isdisjoint(numbers))
    for cell in after[1:]:
        if cell.cell_type == "code" and not cell.id.startswith(("ex-", "sol-")):
            yield f"真相之后不再有代码：把 {cell.id} 挪到它前面"


def _silent(cells: list[Notebook]) -> Iterator[str]:
    for cell in cells:
        if not any(text.strip() for text in stored_texts(cell)):
            yield f"单元 {cell.id} 什么也没印：把误解与真相并排印出来"


def _truth(cell: Notebook, labels: set[str], *, waiting: bool) -> Iterator[str]:
    refs = REF.findall(cell.source)
    if len(refs) != 1:
        yield f"真相里应恰好有一个 {{ref}}，现有 {len(refs)} 个"
    elif refs[0] not in labels and not waiting:
        yield f"真相指到的 {refs[0]} 不是章节里的小节；那一章还没有写，就登记在 WAITING"
