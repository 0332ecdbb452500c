"""报错词典：每一条都跑过，说的和真正发生的一样；写错的条目会被指名。"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from companion.book._explain import Entry, entries, find
from tools.dictionary import run_entry
from tools.notebooks import ToolError, chapter_paths, read_notebook
from tools.outline import outline
from tools.proven import load

ENTRIES = {entry.target: entry for entry in entries()}
LABELS = {
    label
    for path in chapter_paths()
    for section in outline(read_notebook(path).cells, 3)
    for label in section.labels
}
ERROR = {
    "group": "形状",
    "says": "out of bounds for dimension",
    "code": "x = torch.ones(3)\nx[3]",
    "fix": "assert x[2] == 1",
}
OLD = {
    "old": "torch.range(0, 3)",
    "today": "warns",
    "says": "torch.range is deprecated",
    "new": "torch.arange(4.0)",
    "proof": "assert torch.equal(old, new)",
}


def test_the_dictionary_is_large_and_its_targets_are_plain_words():
    kinds = [target.split("-")[0] for target in ENTRIES]
    assert kinds.count("err") >= 30 and kinds.count("old") >= 15
    assert len(ENTRIES) == len(entries())
    assert all(re.fullmatch(r"(err|old)-[a-z]+(-[a-z]+)*", target) for target in ENTRIES)


@pytest.mark.parametrize("target", ENTRIES)
def test_torch_says_today_what_the_entry_says(target):
    said = run_entry(ENTRIES[target])
    if said is None:
        pytest.skip("这台机器有 GPU，不报这个错")
    assert not re.search(r"0x[0-9a-f]{6}", said)  # 每次不同的地址不上网页
    if said:
        assert find(said).target == target


@pytest.mark.parametrize("target", ENTRIES)
def test_an_entry_leads_to_things_that_exist(target):
    content = ENTRIES[target].content
    assert content.get("see") in LABELS | {None}
    assert content.get("myth") in load().keys() | {None}
    assert content["truth"].endswith("。") and not content.get("when", "").endswith("。")


@pytest.mark.parametrize(
    ("target", "change", "problem"),
    [
        ("err-x", {"code": "x = torch.ones(3)\nx[2]"}, "最后一句没有报错"),
        ("err-x", {"code": "x = torch.ons(3)\nx[3]"}, "这一段应当跑通"),
        ("err-x", {"says": "别的话"}, "第一行应含 '别的话'"),
        ("err-x", {"inside": ["别的话"]}, "消息里应有 '别的话'"),
        ("err-x", {"fix": "assert x[2] == 2"}, "这一段应当跑通"),
        ("err-x", {"fix": "torch.range(0, 3)"}, "这一段应当跑通"),  # 改法不许招来警告
        ("err-x", {"group": "别的"}, "group 应是"),
        ("old-x", {"today": "works"}, "应是 works 'torch.range is deprecated'，实际是 warns"),
        ("old-x", {"today": "raises"}, "实际是 warns"),
        ("old-x", {"old": "torch.rangee(0, 3)"}, "实际是 raises"),
        ("old-x", {"old": "torch.arange(4.0)"}, "实际是 works"),
        ("old-x", {"says": "别的话"}, "应是 warns '别的话'"),
        ("old-x", {"new": "torch.arange(3.0)"}, "这一段应当跑通"),
        ("old-x", {"proof": "assert torch.equal(new, new)"}, "proof 没有用到 old"),
    ],
)
def test_an_entry_that_is_wrong_is_named(target, change, problem):
    content = (ERROR if target.startswith("err") else OLD) | change
    with pytest.raises(ToolError, match=re.escape(problem)) as caught:
        run_entry(Entry(target, (), content))
    assert target in str(caught.value)


def test_the_examples_above_are_right_before_they_are_changed():
    assert run_entry(Entry("err-x", (), ERROR)).startswith("IndexError: index 3 is out of bounds")
    assert run_entry(Entry("old-x", (), OLD)).startswith("UserWarning: torch.range is deprecated")


def test_a_message_that_only_a_machine_without_gpu_gives_is_not_run_with_one(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert run_entry(ENTRIES["err-no-driver"]) is None


def test_the_page_and_the_package_look_messages_up_alike():
    racer = pytest.importorskip("py_mini_racer", reason="没有装建站的依赖").MiniRacer()
    script = Path(__file__).parents[2] / "site" / "assets" / "lookup.js"
    racer.eval(script.read_text(encoding="utf-8") + ";0")
    rows = [{"target": entry.target, "phrases": list(entry.phrases)} for entry in entries()]
    messages = [f"Error: {phrase} １２ 3" for entry in entries() for phrase in entry.phrases]
    messages += ["mat1\n  and MAT2 shapes cannot  be multiplied", "division by zero"]
    for message in messages:
        shown = racer.call(
            "((text, rows) => lookup.find(text, rows)?.target ?? null)", message, rows
        )
        found = find(message)
        assert shown == (found and found.target), message
