"""存下的输出就是这一次跑出来的。"""

from __future__ import annotations

import pytest

from tools.execute import changed_cells
from tools.fixed import SAME_BITS
from tools.notebooks import chapter_paths

CHAPTERS = {path.stem: path for path in chapter_paths()}


@pytest.mark.parametrize("path", CHAPTERS.values(), ids=CHAPTERS)
def test_the_stored_outputs_are_those_of_this_run(path):
    changed = changed_cells(path)
    if not SAME_BITS:
        pytest.skip("跑通了；这个平台的浮点输出不保证逐字相同")
    assert changed == [], "看过新的输出再存：python tools/book.py execute"
