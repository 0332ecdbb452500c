"""判题的护栏：读者的函数动了会话、改了参数、算出 NaN，都说得出是哪一件、该怎么写。"""

import functools
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import companion.book.exercises
from companion._common import random_position
from companion.book._exercise import grade
from companion.repro import seed_everything

CHECKERS = """
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from companion.book.exercises._common import error_from, may_be_nan, mutates, require_tensor
from companion.book.exercises._watch import Watch, steps


def double(answer):
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    result = answer(x)
    require_tensor(result, (2, 3))
    return None if torch.equal(result, 2 * x) else "不是两倍。"


def total(answer):
    got = answer([1, 2], {"a": 3}, np.array([4.0]))
    return None if got == 10 and type(got) is int else f"得到 {got!r}。"


def score(answer):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    return None if answer(model, torch.ones(3, 2)) == 1 else "不是 1。"


@mutates(0)
def train(answer):
    return None if answer(nn.Linear(2, 2), torch.ones(3, 2)) == 1 else "不是 1。"


@mutates(0, 2)
def stream(answer):
    batches = (torch.ones(2) for _ in range(3))
    return None if answer(nn.Linear(2, 2), torch.ones(3), batches) == 3 else "不是 3。"


def sparse(answer):
    return None if answer(torch.eye(2).to_sparse())[0, 0] == 2 else "不是 2。"


@may_be_nan
def ratio(answer):
    return None if answer(0.0) != answer(0.0) else "不是 NaN。"


def two(answer):
    return None if answer == (1, 2.0) and [type(v) for v in answer] == [int, float] else "不是。"


def several(answer):
    return None if answer["f"](1) == 2 and answer["n"] == [None] else "不是。"


def wants_function(answer: Callable[..., Any]):
    return None if answer(1) == 1 else "不是 1。"


def wants_error(answer):
    return None if isinstance(error_from(answer, 1), KeyError) else "没有抛 KeyError。"


def watched(answer):
    x = torch.ones(2)
    with Watch() as seen:
        answer(x)
    return f"{sorted(set(seen.names))} {seen.ndim}"


def long(answer):
    return f"{steps(answer, list(range(3)))} {steps(answer, list(range(30)))}"
"""


@pytest.fixture(autouse=True)
def chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "ch99.py").write_text(CHECKERS, encoding="utf-8")
    path = [str(tmp_path), *companion.book.exercises.__path__]
    monkeypatch.setattr(companion.book.exercises, "__path__", path)
    yield
    sys.modules.pop("companion.book.exercises.ch99", None)


def after(act):
    """算对了两倍，走之前做一件不该做的事。"""

    def answer(x):
        result = 2 * x
        act(x)
        return result

    return answer


def session():
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        random_position(),
    )


LEFT = {
    "torch.is_grad_enabled()": lambda x: torch.set_grad_enabled(False),
    "默认的 dtype": lambda x: torch.set_default_dtype(torch.float64),
    "默认的设备": lambda x: torch.set_default_device("meta"),
    "确定性模式": lambda x: torch.use_deterministic_algorithms(True),
    "异常检测": lambda x: torch.autograd.set_detect_anomaly(True, check_nan=False),
    "torch 的全局种子": lambda x: torch.manual_seed(0),
    "NumPy 的全局种子": lambda x: np.random.seed(0),
    "Python 的全局种子": lambda x: random.seed(0),
    "第 1 个参数 x 里的数": lambda x: x.mul_(2),
    "第 1 个参数 x 的 requires_grad：来时是 False，走时成了 True": torch.Tensor.requires_grad_,
    "第 1 个参数 x 的形状：来时是 (2, 3)，走时成了 (3, 2)": lambda x: x.t_(),
    "第 1 个参数 x 的 .grad": lambda x: setattr(x, "grad", torch.ones(2, 3)),
}


@pytest.mark.parametrize(("named", "act"), LEFT.items())
def test_what_the_function_left_changed_is_named_and_the_session_is_as_before(named, act):
    before = session()
    verdict = grade("ch99.double", after(act))
    assert verdict.status == "wrong"
    assert named in verdict.text
    assert "改法：" in verdict.text
    assert "\n" not in verdict.text
    assert session() == before


@pytest.mark.parametrize(
    "act",
    [
        lambda x: torch.rand(3),
        lambda x: np.random.rand(700),
        lambda x: [random.random() for _ in range(700)],
        lambda x: random.gauss(0, 1),
        lambda x: np.random.default_rng(0).random(3),
        lambda x: torch.randn(2, generator=torch.Generator().manual_seed(0)),
        lambda x: x.clone().zero_(),
        lambda x: nn.Linear(2, 2),
    ],
)
def test_drawing_from_a_generator_is_allowed_and_the_readers_numbers_stay(act):
    before = session()
    assert grade("ch99.double", after(act)).status == "right"
    assert session() == before


def test_a_seed_inside_fork_rng_or_a_switch_inside_with_is_allowed():
    def answer(x):
        with torch.random.fork_rng(), torch.no_grad(), torch.device("meta"):
            torch.manual_seed(0)
            torch.rand(3)
        return 2 * x

    assert grade("ch99.double", answer).status == "right"


def test_a_seed_set_by_an_old_state_is_noticed_too():
    state = torch.Generator().manual_seed(5).get_state()
    verdict = grade("ch99.double", after(lambda x: torch.set_rng_state(state)))
    assert "torch 的全局种子" in verdict.text


@pytest.mark.parametrize("wrapper", [torch.no_grad, torch.inference_mode])
def test_the_session_of_the_reader_does_not_matter(wrapper):
    def slope(x):
        x = x.clone().requires_grad_()
        (x**2).sum().backward()
        return x.grad

    with wrapper():
        torch.set_default_dtype(torch.float64)
        try:
            verdict, dtype = grade("ch99.double", slope), torch.get_default_dtype()
        finally:
            torch.set_default_dtype(torch.float32)
        assert not torch.is_grad_enabled()
    assert (verdict.status, dtype) == ("right", torch.float64)


def test_the_seeds_of_two_gradings_are_the_same_whatever_the_reader_drew():
    seen = []
    for seed in (1, 2):
        seed_everything(seed)
        grade("ch99.double", after(lambda x: seen.append((torch.rand(2), np.random.rand()))))
    assert torch.equal(seen[0][0], seen[2][0])
    assert seen[0][1] == seen[2][1]


@pytest.mark.parametrize(
    ("named", "act"),
    [
        ("第 1 个参数 items 的长度：来时是 2，走时成了 3", lambda i, t, a: i.append(3)),
        ("第 1 个参数 items 里的 [0]：来时是 1，走时成了 2", lambda i, t, a: i.sort(reverse=True)),
        ("第 2 个参数 table 里的 ['a']", lambda i, t, a: t.update(a=4)),
        ("第 3 个参数 array 里的数", lambda i, t, a: a.fill(0)),
    ],
)
def test_lists_dicts_and_arrays_may_not_be_changed(named, act):
    def answer(items, table, array):
        total = sum(items) + table["a"] + int(array[0])
        act(items, table, array)
        return total

    verdict = grade("ch99.total", answer)
    assert named in verdict.text
    assert "副本" in verdict.text


@pytest.mark.parametrize(
    ("named", "act"),
    [
        ("第 1 个参数 model 的 training：来时是 True", lambda model, x: model.eval()),
        ("第 1 个参数 model 里 2 的 training", lambda model, x: model[2].eval()),
        ("第 1 个参数 model 的 1.running_mean 里的数", lambda model, x: model(x)),
        ("的 0.weight 的 .grad", lambda model, x: model.eval()(x).sum().backward()),
        ("的 0.weight 的 requires_grad", lambda model, x: model[0].requires_grad_(False)),
    ],
)
def test_a_model_keeps_its_mode_its_weights_and_its_averages(named, act):
    def answer(model, x):
        act(model, x)
        if "training" not in named:
            model.train()
        return 1

    assert named in grade("ch99.score", answer).text


def test_mutates_frees_only_the_arguments_it_counts():
    def answer(model, x, spoil=()):
        model.eval()
        torch.nn.init.zeros_(model.weight)
        for tensor in spoil:
            tensor.zero_()
        return 1

    assert grade("ch99.train", answer).status == "right"
    verdict = grade("ch99.train", lambda model, x: answer(model, x, [x]))
    assert "第 2 个参数 x 里的数" in verdict.text


@pytest.mark.parametrize("seed", [torch.manual_seed, np.random.seed, random.seed])
def test_a_function_that_may_change_its_model_may_not_reset_a_seed_either(seed):
    assert "全局种子" in grade("ch99.train", lambda model, x: (seed(0), 1)[1]).text


def test_arguments_that_cannot_be_copied_do_not_break_the_grading():
    def answer(model, x, batches):
        return np.random.rand() < 2 and len(list(batches))

    assert grade("ch99.stream", answer).status == "right"


def test_a_sparse_argument_may_not_be_changed():
    def answer(x):
        x.mul_(2)
        return x.to_dense()

    assert "第 1 个参数 x 里的数" in grade("ch99.sparse", answer).text
    assert grade("ch99.sparse", lambda x: x.to_dense() * 2).status == "right"


def test_nan_is_refused_with_its_own_sentence_unless_the_checker_allows_it():
    nan = float("nan")
    for answer in (lambda x: x * nan, lambda x: (x, [nan]), lambda x: np.array([nan])):
        assert "结果里有 NaN" in grade("ch99.double", answer).text
    assert "结果里有 NaN（第 2 项）" in grade("ch99.two", (1, nan)).text
    spoilt = grade("ch99.double", lambda x: (1, torch.tensor([[1.0, 2.0], [nan, 3.0]])))
    assert "结果里有 NaN（第 2 项 [1, 0]）" in spoilt.text
    assert "NaN（[0, 1]）" in grade("ch99.double", lambda x: (x * 0 / (x - 2)).to_sparse()).text
    assert grade("ch99.double", lambda x: np.array(["a"])).text.startswith("✗ 应返回张量")
    assert grade("ch99.ratio", lambda x: nan).status == "right"
    assert grade("ch99.double", lambda x: x / 0).text == "✗ 不是两倍。"  # 无穷大照常比


def test_numpy_scalars_become_numbers_of_python_at_any_depth():
    assert grade("ch99.total", lambda *args: np.int64(10)).status == "right"
    assert grade("ch99.two", (np.int32(1), np.float32(2))).status == "right"
    assert grade("ch99.two", (np.float64(1), 2.0)).status == "wrong"


def test_every_kind_of_callable_is_guarded():
    def change(x):
        result = 2 * x
        x.zero_()
        return result

    class Object:
        def __call__(self, x):
            return change(x)

        def method(self, x):
            return change(x)

    forms = [change, lambda x: change(x), functools.partial(change), Object(), Object().method]
    for form in forms:
        assert "第 1 个参数" in grade("ch99.double", form).text, form


def test_functions_inside_a_dict_are_guarded_and_none_inside_a_list_is_an_answer():
    verdict = grade("ch99.several", {"f": lambda x: np.int64(x + 1), "n": [None]})
    assert verdict.status == "right"
    assert grade("ch99.several", {"f": lambda x: ..., "n": [None]}).status == "todo"
    assert grade("ch99.several", {"f": len, "n": [None, [...]]}).status == "todo"


def test_a_value_where_a_function_is_asked_is_named():
    verdict = grade("ch99.wants_function", 3)
    assert verdict.text == "✗ 要一个函数，你交的是 int。交函数的名字，后面不带括号。"
    assert grade("ch99.wants_function", lambda x: x).status == "right"


def test_the_error_a_checker_asks_for_is_handed_to_it():
    assert grade("ch99.wants_error", lambda x: {}[x]).status == "right"
    assert grade("ch99.wants_error", lambda x: x).status == "wrong"
    verdict = grade("ch99.wants_error", lambda x: torch.set_grad_enabled(False))
    assert "求导的开关" in verdict.text


def test_a_function_that_leaves_python_is_an_error_of_one_line():
    assert "SystemExit" in grade("ch99.double", lambda x: sys.exit()).text


def test_a_model_in_the_input_is_described_on_one_line():
    text = grade("ch99.score", lambda model, x: x.view(5)).text
    assert "Sequential" in text
    assert "\n" not in text


def test_a_watching_checker_sees_the_readers_calls_and_not_the_guards():
    assert grade("ch99.watched", lambda x: x[None, None] * 2).text == "✗ ['__getitem__', 'mul'] 3"


def test_a_loop_takes_more_steps_and_a_whole_tensor_operation_does_not():
    few, many = grade("ch99.long", lambda v: [x + 1 for x in v]).text[2:].split()
    assert int(many) >= int(few) + 27
    few, many = grade("ch99.long", lambda v: torch.tensor(v) + 1).text[2:].split()
    assert few == many
