"""报错词典：真的异常找得到自己那一条，数字不管，最长的算数，找不到时说怎么办。"""

import sys

import pytest
import torch
from torch.nn import functional as F

from companion.book import explain
from companion.book._explain import entries, find
from companion.errors import ArgumentError


def raised(fn, *args):
    with pytest.raises(Exception) as caught:
        fn(*args)
    return caught.value


@pytest.mark.parametrize(
    ("fn", "args", "target"),
    [
        (torch.nn.Linear(3, 1), (torch.ones(5, 7),), "err-matmul"),
        (torch.arange(30).reshape(5, 6).T.view, (30,), "err-view"),
        (F.cross_entropy, (torch.zeros(2, 3), torch.tensor([0.0, 1.0])), "err-target-long"),
        (torch.ones(9, requires_grad=True).numpy, (), "err-numpy-grad"),
        (torch.ones(7).item, (), "err-to-scalar"),
    ],
)
def test_an_exception_with_other_numbers_finds_its_entry(capsys, fn, args, target):
    explain(raised(fn, *args))
    printed = capsys.readouterr().out
    assert printed.endswith(f"书里：报错词典，{target}\n")
    assert printed.startswith("什么时候：") and "\n改成：\n    " in printed


def test_the_last_error_of_the_session_is_explained_without_an_argument(capsys, monkeypatch):
    monkeypatch.delattr(sys, "last_exc", raising=False)
    monkeypatch.setattr(sys, "last_value", IndexError("Target 7 is out of bounds."), raising=False)
    explain()
    assert "err-label-range" in capsys.readouterr().out
    monkeypatch.delattr(sys, "last_value")
    with pytest.raises(ArgumentError, match="还没有报过错"):
        explain()


def test_a_whole_traceback_and_a_warning_are_explained_too(capsys):
    explain(
        "Traceback …\n    y = net(x)\nRuntimeError: stack expects each\n tensor to be equal size"
    )
    assert "err-stack" in capsys.readouterr().out  # 抄来时折断了的，也认得
    explain(UserWarning("torch.range is deprecated and will be removed"))
    assert "torch.arange(0.0, 4.0)\n书里：旧写法，old-range\n" in capsys.readouterr().out


def test_the_longest_phrase_in_the_message_wins():
    both = "NameError: name 'x' is not defined; No module named 'pytorch'"
    assert find(both).target == "err-import-pytorch"
    assert find("NameError: name 'x' is not defined").target == "err-name-error"


def test_every_phrase_leads_to_its_own_entry():
    for entry in entries():
        for phrase in entry.phrases:
            assert find(phrase).target == entry.target, phrase


def test_what_is_not_in_the_dictionary_gets_an_answer_that_says_what_to_do(capsys):
    explain(ZeroDivisionError("division by zero"))
    printed = capsys.readouterr().out
    assert printed.startswith("词典里没有这一条：ZeroDivisionError: division by zero\n")
    assert "shape、dtype 和 device" in printed


@pytest.mark.parametrize("wrong", [3, "  ", RuntimeError])
def test_something_else_is_refused(wrong):
    with pytest.raises(ArgumentError, match="应给异常或一行消息，实际是"):
        explain(wrong)
