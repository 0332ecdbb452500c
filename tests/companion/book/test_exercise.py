"""习题自检：三种结果各只打印一行，读者的错误不会变成一屏调用栈。"""

import functools
import sys
from pathlib import Path

import pytest
import torch

import companion.book.exercises
from companion.book import check
from companion.book._exercise import Verdict, grade
from companion.errors import ArgumentError

CHECKERS = """
import torch
from math import sqrt


def row_sums(answer):
    x = torch.arange(6.0).reshape(2, 3)
    result = answer(x)
    return None if torch.equal(result, x.sum(1)) else "行和应有 2 个数。"


def shape(answer):
    return None if answer == (2, 3) else f"应有 2 维，你给了 {len(answer)} 维。"


def _hidden(answer):
    return None
"""


def _printing(x):
    print(x.sum(1))


def _without_return(x):
    x.sum(1)


def _bare_return(x):
    x.sum(1)
    return


def _grad_of_a_result(x):
    y = (x.clone().requires_grad_() ** 2).sum()
    y.backward()
    return y.grad


def _grad_without_backward(x):
    x = x.clone().requires_grad_()
    x.sum()
    return x.grad


def _backward_returned(x):
    return x.clone().requires_grad_().sum().backward()


def _item_of_none(x):
    x = x.clone().requires_grad_()
    return x.grad.item()


def _one_way_out(x):
    if x.ndim == 5:
        return x.sum(1)


class _Talker:
    def __call__(self, x):
        print(x)

    def method(self, x):
        print(x)


class _Unwritten:
    def __call__(self, x): ...


@pytest.fixture(autouse=True)
def chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "ch99.py").write_text(CHECKERS, encoding="utf-8")
    monkeypatch.setattr(companion.book.exercises, "__path__", [str(tmp_path)])
    yield
    sys.modules.pop("companion.book.exercises.ch99", None)


@pytest.mark.parametrize("answer", [..., (..., ...), [2, ...], {"rows": ...}])
def test_placeholder_is_not_yet_answered(answer):
    assert grade("ch99.shape", answer).status == "todo"


def test_function_whose_body_is_still_a_placeholder_is_not_yet_answered():
    def empty(x): ...

    assert grade("ch99.row_sums", empty).status == "todo"
    assert grade("ch99.row_sums", lambda x: ...).status == "todo"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: print(x.sum(1)), "印出来不算，要 return"),
        (lambda x: [].clear(), "return 后面的东西本身就是 None"),
        (_printing, "印出来不算，要 return"),
        (_without_return, "没有 return"),
        (_bare_return, "没有 return"),
        (_grad_of_a_result, ".grad 要在 backward() 之后、从 x 上取"),
        (_grad_without_backward, ".grad 要在 backward() 之后、从 x 上取"),
        (_backward_returned, "backward() 本身不返回东西"),
        (_item_of_none, "backward() 之后"),
        (_one_way_out, "有一条路没有走到 return"),
        (functools.partial(_printing), "印出来不算，要 return"),
        (_Talker(), "印出来不算，要 return"),
        (_Talker().method, "印出来不算，要 return"),
    ],
)
def test_none_from_a_written_function_is_wrong_and_the_reason_is_said(answer, said, capsys):
    verdict = grade("ch99.row_sums", answer)
    assert verdict.status == "wrong"
    assert said in verdict.text
    assert "\n" not in verdict.text


def test_none_as_a_value_is_an_answer_and_wrong():
    verdict = grade("ch99.shape", None)
    assert verdict.status == "wrong"
    assert "print(…)" in verdict.text


def test_an_unwritten_function_is_seen_through_its_wrapping():
    def empty(x):
        """还没写。"""

    assert grade("ch99.row_sums", functools.partial(empty)).status == "todo"
    assert grade("ch99.row_sums", _Unwritten()).status == "todo"


def test_right_value_and_right_function_pass():
    assert grade("ch99.shape", (2, 3)) == Verdict("right", "✓ 对了。")
    assert grade("ch99.row_sums", lambda x: x.sum(dim=1)).status == "right"


def test_wrong_answer_shows_the_sentence_of_its_checker():
    assert grade("ch99.shape", (2, 3, 1)) == Verdict("wrong", "✗ 应有 2 维，你给了 3 维。")
    assert grade("ch99.row_sums", lambda x: x.sum(0)).text == "✗ 行和应有 2 个数。"


def test_exception_inside_the_answer_becomes_one_line_with_the_input_shape():
    verdict = grade("ch99.row_sums", lambda x: x.reshape(4, 2))
    expected = "✗ 你的函数出错了：RuntimeError: shape '[4, 2]' is invalid for input of size 6"
    assert verdict == Verdict("wrong", f"{expected}（输入：形状 (2, 3) 的 float32 张量）")


def test_only_the_first_line_of_a_long_message_is_shown():
    def broken(x):
        raise ValueError("第一行\n第二行")

    assert "第一行（输入" in grade("ch99.row_sums", broken).text


def test_answer_of_a_wrong_kind_is_named_instead_of_a_traceback():
    verdict = grade("ch99.shape", 3)
    assert verdict.status == "wrong"
    assert verdict.text.startswith("✗ 你的答案是 int，检查时出错：TypeError")
    assert "\n" not in verdict.text


@pytest.mark.parametrize(
    ("answer", "printed"),
    [(..., "◌ 还没作答"), ((9, 9, 9), "✗ 应有 2 维"), ((2, 3), "✓ 对了。")],
)
def test_check_prints_exactly_one_line_and_returns_none(answer, printed, capsys):
    assert check("ch99.shape", answer) is None
    output = capsys.readouterr().out
    assert output.startswith(printed)
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "near"),
    [("ch99.row_sum", "row_sums"), ("ch9.shape", "ch99"), ("ch99.shapes", "shape")],
)
def test_unknown_exercise_lists_the_near_names(name, near):
    with pytest.raises(ArgumentError, match=f"相近的有：{near}；"):
        grade(name, torch.zeros(1))


@pytest.mark.parametrize("name", ["ch99._hidden", "ch99.sqrt", "ch99", "../ch99.shape", ""])
def test_helpers_and_imports_of_a_chapter_are_not_exercises(name):
    with pytest.raises(ArgumentError, match="请核对名字"):
        grade(name, (2, 3))
