"""像读者那样把每章单独打开，从头跑一遍：走每一条路，证明论断，换上解答。

用法：``python tools/alone.py [章节名…]``，一行一条路；有不对的，退出码为 1。

章节抄进一个名叫“我的 笔记”的空文件夹；``companion`` 来自刚打好的轮子，不是源码目录。同时：
``companion`` 与单元里不写编码就打开文件算错误，多进程一律 ``spawn``，PATH 上没有编译器。
怎么跑在 ``tools/walk.py``。
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.fixed import ENVIRONMENT
from tools.notebooks import ROOT, ToolError, chapter_paths, code_cells, read_notebook, write_text
from tools.outline import Section, outline
from tools.proven import covered_cells
from tools.routes import read_routes
from tools.session import CAN_FORK
from tools.wheel import build_wheel, run_python

__all__ = ["Desk", "desk", "main", "plan", "walk"]

HEAD = ("setup", "imports")
# 每个 Python 进程一启动就执行：工作进程也算在内。
SITECUSTOMIZE = '''"""单独跑章节的严格条件。"""

import multiprocessing
import warnings

warnings.filterwarnings("ignore", category=EncodingWarning)
# 单元里的 open 是 IPython 包过的，所以它也算单元。
OURS = r"(companion(\\..*)?|__main__|IPython\\.core\\.interactiveshell)$"
warnings.filterwarnings("error", category=EncodingWarning, module=OURS)
multiprocessing.set_start_method("spawn")
'''


class Desk(NamedTuple):
    """在哪个文件夹里跑，用哪些环境变量。"""

    notes: Path
    environment: dict[str, str]


@contextmanager
def desk(root: Path = ROOT) -> Iterator[Desk]:
    """读者的书桌，用完就收走。

    Raises:
        ToolError: 轮子打不出来、装不上，或导入的不是轮子里的 ``companion``。
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        base = Path(temporary).resolve()
        package, notes, bare = base / "轮子", base / "我的 笔记", base / "bin"
        notes.mkdir()
        bare.mkdir()
        wheel = build_wheel(base, root)
        target = ["--quiet", "--no-deps", "--target", str(package)]
        run_python(["-m", "pip", "install", *target, str(wheel)])
        write_text(package / "sitecustomize.py", SITECUSTOMIZE)
        place = Desk(notes, _environment(package, bare))
        origin = run_python(["-c", "import companion; print(companion.__file__)"], *place)
        if package not in Path(origin).parents:  # 可编辑安装不得抢在轮子前面
            raise ToolError(f"companion 应来自轮子，实为 {origin}")
        yield place


def plan(path: Path, root: Path = ROOT) -> dict[str, Any]:
    """返回怎样走一章：哪些单元先跑，★ 是哪些，每节 ☆ 和每条路线是哪些，证明哪些。"""
    notebook = read_notebook(path)
    ids = [cell.id for cell in code_cells(notebook)]
    sections = [section for section in outline(notebook.cells) if section.level == 2]
    stars = [section for section in sections if section.mark == "☆" and CAN_FORK]
    routes = {}
    for route in read_routes(root) if CAN_FORK else []:
        for chapter, labels in route.steps:
            if route.run and chapter == path.stem:
                chosen = _ids(s for s in sections if not set(s.labels).isdisjoint(labels))
                routes[route.name] = [cell for cell in chosen if not cell.startswith("sol-")]
    return {
        "proofs": covered_cells(path.stem, root),
        "head": [cell for cell in ids if cell in HEAD],
        "routes": routes,
        "trunk": [cell for cell in ids if cell not in {*HEAD, *_ids(stars)}],
        "branches": {f"★ + {s.label or s.title}": _ids([s]) for s in stars},
    }


def walk(path: Path, place: Desk, root: Path = ROOT) -> dict[str, str]:
    """在 ``place`` 上走一章，返回 ``{哪条路或哪个单元: 空串或哪里不对}``。

    Raises:
        ToolError: 没能走完。
    """
    shutil.copy2(path, place.notes)
    script = str(Path(__file__).with_name("walk.py"))
    said = run_python([script, path.name, json.dumps(plan(path, root))], *place)
    return dict(json.loads(said.splitlines()[-1]))


def main(names: list[str]) -> int:
    """返回进程退出码。"""
    code = 0
    try:
        with desk() as place:
            for path in chapter_paths(names=names):
                for what, why in walk(path, place).items():
                    code |= bool(why)
                    print(f"{'✗' if why else '✓'} {path.stem} {what}{'：' if why else ''}{why}")
    except ToolError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    return code


def _ids(sections: Iterable[Section]) -> list[str]:
    return [cell.id for section in sections for cell in section.code]


def _environment(package: Path, bare: Path) -> dict[str, str]:
    """返回环境变量；PATH 上只有当前 Python 和一个 sh。"""
    folders = [str(Path(sys.executable).parent), str(bare)]
    if sys.platform == "win32":
        folders.append(str(Path(os.environ["SYSTEMROOT"]) / "System32"))
    else:
        (bare / "sh").symlink_to("/bin/sh")
    removed = ("CC", "CXX", "PYTHONWARNINGS")
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    plain = {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "PYTHONWARNDEFAULTENCODING": "1"}
    where = {"PATH": os.pathsep.join(folders), "PYTHONPATH": str(package)}
    return {**kept, **ENVIRONMENT, **plain, **where}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
