"""不合常规的输入和参数：要么算对，要么说清楚，从不悄悄给一个错的数。"""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch.nn import functional as F

from companion.errors import ArgumentError, CompanionError, DataError, DtypeError, ShapeError
from companion.metrics import (
    AUC,
    F1,
    MAE,
    R2,
    Accuracy,
    ConfusionMatrix,
    Mean,
    Perplexity,
    Precision,
)

nan, inf = math.nan, math.inf
COUNTING = [Accuracy, ConfusionMatrix, F1, AUC, Perplexity]
MARKING = [Accuracy, ConfusionMatrix, F1, AUC]  # 有 task="binary"
EVERY = [*COUNTING, MAE, R2]


def some(metric, seed=0, n=6, **how):
    """记了一批的指标，和那一批。"""
    source = torch.Generator().manual_seed(seed)
    outputs, targets = torch.randn(n, 3, generator=source), torch.arange(n) % 3
    if metric in (MAE, R2):
        targets = torch.randn(n, 3, generator=source)
    made = metric(**how)
    made.update(outputs, targets)
    return made, outputs, targets


def value(metric):
    return torch.as_tensor(metric.compute(), dtype=torch.float64)


# —— 标签


@pytest.mark.parametrize("metric", MARKING)
@pytest.mark.parametrize(
    ("targets", "bad"),
    [
        (torch.tensor([0, 1, 156], dtype=torch.uint8), 1),  # 256 - 100
        (torch.tensor([0.0, 1.0, -100.5]), 1),
        (torch.tensor([0.0, 0.5, nan]), 2),
        (torch.tensor([inf, -inf, 1.0]), 2),
        (torch.tensor([0, 2, -1], dtype=torch.int8), 2),
    ],
)
def test_a_mark_that_only_looks_ignored_or_legal_is_counted_and_named(metric, targets, bad):
    made = metric(task="binary")
    made.update(torch.randn(3), targets)
    with pytest.raises(DataError, match=f"0 到 1 之间，有 {bad} 个不在"):
        made.compute()


def test_a_label_is_ignored_only_when_it_is_exactly_that_number():
    for skip in (156, 255):
        made = Accuracy(task="binary", ignore_index=skip)
        made.update(torch.ones(2), torch.tensor([1, skip], dtype=torch.uint8))
        assert made.compute() == 1.0
    made = Accuracy(task="binary", ignore_index=300)
    made.update(torch.ones(2), torch.tensor([1, 300 % 256], dtype=torch.uint8))
    with pytest.raises(DataError, match="有 1 个不在"):
        made.compute()


@pytest.mark.parametrize("ignore_index", [-100, None])
def test_words_that_are_not_in_the_vocabulary_are_counted_and_named(ignore_index):
    made = Perplexity(ignore_index=ignore_index)
    made.update(torch.randn(2, 3, 5), torch.tensor([[0, 5, 4], [-1, 2, -100]]))
    with pytest.raises(DataError, match=f"0 到 4 之间，有 {2 if ignore_index else 3} 个不在"):
        made.compute()


def test_perplexity_that_ignores_nothing_is_torchs():
    scores, words = torch.randn(4, 5, 7), torch.randint(7, (4, 5))
    made = Perplexity(ignore_index=None)
    made.update(scores, words)
    expected = F.cross_entropy(scores.movedim(-1, 1), words).exp().item()
    assert made.compute() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", [Accuracy, ConfusionMatrix, F1, Perplexity, AUC])
def test_the_number_of_classes_in_the_message_survives_saving_and_merging(metric):
    made = metric()
    made.update(torch.randn(3, 7), torch.tensor([0, 1, 9]))
    for load in (made.load_state_dict, lambda state: made.merge([metric().state_dict(), state])):
        load(made.state_dict())
        with pytest.raises(DataError, match="0 到 6 之间，有 1 个不在"):
            made.compute()


def test_accuracy_over_batches_of_different_sizes_never_names_a_wrong_range():
    made = Accuracy()  # 对比学习：同一批里别的样本是候选，最后一批小
    for n in (4, 3, 4):
        made.update(torch.eye(n), torch.arange(n))
    assert made.compute() == 1.0
    made.update(torch.eye(3), torch.tensor([0, 1, 3]))
    with pytest.raises(DataError, match="0 到 C - 1 之间，有 1 个不在"):
        made.compute()


# —— 得分


@pytest.mark.parametrize("metric", COUNTING)
def test_nan_scores_are_counted_and_refused_but_not_where_the_label_is_ignored(metric):
    scores, labels = torch.eye(3).repeat(2, 1), torch.arange(3).repeat(2)
    scores[1, 2], labels[1] = nan, -100
    fine, made = metric(), metric()
    fine.update(scores, labels)
    assert value(fine).isfinite().all()
    for _ in range(2):
        made.update(scores, torch.arange(3).repeat(2))
    with pytest.raises(DataError, match="不应有 nan，有 2 个位置是 nan"):
        made.compute()


@pytest.mark.parametrize("metric", [Accuracy, F1, AUC, Precision])
@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_a_nan_score_is_no_negative_mark(metric, task):
    made = metric(task=task)
    made.update(torch.tensor([[nan, 1.0], [1.0, -1.0]]), torch.tensor([[0, 1], [1, 0]]))
    with pytest.raises(DataError, match="有 1 个位置是 nan"):
        made.compute()


def test_a_nan_among_the_best_k_is_refused():
    made = Accuracy(top_k=2)
    made.update(torch.tensor([[nan, 0.0, 1.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="有 1 个位置是 nan"):
        made.compute()


def test_infinite_scores_are_in_order():
    scores = torch.tensor([[-inf, 0.0, inf], [-inf, -inf, -5.0], [inf, 0.0, -inf]])
    made, marks = Accuracy(), Accuracy(task="binary")
    made.update(scores, torch.tensor([2, 2, 0]))
    marks.update(scores, (scores > 0).long())
    assert made.compute() == marks.compute() == 1.0


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64, torch.bool])
def test_whole_scores_are_as_good_as_floats(kind):
    scores, labels = torch.tensor([[0, 1], [1, 0], [0, 1]]).to(kind), torch.tensor([1, 0, 0])
    for metric in COUNTING:
        one, two = metric(), metric()
        one.update(scores, labels)
        two.update(scores.double(), labels)
        assert torch.equal(value(one), value(two))
    hard = F1(task="binary")  # 已经是 0 和 1 的预测
    hard.update(scores[:, 1], labels)
    assert hard.compute() == pytest.approx(2 / 3)


# —— 不是能算的张量


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch 说这种嵌套张量会变
    NESTED = torch.nested.nested_tensor([torch.zeros(2)], layout=torch.strided)

ODD = {
    "列表": ([[1.0, 2.0]], ArgumentError, "是张量，实际是 list"),
    "数组": (np.zeros((1, 2)), ArgumentError, "是张量，实际是 ndarray"),
    "什么也没有": (None, ArgumentError, "是张量，实际是 NoneType"),
    "复数": (torch.zeros(1, 2, dtype=torch.complex64), DtypeError, "是.*实数张量.*complex64"),
    "稀疏": (torch.zeros(1, 2).to_sparse(), DtypeError, "是.*sparse_coo.*to_dense"),
    "太窄": (torch.zeros(1, 2).to(torch.float8_e4m3fn), DtypeError, "是.*float8_e4m3fn"),
    "太宽": (torch.zeros(1, 2).to(torch.uint64), DtypeError, "是.*uint64"),
    "嵌套": (NESTED, DtypeError, "是稠密的"),
    "别的设备": (torch.zeros(1, 2, device="meta"), ArgumentError, "在同一个设备上，.*meta"),
}


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize("name", ODD)
def test_what_is_no_real_tensor_is_refused_and_leaves_the_metric_as_it_was(metric, name):
    odd, error, words = ODD[name]
    made, *_ = some(metric)
    before = value(made)
    fine = torch.zeros(1, 2) if metric in (MAE, R2) else torch.zeros(1).long()
    with pytest.raises(error, match="outputs .*应" + words):
        made.update(odd, fine)
    with pytest.raises(error, match="targets .*应" + words):
        made.update(torch.zeros(1, 2), odd)
    assert torch.equal(before, value(made))


@pytest.mark.parametrize("metric", EVERY)
def test_outputs_with_a_gradient_count_as_those_without(metric):
    made, outputs, targets = some(metric)
    again = metric()
    again.update(outputs.requires_grad_() * 1, targets)
    state = again.state_dict()
    assert not any(torch.is_tensor(part) and part.requires_grad for part in state.values())
    assert torch.equal(value(made), value(again))


def test_a_scalar_is_one_sample_or_explained():
    made, error = Accuracy(task="binary"), MAE()
    for i in range(3):
        made.update(torch.tensor(1.0), torch.tensor(1))
        error.update(torch.tensor(1.0), torch.tensor(i))
    assert made.compute() == 1.0
    assert error.compute() == pytest.approx(2 / 3)
    for metric in COUNTING:
        with pytest.raises(ShapeError, match=r"\(B, C\)，实际是 \(\)"):
            metric().update(torch.tensor(1.0), torch.tensor(1))


@pytest.mark.parametrize("metric", COUNTING)
@pytest.mark.parametrize("shape", [(4, 0), (4, 1), (4, 1, 5)])
def test_fewer_than_two_classes_are_refused(metric, shape):
    targets = torch.zeros(shape[:1] + shape[2:]).long()
    with pytest.raises(ShapeError, match="应不止 1"):
        metric(class_axis=1).update(torch.zeros(shape), targets)


# —— 参数


UNUSED = [
    (lambda: Accuracy(threshold=0.5), "threshold 只用于"),
    (lambda: F1(threshold=0.5), "threshold 只用于"),
    (lambda: ConfusionMatrix(threshold=0.5), "threshold 只用于"),
    (lambda: Accuracy(task="binary", top_k=2), 'top_k 只用于 task="multiclass"，实际 task 是'),
    (lambda: Accuracy(task="multilabel", class_axis=1), "class_axis 只用于"),
    (lambda: AUC(task="binary", class_axis=-1), "class_axis 只用于"),
    (lambda: F1("micro", task="binary"), "average 只用于"),
    (lambda: F1(None, task="binary"), "average 只用于"),
]
WRONG = [
    *[(lambda bad=bad: Accuracy(ignore_index=bad), "ignore_index 应为整数") for bad in (1.5, True)],
    (lambda: Perplexity(ignore_index="pad"), "ignore_index 应为整数"),
    *[(lambda bad=bad: F1(class_axis=bad), "class_axis 应为整数") for bad in (1.0, True, "last")],
    *[
        (lambda bad=bad: Accuracy(task="binary", threshold=bad), "threshold 应是一个数")
        for bad in (nan, None, "0", 1j, 10**400, [0.5])
    ],
    (lambda: Accuracy(threshold=None), "threshold 应是一个数"),
    *[(lambda bad=bad: Accuracy(top_k=bad), "top_k 应为不小于 1") for bad in (0, 1.0, True, None)],
    (lambda: ConfusionMatrix(task="multilabel"), "task 应为 'multiclass'、'binary' 之一"),
    (lambda: AUC(task="ranking"), "task 应为"),
    (lambda: F1(average="Macro"), "average 应为"),
    (lambda: F1(average=np.array(["macro", "micro"])), "average 应为"),
    (lambda: Accuracy(ignore_index=2**63), "ignore_index 应放得进 int64"),
]


@pytest.mark.parametrize(("make", "words"), UNUSED + WRONG)
def test_an_option_that_is_wrong_or_has_no_effect_is_refused_at_once(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_an_option_without_effect_may_say_its_default():
    Accuracy(threshold=0, class_axis=None)
    Accuracy(task="binary", top_k=1, class_axis=None)
    F1("macro", task="binary")
    assert Accuracy(top_k=np.int64(2), ignore_index=np.int32(-1), class_axis=np.int8(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "threshold", [1e300, -1e300, inf, -inf, np.float32(0.5), torch.tensor(0.5)]
)
def test_any_threshold_may_be_compared_with_any_dtype(threshold, dtype):
    made = Accuracy(task="binary", threshold=threshold)
    scores = torch.tensor([0.0, 1.0], dtype=dtype)
    made.update(scores, torch.tensor([float(s) > threshold for s in scores]))
    assert made.compute() == 1.0


# —— 类别在第几维


@pytest.mark.parametrize("metric", COUNTING)
def test_an_unclear_class_axis_is_told_with_both_shapes_and_both_ways(metric):
    with pytest.raises(ShapeError) as error:
        metric().update(torch.randn(4, 5, 5), torch.randint(5, (4, 5)))
    said = str(error.value)
    assert "输出 (4, 5, 5) 配目标 (4, 5)" in said and "应为" not in said
    assert "(B, C, …) 的写 class_axis=1" in said and "(B, T, V) 的写 class_axis=-1" in said


@pytest.mark.parametrize("metric", COUNTING)
def test_a_class_axis_that_could_be_either_is_asked_for_and_one_that_is_given_never(metric):
    scores, labels = torch.randn(4, 5, 5).double(), torch.randint(5, (4, 5))
    with pytest.raises(ShapeError, match=r"也配得上.*class_axis=1.*class_axis=-1"):
        metric().update(scores, labels)
    first, last = metric(class_axis=1), metric(class_axis=-1)
    first.update(scores.movedim(-1, 1), labels)
    last.update(scores, labels)
    torch.testing.assert_close(value(first), value(last), rtol=1e-9, atol=0)


@pytest.mark.parametrize("metric", COUNTING)
def test_the_classes_may_be_in_any_dimension_that_is_there(metric):
    scores, labels = torch.randn(4, 3, 5).double(), torch.randint(3, (4, 5))
    made = metric(class_axis=1)
    made.update(scores, labels)
    for axis in (0, 2, -1, -2, -3):
        moved = metric(class_axis=axis)
        moved.update(scores.movedim(1, axis), labels)
        torch.testing.assert_close(value(moved), value(made), rtol=1e-9, atol=0)
    for axis in (3, -4):
        with pytest.raises(ShapeError, match=f"class_axis 应是输出的一维，实际是 {axis}"):
            metric(class_axis=axis).update(scores, labels)


def test_the_advice_for_images_with_the_classes_last_is_right():
    images, labels = torch.randn(2, 4, 6, 3), torch.randint(3, (2, 4, 6))
    for metric in (Accuracy(), Accuracy(class_axis=1)):
        with pytest.raises(ShapeError, match=r"movedim\(-1, 1\)"):
            metric.update(images, labels)
    advised, right = Accuracy(), (images.argmax(-1) == labels).double().mean()
    advised.update(images.movedim(-1, 1), labels)
    assert advised.compute() == pytest.approx(right.item())


# —— 谁的内存


def ruin(state):
    for key, part in state.items():
        if torch.is_tensor(part):
            part.zero_()
        elif isinstance(part, int | float):
            state[key] = 0


@pytest.mark.parametrize("metric", EVERY)
def test_nothing_that_comes_out_or_goes_in_is_shared_with_the_caller(metric):
    made, outputs, targets = some(metric)
    right = value(made).clone()
    value(made).zero_()  # 还回来的
    ruin(made.state_dict())
    assert torch.equal(value(made), right)
    for load in ("load", "merge"):
        state, again = made.state_dict(), metric()
        kept = copy.deepcopy(state)
        again.load_state_dict(state) if load == "load" else again.merge([state])
        again.update(outputs, targets)
        again.compute()
        for key, part in kept.items():
            assert torch.equal(torch.as_tensor(part), torch.as_tensor(state[key]))
        again.load_state_dict(state)
        ruin(state)
        assert torch.equal(value(again), right)
    outputs.zero_()
    targets.zero_()
    assert torch.equal(value(made), right)


@pytest.mark.parametrize("metric", EVERY)
def test_a_metric_may_be_copied_and_pickled_half_way(metric):
    made, outputs, targets = some(metric)
    others = [copy.deepcopy(made), pickle.loads(pickle.dumps(made))]
    made.update(outputs, targets)
    for other in others:
        other.update(outputs, targets)
        assert torch.equal(value(other), value(made))


# —— 攒着的


@pytest.mark.parametrize("metric", [Accuracy, ConfusionMatrix, F1])
def test_what_is_held_back_is_bounded_and_counted_whatever_its_shape(metric):
    whole, made, parts = metric(class_axis=1), metric(class_axis=1), []
    for i in range(600):
        shape = [(3, 4), (2, 4, 3), (1, 4, 2, 2), (0, 4)][i % 4]
        scores = torch.randn(shape).to([torch.float32, torch.float64][i % 2])
        labels = torch.randint(-1, 4, shape[:1] + shape[2:])
        labels[labels == -1] = -100
        made.update(scores, labels)
        parts.append((scores.movedim(1, -1).reshape(-1, 4).double(), labels.flatten()))
        assert len(made._pending) <= 256
    whole.update(*map(torch.cat, zip(*parts, strict=True)))
    assert torch.equal(value(whole), value(made))
    made.reset()
    for _ in range(40):
        made.update(torch.randn(1000, 50), torch.randint(50, (1000,)))
        assert sum(scores.numel() for scores, _ in made._pending) <= 2**18


@pytest.mark.parametrize("metric", [ConfusionMatrix, F1, AUC])
def test_another_number_of_classes_is_refused_in_update_and_merge(metric):
    made, *_ = some(metric)
    before = value(made)
    with pytest.raises(ShapeError, match="类别数应"):
        made.update(torch.randn(2, 4), torch.arange(2))
    assert torch.equal(before, value(made))
    other = metric()
    other.update(torch.randn(2, 4), torch.arange(2))
    with pytest.raises(ShapeError, match=r"\[3, 4\]"):
        metric().merge([made.state_dict(), other.state_dict()])
    made.load_state_dict(made.state_dict())
    with pytest.raises(ShapeError, match="类别数应"):
        made.update(torch.randn(2, 4), torch.arange(2))


def test_r2_of_another_number_of_columns_is_refused():
    made, *_ = some(R2)
    with pytest.raises(ShapeError, match=r"列数应相同，实际是 \[2, 3\]"):
        made.update(torch.randn(4, 2), torch.randn(4, 2))


def test_r2_averages_its_columns_as_scikit_learn_does():
    made, outputs, targets = some(R2)
    assert made.compute() == pytest.approx(sk.r2_score(targets.numpy(), outputs.numpy()))
    assert made.state_dict()["sums"].shape == (3, 3)


def stored():
    """各种指标存下的。"""
    for metric in (*EVERY, Mean):
        for task in ("multiclass", "binary", "multilabel"):
            if task == "multiclass" or metric in (Accuracy, F1, AUC):
                made = metric() if task == "multiclass" else metric(task=task)
                marks = torch.eye(3) if task != "multiclass" or metric in (MAE, R2) else None
                if metric is Mean:
                    made.update(1.0)
                else:
                    made.update(torch.eye(3), torch.arange(3) if marks is None else marks)
                yield made


def test_a_state_of_another_metric_or_task_is_never_taken():
    for i, one in enumerate(stored()):
        for k, two in enumerate(stored()):
            if i == k:
                two.load_state_dict(one.state_dict())
                continue
            before = value(two)
            with pytest.raises(ArgumentError, match="另一种指标存下的"):
                two.load_state_dict(one.state_dict())
            assert torch.equal(before, value(two))
    for bad in ({}, None, [], {"counts": None}):
        with pytest.raises(ArgumentError, match="state 应有"):
            F1().load_state_dict(bad)


def test_a_state_of_f1_serves_precision_too():
    made, outputs, targets = some(F1)
    other, expected = Precision(), Precision()
    other.load_state_dict(made.state_dict())
    expected.update(outputs, targets)
    assert other.compute() == expected.compute()


# —— 平均


@pytest.mark.parametrize("bad", ["3", None, [1.0], 1j, torch.tensor(1j), {}, 10**400])
def test_a_mean_takes_only_real_numbers(bad):
    mean = Mean()
    with pytest.raises(ArgumentError, match="value 应是一个数"):
        mean.update(bad)
    if not torch.is_tensor(bad):
        with pytest.raises(ArgumentError, match="weight 应是一个数"):
            mean.update(1.0, bad)
    mean.update(np.float32(2.0), np.int64(3))
    mean.update(np.array(5.0))
    assert mean.compute() == 11 / 4


@pytest.mark.parametrize("weight", [torch.ones(2, 2), torch.tensor(1j), torch.ones(2) * 1j])
def test_the_weight_of_a_mean_is_a_number_or_a_mask(weight):
    with pytest.raises(ShapeError, match="weight 应是实数，一个数或一维的掩码"):
        Mean().update(1.0, weight)


META = torch.ones((), device="meta")


@pytest.mark.parametrize("bad", [META, META.bool(), torch.ones(1).to_sparse()], ids=str)
def test_a_mean_refuses_at_once_what_holds_no_number(bad):
    mean = Mean()
    for name, given in (("value", (bad, 1)), ("weight", (1.0, bad))):
        with pytest.raises(ArgumentError, match=f"{name} 应是有数值的稠密张量，实际.*请先"):
            mean.update(*given)
    mean.update(torch.tensor(2.0), torch.ones(3, dtype=torch.bool))
    assert mean.compute() == 2.0


@pytest.mark.parametrize("weight", [-1, -0.5, torch.tensor(-2)])
def test_a_mean_refuses_a_negative_weight_when_it_is_asked(weight):
    mean = Mean()
    mean.update(1.0, 3)
    mean.update(4.0, weight)
    with pytest.raises(ArgumentError, match="weight 应不小于 0"):
        mean.compute()


def test_every_refusal_is_one_line_of_ours():
    with pytest.raises(CompanionError) as caught:
        Perplexity().update(torch.randn(2, 7, 3), torch.zeros(2, 3).long())
    assert "\n" not in str(caught.value)
