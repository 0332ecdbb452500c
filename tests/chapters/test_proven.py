"""覆盖表的每一条：单元存在、跑到了、断言的是 torch 算出的值，取反就失败。"""

from __future__ import annotations

import pytest

from tools.proven import chapter_proof, load, problems

ENTRIES = [(key, name, cell) for key, (name, cells) in load().items() for cell in cells]


def test_every_entry_points_at_an_existing_cell():
    assert problems() == []


@pytest.mark.parametrize(("key", "chapter", "cell"), ENTRIES)
def test_the_claim_is_proved_by_its_cell(key, chapter, cell):
    proof = chapter_proof(chapter)
    if not proof["forked"]:
        pytest.skip("这个系统不能分叉进程，取反没有做")
    assert proof["cells"].get(cell, "没有跑到") == "", f"{key}：{chapter} 单元 {cell}"
