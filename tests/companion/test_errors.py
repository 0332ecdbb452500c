import numpy as np
import pytest
import torch
from torch.nn import functional as F

from companion import errors
from companion.errors import (
    ArgumentError,
    CompanionError,
    DtypeError,
    ShapeError,
    check_choice,
    check_labels,
    check_shape,
    check_whole,
)


def test_every_error_class_stands_in_the_tree_and_descends_from_companion_error():
    classes = {n: c for n, c in vars(errors).items() if isinstance(c, type) and n.endswith("Error")}
    assert len(classes) == 13
    for name, cls in classes.items():
        assert issubclass(cls, CompanionError)
        assert name in errors.__doc__
        for builtin in cls.__bases__:
            if builtin.__module__ == "builtins" and builtin is not Exception:
                assert f"{name} ({builtin.__name__})" in errors.__doc__


def test_each_error_can_be_caught_as_the_builtin_a_python_programmer_expects():
    with pytest.raises(ValueError):
        check_shape("x", torch.zeros(2), "3")
    with pytest.raises(TypeError):
        check_labels(torch.zeros(2, 3), torch.zeros(2))


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (0, 1, 8, 8)])
def test_check_shape_accepts_any_length_for_a_letter(shape):
    assert check_shape("x", torch.zeros(shape), "B 1 8 8") is None


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 3, 8, 8), (1, 5, 1, 8, 8), ()])
def test_check_shape_quotes_expected_and_actual_shape_and_the_fix(shape):
    with pytest.raises(ShapeError) as caught:
        check_shape("inputs", torch.zeros(shape), "B 1 8 8", hint="加一维。")
    assert str(caught.value) == f"inputs 的形状应为 (B, 1, 8, 8)，实际是 {shape}。加一维。"


def test_check_shape_writes_one_dimension_as_python_does():
    with pytest.raises(ShapeError, match=r"应为 \(3,\)，实际是 \(2, 2\)"):
        check_shape("labels", torch.zeros(2, 2), "3")


def test_check_choice_lists_the_choices_and_the_given_value():
    assert check_choice("kind", "a", ["a", "b"]) is None
    with pytest.raises(ArgumentError, match=r"kind 应为 'a'、'b' 之一，实际是 'c'"):
        check_choice("kind", "c", ["a", "b"])


@pytest.mark.parametrize("value", [["a"], np.array(["a", "b"]), torch.zeros(2), None, {}])
def test_check_choice_explains_values_that_cannot_be_compared(value):
    with pytest.raises(ArgumentError, match="kind 应为 'a'、'b' 之一"):
        check_choice("kind", value, ["a", "b"])


@pytest.mark.parametrize("rest", [(), (4, 4)])
def test_labels_that_cross_entropy_takes_pass_the_check(rest):
    logits, labels = torch.zeros(2, 3, *rest), torch.zeros(2, *rest, dtype=torch.int64)
    F.cross_entropy(logits, labels)  # 裁判：torch 自己收下
    assert check_labels(logits, labels) is None


@pytest.mark.parametrize(
    ("logits", "labels", "error", "words"),
    [
        ((4, 3), torch.zeros(4), DtypeError, r"实际是 torch\.float32.*labels\.long\(\)"),
        ((4, 3), torch.zeros(4, dtype=torch.int32), DtypeError, r"实际是 torch\.int32"),
        ((4, 3), torch.zeros(4, dtype=torch.bool), DtypeError, r"实际是 torch\.bool"),
        ((4, 3), torch.zeros(4, 3), ShapeError, r"应为 \(4,\)，实际是 \(4, 3\).*argmax"),
        ((4, 3), torch.zeros(4, 1).long(), ShapeError, r"squeeze\(1\)"),
        ((4, 3), torch.zeros(5).long(), ShapeError, r"应为 \(4,\)，实际是 \(5,\)"),
        ((4,), torch.zeros(4).long(), ShapeError, r"应为 \(B, C\)，实际是 \(4,\)"),
        ((4, 8, 3), torch.zeros(4, 8).long(), ShapeError, r"最后一维.*movedim\(-1, 1\)"),
        ((4, 5, 6, 3), torch.zeros(4, 5, 6).long(), ShapeError, r"最后一维.*movedim\(-1, 1\)"),
    ],
)
def test_labels_that_cross_entropy_refuses_are_explained(logits, labels, error, words):
    with pytest.raises(error, match=words):
        check_labels(torch.zeros(logits), labels)


@pytest.mark.parametrize("value", [1, 7, np.int64(3), torch.tensor(2)])
def test_a_whole_number_of_any_library_comes_back_as_int(value):
    assert check_whole("n", value) == int(value)
    assert type(check_whole("n", value)) is int


@pytest.mark.parametrize("value", [0, -1, 2.0, True, np.bool_(True), "3", None, float("nan")])
def test_what_is_not_a_positive_whole_number_is_refused(value):
    with pytest.raises(ArgumentError, match="n 应为不小于 1 的整数"):
        check_whole("n", value)
