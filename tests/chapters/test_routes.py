"""读者会走的每一条路都走得通；走不通的会被指名。"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest

from tests.chapters.clinic_book import notebook
from tools.alone import Desk, walk
from tools.notebooks import chapter_paths
from tools.routes import problems, read_routes
from tools.session import CAN_FORK

linux = pytest.mark.skipif(not CAN_FORK, reason="分叉进程只在 Linux 上可靠")
NAMES = [path.stem for path in chapter_paths()]
CHAPTER = {
    "title": "# 章",
    "setup": ("import math\ndef check(name, x): print('◌' if x is ... else '✓')", ""),
    "imports": ("two = 2", ""),
    "opening": ("promise = 1", ""),
    "sec-a": "(sec-a)=\n## ★ 甲",
    "first": ("three = two + promise", ""),
    "ex-a-try": ("answer = ...\ncheck('a', answer)", ""),
    "sol-a": ("answer = 4\ncheck('a', answer)", ""),
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
    for folder in ("chapters", "site", "tests"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    text = nbformat.writes(notebook(cells))
    (root / "chapters" / "02_x.ipynb").write_text(text, encoding="utf-8")
    toc = {"format": "jb-book", "root": "intro", "chapters": [{"file": "chapters/02_x"}]}
    (root / "_toc.yml").write_text(json.dumps(toc), encoding="utf-8")
    routes = ROUTES.format(chapter=chapter, section=section, minutes=minutes)
    (root / "site" / "routes.toml").write_text(routes, encoding="utf-8")
    (root / "tests" / "coverage.yml").touch()
    return root


@pytest.mark.parametrize("chapter", NAMES)
def test_every_way_through_this_book_runs(report_of, chapter):
    assert {what: why for what, why in report_of(chapter).items() if why} == {}


@linux
def test_no_way_through_this_book_is_left_out(report_of):
    assert all("★" in report_of(chapter) for chapter in NAMES)
    assert "★ + sec-views" in report_of("01_tensors")
    for route in read_routes():
        for chapter, _ in route.steps:
            assert (route.name in report_of(chapter)) == route.run


def test_the_routes_of_this_book_lead_somewhere():
    assert problems() == []
    assert [route.name for route in read_routes()] == ["10 分钟", "60 分钟", "一学期"]


BLOCKED = [
    # ★ 不能等着 ☆ 或解答里的名字
    ({"second": "only_c"}, "★：second：NameError: name 'only_c' is not defined"),
    ({"second": "answer + 1"}, "★：second：TypeError: unsupported operand"),
    # ☆ 不能等着另一节 ☆，也不能等着解答
    ({"fourth": "only_c"}, "★ + sec-d：fourth：NameError: name 'only_c'"),
    ({"fourth": "answer + 1"}, "★ + sec-d：fourth：TypeError: unsupported operand"),
    ({"fourth": "import os; os._exit(3)"}, "★ + sec-d：子进程没有跑完"),
    # 路线上只有 setup、imports 和点到的小节
    ({"section": "sec-a"}, "快：first：NameError: name 'promise'"),
    ({"second": "four = three + 1"}, "快：second：NameError: name 'three'"),
    # 显示不出来也是走不通
    ({"third": "class A:\n    def _repr_html_(self): 1 / 0\nA()"}, "★ + sec-c：third：Zero"),
]


def walked(root: Path) -> dict:
    (root / "notes").mkdir()
    return walk(root / "chapters" / "02_x.ipynb", Desk(root / "notes", dict(os.environ)), root)


@linux
def test_a_good_chapter_can_be_walked_every_way_and_runs_each_cell_once(tmp_path):
    (tmp_path / "ran").mkdir()
    count = (
        f"import pathlib, uuid; pathlib.Path({str(tmp_path / 'ran')!r}, uuid.uuid4().hex).touch()"
    )
    report = walked(write(tmp_path, first=f"three = 3\n{count}", third=count))
    assert list(report) == ["开头", "快", "ex-a-try", "★", "★ + sec-c", "★ + sec-d"]
    assert set(report.values()) == {""}
    assert len(list((tmp_path / "ran").iterdir())) == 2


@linux
@pytest.mark.parametrize(("changes", "line"), BLOCKED)
def test_a_blocked_way_is_named(tmp_path, changes, line):
    report = walked(write(tmp_path, **changes))
    found = [f"{what}：{why}" for what, why in report.items() if why]
    assert any(text.startswith(line) for text in found), found


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
