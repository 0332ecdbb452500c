"""书里还没有讲到的名字，都在这张清单上；清单只许变短：章节讲到一个，就划掉一个。"""

import json
import re
from pathlib import Path

from tests.companion.test_api_page import LISTED
from tests.companion.test_exports import EXPORTS

ROOT = Path(__file__).parents[2]
IMPORT = re.compile(r"^from companion\.([\w.]+) import ([\w, ]+)", re.M)
UNTAUGHT = Path(__file__).with_name("untaught.txt").read_text(encoding="utf-8").split()


def imported_by_chapters():
    """章节里 ``from companion.x import y`` 的全部 ``x.y``。"""
    found = set()
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"]) if cell["cell_type"] == "code" else ""
            for module, names in IMPORT.findall(source):
                found |= {f"{module}.{name.strip()}" for name in names.split(",")}
    return found


def public():
    """接口页上的全部 ``模块.名字``。"""
    return {f"{m}.{name}".removeprefix("companion.") for m in LISTED for name in EXPORTS[m]}


def test_a_public_name_is_taught_by_a_chapter_or_stands_on_the_list():
    assert sorted(public() - imported_by_chapters()) == UNTAUGHT


def test_chapters_use_public_names_only():
    assert imported_by_chapters() - public() == set()
