"""跑一遍读者会走的路：每章只读 ★，★ 之后任挑一节 ☆，首页上的每条路线。

用法：``python tools/routes.py [--root 文件夹]``，一行一条路；有走不通的，退出码为 1。

作答单元原样（还没作答），解答跳过。每章分一个进程跑完 ★，再从那一刻为每节 ☆ 各分一个进程，
所以 ★ 只跑一遍。分叉只在 Linux 上可靠，别处不跑。
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.fixed import ENVIRONMENT
from tools.minutes import chapter_minutes
from tools.notebooks import ROOT, Notebook, chapter_paths, read_notebook, tags
from tools.outline import Section, outline
from tools.proof import CAN_FORK, Session, forked

__all__ = ["Route", "labels", "main", "problems", "read_routes", "walk"]

HEAD = ("setup", "imports")
LIMIT_S = 300
Report = dict[str, list[str]]  # 哪条路 → 走不通的单元和原因


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


def walk(root: Path = ROOT) -> Report:
    """跑完每一条路，返回各自走不通的单元；空表就是走通了。"""
    report: Report = {}
    paths = {path.stem: path for path in chapter_paths(root) if path.stem[:2].isdigit()}
    _preload(paths.values())
    session = Session()
    for name, path in paths.items():
        report |= _child(session, name, path, None)
    for route in read_routes(root):
        for chapter, sections in route.steps:
            if route.run:
                report |= _child(session, f"{route.name} {chapter}", paths[chapter], sections)
    return report


def _preload(paths: Iterable[Path]) -> None:
    """各章都要用的库先导入，分出去的进程就不必再来一遍。"""
    if any("import torch" in path.read_text(encoding="utf-8") for path in paths):
        importlib.import_module("torch")


def _child(session: Session, name: str, path: Path, wanted: tuple[str, ...] | None) -> Report:
    """分一个进程去走；``wanted`` 是点到的小节，没有就是 ★ 和 ★ 加一节 ☆。"""

    def job() -> str:
        os.chdir(path.parent)
        cells = read_notebook(path).cells
        sections = [section for section in outline(cells) if section.level == 2]
        if wanted is None:
            return json.dumps(_trunk_and_branches(session, name, cells, sections))
        chosen = [s for s in sections if not set(s.labels).isdisjoint(wanted)]
        head = [cell for cell in cells if cell.id in HEAD]
        return json.dumps({name: _run(session, [*head, *_cells(chosen)])})

    answer = forked(job, LIMIT_S)
    try:
        return dict(json.loads(answer))
    except ValueError:
        return {name: [answer]}


def _trunk_and_branches(
    session: Session, name: str, cells: list[Notebook], sections: list[Section]
) -> Report:
    """跑完 ★，再从那里为每节 ☆ 各分一个进程。"""
    first = sections[0].cells[0].id if sections else ""
    ids = [cell.id for cell in cells]
    head = cells[: ids.index(first)] if sections else []
    trunk = _run(session, [*head, *_cells(s for s in sections if s.mark != "☆")])
    report = {f"{name} ★": trunk}
    for section in sections:
        if section.mark == "☆" and not trunk:  # ★ 不通，后面的话没有意义
            where = f"{name} ★ + {section.label or section.title}"
            answer = forked(lambda cells=section.cells: json.dumps(_run(session, cells)), LIMIT_S)
            report[where] = json.loads(answer) if answer.startswith("[") else [answer]
    return report


def _cells(sections: Iterable[Section]) -> Iterator[Notebook]:
    for section in sections:
        yield from section.cells


def _run(session: Session, cells: Iterable[Notebook]) -> list[str]:
    """依次跑代码单元，返回该报错却没报、不该报却报了的。"""
    found = []
    for cell in cells:
        if cell.cell_type != "code" or cell.id.startswith("sol-"):
            continue
        error, _ = session.run(cell.source)
        if (error is not None) != ("raises-exception" in tags(cell)):
            reason = f"{type(error).__name__}: {error}"[:100] if error else "没有报错"
            found.append(f"{cell.id}：{reason}")
    return found[:5]


def main(argv: list[str]) -> int:
    """返回进程退出码。"""
    parser = argparse.ArgumentParser(description="跑一遍读者会走的路")
    parser.add_argument("--root", type=Path, default=ROOT)
    root = parser.parse_args(argv).root.resolve()
    os.environ.update(ENVIRONMENT, MPLBACKEND="Agg", CUDA_VISIBLE_DEVICES="")
    found = problems(root)
    print("\n".join(f"✗ {line}" for line in found), end="\n" if found else "")
    if not CAN_FORK:
        print("这个系统不能分叉进程，没有跑")
        return int(bool(found))
    report = walk(root)
    for name, wrong in report.items():
        print(f"{'✗' if wrong else '✓'} {name}{'：' if wrong else ''}{'；'.join(wrong)}")
    return int(bool(found) or any(report.values()))


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    sys.exit(main(sys.argv[1:]))
