"""覆盖表的每一条：单元存在、跑到了、断言的是 torch 算出的值，取反就失败。"""

from __future__ import annotations

import pytest

from tools.proven import load, problems
from tools.session import CAN_FORK

ENTRIES = [(key, name, cell) for key, (name, cells) in load().items() for cell in cells]


def test_every_entry_points_at_an_existing_cell():
    assert problems() == []


@pytest.mark.skipif(not CAN_FORK, reason="这个系统不能分叉进程，取反没有做")
@pytest.mark.parametrize(("key", "chapter", "cell"), ENTRIES)
def test_the_claim_is_proved_by_its_cell(report_of, key, chapter, cell):
    assert report_of(chapter).get(cell, "没有跑到") == "", f"{key}：{chapter} 单元 {cell}"
