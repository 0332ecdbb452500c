import ast
import inspect

import pytest
import torch

from companion.book import error_of, show_source
from companion.errors import ArgumentError
from companion.metrics import Accuracy
from companion.train import train_epoch


def test_show_source_prints_the_function_as_it_stands_in_the_file(capsys):
    assert show_source(train_epoch) is None
    printed = capsys.readouterr().out
    assert printed.rstrip() == inspect.getsource(train_epoch).rstrip()


def test_show_source_dedents_a_method_so_that_it_can_be_pasted(capsys):
    show_source(Accuracy.update)
    assert ast.parse(capsys.readouterr().out).body[0].name == "update"


@pytest.mark.parametrize("obj", [torch.add, 3])
def test_show_source_says_when_there_is_no_python_source(obj):
    with pytest.raises(ArgumentError, match="没有源码可印"):
        show_source(obj)


def test_error_of_returns_type_and_message():
    assert error_of(int, "三") == "ValueError: invalid literal for int() with base 10: '三'"
    assert error_of(sorted, [1, "a"], reverse=True).startswith("TypeError: ")


def test_error_of_fails_when_nothing_fails():
    with pytest.raises(AssertionError, match="应当报错，却得到了 3"):
        error_of(int, "3")
