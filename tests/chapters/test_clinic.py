"""误解诊所的规矩：这本书守着，而且每一条都真的拦得住。"""

from __future__ import annotations

import pytest

from tests.chapters.clinic_book import CHAPTER, CLINIC, COVERAGE, write
from tools import lint_clinic
from tools.clinic import claims
from tools.lint_clinic import problems
from tools.notebooks import ToolError

BELIEF, PROOF = CLINIC["c049-belief"], CLINIC["c049-proof"]
TRUTH = CLINIC["c049-truth"]
BOX = ":::{admonition} 误解 C049 · 一样的话\n:class: myth\n一句。\n:::"


def changed(cells, **changes):
    """换掉几个单元的内容；``None`` 是拿走，没有的接在后面。"""
    return {
        name: content
        for name, content in (cells | {k.replace("_", "-"): v for k, v in changes.items()}).items()
        if content is not None
    }


def test_this_book_keeps_the_rules_of_the_clinic():
    assert problems() == []


def test_a_good_page_has_no_problems(tmp_path):
    assert problems(write(tmp_path)) == []


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        # 1 一个编号一个框，框在覆盖表说的地方
        ({"chapter": changed(CHAPTER, more=BOX)}, "C049 有两个误解框"),
        (
            {"chapter": changed(CHAPTER, more=BOX.replace("C049", "C057 C049"))},
            "C049 的误解框在 01_tensors 的单元 more，覆盖表却说在 A1_clinic_tensors",
        ),
        ({"chapter": changed(CHAPTER, more=BOX.replace("C049", "C001"))}, "（没有登记）"),
        (
            {"coverage": COVERAGE | {"C049": "A1_clinic_tensors names-proof"}},
            "与证明它的单元不在同一条里",
        ),
        # 2 四件齐全
        ({"clinic": changed(CLINIC, c049_belief=BELIEF.split(":::")[0])}, "标题下面要有误解框"),
        (
            {"clinic": changed(CLINIC, c049_belief=BELIEF.replace("(c049)", "(c050)"))},
            "要有标签 (c049)=",
        ),
        (
            {"clinic": changed(CLINIC, c049_proof=None), "coverage": {"C117": COVERAGE["C117"]}},
            "紧跟证明它的代码单元",
        ),
        ({"clinic": changed(CLINIC, c049_truth=None)}, "要有一段真相"),
        ({"clinic": changed(CLINIC, c049_proof=(PROOF[0], ""))}, "c049-proof 什么也没印"),
        ({"clinic": changed(CLINIC, c049_proof=(PROOF[0], "\n"))}, "c049-proof 什么也没印"),
        ({"clinic": changed(CLINIC, names_proof=("import torch", ""))}, "names-proof 什么也没印"),
        ({"clinic": changed(CLINIC, c049_truth="先摊平再找。")}, "恰好有一个 {ref}，现有 0 个"),
        ({"clinic": changed(CLINIC, c049_truth=TRUTH * 2)}, "恰好有一个 {ref}，现有 2 个"),
        ({"clinic": changed(CLINIC, c049_truth="见{ref}`sec-none`。")}, "sec-none 不是章节里的"),
        ({"clinic": changed(CLINIC, c049_truth="见{ref}`它 <c049>`。")}, "c049 不是章节里的小节"),
        # 3 原话，不转述
        ({"clinic": changed(CLINIC, c049_belief=BELIEF.replace("「", ""))}, "写在「」里"),
        ({"clinic": changed(CLINIC, c049_truth="网上常这样写，" + TRUTH)}, "不转述“网上”"),
        # 4 诊所不是讲课
        (
            {"coverage": COVERAGE | {"T046": "A1_clinic_tensors names-proof"}},
            "主题 T046 只在诊所 A1_clinic_tensors 里",
        ),
        # 没有赌注，没有分钟数；原话各有一处
        ({"clinic": changed(CLINIC, spelling=('bet("ch01.bytes")', "题"))}, "诊所不下注"),
        ({"clinic": changed(CLINIC, theme_reduce="## ☆ 归约")}, "诊所不分 ★ 与 ☆"),
        ({"beliefs": 'C057 = "两种"\nC049 = "行号"'}, "C049 不在章节里证明"),
    ],
)
def test_each_rule_can_fail(tmp_path, what, problem):
    found = problems(write(tmp_path, **what))
    assert any(problem in line for line in found), found


def test_a_claim_that_no_link_can_reach_is_named(tmp_path):
    unlabelled = changed(CLINIC, c049_belief=BELIEF.removeprefix("(c049)=\n"))
    with pytest.raises(ToolError, match=r"C049：.*上面要有一行 \(标签\)="):
        problems(write(tmp_path, clinic=unlabelled))


def test_code_after_the_truth_is_refused_unless_it_is_an_exercise(tmp_path):
    for name, refused in (("c049-more", True), ("ex-argmax-try", False)):
        cells = {}
        for key, content in CLINIC.items():
            cells[key] = content
            if key == "c049-truth":
                cells[name] = ("print(1)", "1\n")
        assert bool(problems(write(tmp_path / name, clinic=cells))) == refused


def test_a_topic_without_a_chapter_yet_may_wait_in_the_clinic(tmp_path):
    coverage = COVERAGE | {"T050": "A1_clinic_tensors names-proof"}
    assert problems(write(tmp_path, coverage=coverage)) == []


def test_a_truth_may_wait_for_its_chapter_if_it_is_listed(tmp_path, monkeypatch):
    clinic = changed(CLINIC, c049_truth="见{ref}`ch-later`。")
    monkeypatch.setattr(lint_clinic, "WAITING", {"C049": "第 3 章"})
    assert problems(write(tmp_path, clinic=clinic)) == []


def test_a_claim_that_a_chapter_proves_needs_the_readers_words(tmp_path):
    write(tmp_path, beliefs="")
    assert problems(tmp_path) == ["C057 还没有一句读者的话：写进 site/beliefs.toml"]


def test_a_claim_without_an_entry_of_its_own_leads_to_the_section_that_proves_it(tmp_path):
    found = claims(write(tmp_path))
    assert found["C049"].title == "`argmax()` 给我行号和列号"
    assert (found["C049"].label, found["C049"].see) == ("c049", "sec-reduce")
    assert (found["C117"].title, found["C117"].label) == ("拼写与名字", "spelling")
    assert (found["C057"].document, found["C057"].label) == ("chapters/01_tensors", "sec-device")
