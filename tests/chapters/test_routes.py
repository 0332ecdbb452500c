"""读者会走的每一条路都走得通；走不通的会被指名。"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.chapters.clinic_book import notebook
from tools.notebooks import ROOT, chapter_paths
from tools.routes import problems, read_routes

linux = pytest.mark.skipif(sys.platform != "linux", reason="分叉进程只在 Linux 上可靠")
CHAPTER = {
    "title": "# 章",
    "setup": ("import math", ""),
    "imports": ("two = 2", ""),
    "opening": ("promise = 1", ""),
    "sec-a": "(sec-a)=\n## ★ 甲",
    "first": ("three = two + promise", ""),
    "ex-a-try": ("answer = ...", ""),
    "sol-a": ("answer = 4", ""),
    "sec-b": "(sec-b)=\n## ★ 乙",
    "second": ("four = two * 2", ""),
    "summary": "## 小结",
    "sec-c": "(sec-c)=\n## ☆ 丙",
    "third": ("only_c = three + four", ""),
    "sec-d": "(sec-d)=\n## ☆ 丁",
    "fourth": ("math.sqrt(four)", ""),
}
ROUTES = """[[route]]
name = "快"
minutes = {minutes}
gain = "一"
steps = [{{ chapter = "{chapter}", sections = ["{section}"] }}]
"""


def write(root: Path, chapter="02_x", section="sec-b", minutes=9, **changes: str) -> Path:
    """写一本一章的小书；``changes`` 换掉几个单元的代码。"""
    cells = CHAPTER | {name.replace("_", "-"): (code, "") for name, code in changes.items()}
    for folder in ("chapters", "site"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    text = nbformat.writes(notebook(cells))
    (root / "chapters" / "02_x.ipynb").write_text(text, encoding="utf-8")
    toc = {"format": "jb-book", "root": "intro", "chapters": [{"file": "chapters/02_x"}]}
    (root / "_toc.yml").write_text(json.dumps(toc), encoding="utf-8")
    routes = ROUTES.format(chapter=chapter, section=section, minutes=minutes)
    (root / "site" / "routes.toml").write_text(routes, encoding="utf-8")
    return root


def run(*roots: Path) -> list[tuple[int, list[str]]]:
    """依次走几本书，返回各自的退出码和印出的各行；一个进程走完，torch 只导入一次。"""
    script = (
        "import sys; from tools.routes import main\n"
        "for root in sys.argv[1:]: print('退出码', main(['--root', root]))"
    )
    command = [sys.executable, "-c", script, *map(str, roots)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, check=True)
    found, lines = [], []
    for line in done.stdout.splitlines():
        if line.startswith("退出码"):
            found.append((int(line.split()[1]), lines))
            lines = []
        else:
            lines.append(line)
    return found


@linux
def test_every_route_of_this_book_runs():
    ((code, lines),) = run(ROOT)
    assert code == 0, "\n".join(lines)
    ready = {path.stem for path in chapter_paths() if path.stem[:2].isdigit()}
    assert {f"✓ {name} ★" for name in ready} <= set(lines)


def test_the_routes_of_this_book_lead_somewhere():
    assert problems() == []
    assert [route.name for route in read_routes()] == ["10 分钟", "60 分钟", "一学期"]


BLOCKED = [
    # ★ 不能等着 ☆ 或解答里的名字
    ({"second": "only_c"}, "✗ 02_x ★：second：NameError: name 'only_c' is not defined"),
    ({"second": "answer + 1"}, "✗ 02_x ★：second：TypeError: unsupported operand"),
    # ☆ 不能等着另一节 ☆
    ({"fourth": "only_c"}, "✗ 02_x ★ + sec-d：fourth：NameError: name 'only_c'"),
    ({"fourth": "import os; os._exit(3)"}, "✗ 02_x ★ + sec-d：子进程没有跑完"),
    # 路线上只有 setup、imports 和点到的小节
    ({"section": "sec-a"}, "✗ 快 02_x：first：NameError: name 'promise'"),
    ({"second": "four = three + 1"}, "✗ 快 02_x：second：NameError: name 'three'"),
]


@linux
def test_a_good_book_can_be_walked_every_way_and_a_blocked_way_is_named(tmp_path):
    books = [write(tmp_path / str(i), **changes) for i, (changes, _) in enumerate(BLOCKED)]
    (code, lines), *blocked = run(write(tmp_path / "good"), *books)
    assert lines == ["✓ 02_x ★", "✓ 02_x ★ + sec-c", "✓ 02_x ★ + sec-d", "✓ 快 02_x"]
    assert code == 0
    for (code, lines), (_, line) in zip(blocked, BLOCKED, strict=True):
        assert code == 1
        assert any(text.startswith(line) for text in lines), lines


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"chapter": "03_y"}, "快：没有 03_y 这一章"),
        ({"section": "sec-z"}, "快：02_x 里没有 sec-z 这一节"),
        ({"minutes": 0}, "快：走完要 0 分钟，多于 0"),
    ],
)
def test_a_route_that_is_written_wrong_is_named(tmp_path, changes, problem):
    assert problems(write(tmp_path)) == []
    assert problems(write(tmp_path, **changes)) == [problem]
