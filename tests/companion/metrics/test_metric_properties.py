"""指标与 scikit-learn 相同：随便多少样本、几类、哪种 dtype、切成几批、哪些不算、哪些类没有出现。

裁判都先把数换成 ``float64``。
"""

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch.nn import functional as F

from companion.errors import DataError, ShapeError
from companion.metrics import (
    AUC,
    F1,
    MAE,
    R2,
    Accuracy,
    ConfusionMatrix,
    Perplexity,
    Precision,
    Recall,
)

few = settings(max_examples=40, deadline=None, derandomize=True)
PER_CLASS = {
    Precision: sk.precision_score,
    Recall: sk.recall_score,
    F1: sk.f1_score,
}


@st.composite
def samples(draw):
    """得分、标签（有的不算）、怎样切成几批。"""
    n, classes = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    scores = torch.randn(n, classes, generator=source).to(dtype)
    labels = torch.randint(draw(st.integers(1, classes)), (n,), generator=source)
    ignored = torch.rand(n, generator=source) < draw(st.sampled_from([0.0, 0.4]))
    ignored[draw(st.integers(0, n - 1))] = False
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=4)))  # 可以有空的一批
    return scores, torch.where(ignored, -100, labels), [0, *cuts, n]


def fed(make, scores, labels, edges):
    """按 ``edges`` 切开逐批记；中途存一次、取一次，再分两份合起来。"""
    whole, first, second = make(), make(), make()
    for k, (a, b) in enumerate(pairwise(edges)):
        whole.update(scores[a:b], labels[a:b])
        (first if k % 2 else second).update(scores[a:b], labels[a:b])
        again = make()
        again.load_state_dict(whole.state_dict())
        whole = again
    merged = make()
    merged.merge([first.state_dict(), second.state_dict()])
    one, two = whole.compute(), merged.compute()
    assert np.allclose(one, two, rtol=1e-9, equal_nan=True)
    return one


def quietly(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 它嫌有的类没有出现
        return function(*arguments, **options)


@few
@given(samples())
def test_accuracy_and_the_confusion_matrix_are_those_of_scikit_learn(case):
    scores, labels, _ = case
    kept, guess = labels != -100, scores.argmax(1)
    truth, chosen = labels[kept].numpy(), guess[kept].numpy()
    assert fed(Accuracy, *case) == pytest.approx(sk.accuracy_score(truth, chosen))
    every = range(scores.shape[1])
    expected = sk.confusion_matrix(truth, chosen, labels=every)
    assert np.array_equal(fed(ConfusionMatrix, *case), expected)


@few
@given(samples(), st.integers(1, 5))
def test_top_k_accuracy_counts_a_label_among_the_best_k(case, k):
    scores, labels, _ = case
    kept = labels != -100
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices[kept]
    expected = (best == labels[kept][:, None]).any(1).double().mean().item()
    assert fed(lambda: Accuracy(top_k=k), *case) == pytest.approx(expected)


@few
@given(samples(), st.sampled_from(list(PER_CLASS)), st.sampled_from(["macro", "micro", "weighted"]))
def test_precision_recall_and_f1_are_those_of_scikit_learn(case, metric, average):
    scores, labels, _ = case
    kept = labels != -100
    truth, chosen = labels[kept].numpy(), scores.argmax(1)[kept].numpy()
    how = {"average": average, "zero_division": 0}
    expected = quietly(PER_CLASS[metric], truth, chosen, **how)
    assert fed(lambda: metric(average), *case) == pytest.approx(expected)
    each = fed(lambda: metric(None), *case)
    seen = sorted({*truth, *chosen})
    expected = quietly(PER_CLASS[metric], truth, chosen, labels=seen, average=None, zero_division=0)
    assert each[seen].tolist() == pytest.approx(expected.tolist())
    assert each.isnan().sum() == len(each) - len(seen)


@few
@given(samples(), st.sampled_from(list(PER_CLASS)))
def test_one_logit_is_the_positive_class_of_scikit_learn(case, metric):
    scores, labels, edges = case
    logits, marks = scores[:, :1], torch.where(labels == -100, -100, labels % 2)[:, None]
    kept = marks != -100
    truth, chosen = marks[kept].numpy(), (logits > 0)[kept].numpy().astype(int)
    expected = quietly(PER_CLASS[metric], truth, chosen, zero_division=0)
    inputs = (logits, marks, edges)
    assert fed(lambda: metric(task="binary"), *inputs) == pytest.approx(expected)
    accuracy = fed(lambda: Accuracy(task="binary"), *inputs)
    assert accuracy == pytest.approx(sk.accuracy_score(truth, chosen))
    if len(set(truth)) == 2:
        area = sk.roc_auc_score(truth, logits[kept].float().numpy())
        assert fed(lambda: AUC(task="binary"), *inputs) == pytest.approx(area)


@few
@given(samples(), st.sampled_from(list(PER_CLASS)), st.sampled_from(["macro", "micro", "weighted"]))
def test_several_labels_a_sample_are_those_of_scikit_learn(case, metric, average):
    scores, _, edges = case
    marks = (scores.flip(0).float() > 0.3).float()
    truth, chosen = marks.numpy().astype(int), (scores > 0).numpy().astype(int)
    expected = quietly(PER_CLASS[metric], truth, chosen, average=average, zero_division=0)
    inputs = (scores, marks, edges)
    assert fed(lambda: metric(average, task="multilabel"), *inputs) == pytest.approx(expected)
    accuracy = fed(lambda: Accuracy(task="multilabel"), *inputs)
    assert accuracy == pytest.approx((truth == chosen).mean())


KINDS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@few
@given(samples(), st.sampled_from([*KINDS, *FLOATS, torch.bool]), st.booleans())
def test_marks_of_any_dtype_are_those_of_scikit_learn(case, kind, ignoring):
    scores, labels, edges = case
    marks = (labels % 2)[:, None].expand_as(scores).clone()
    skip = 127 if ignoring and kind != torch.bool else -100  # uint8 放不下 -100
    if skip == 127:
        marks[:, 0] = torch.where(labels == -100, 127, marks[:, 0])
    kept = (marks != skip).flatten()
    truth = marks.flatten()[kept].numpy()
    chosen = (scores > 0).flatten()[kept].numpy().astype(int)
    inputs = (scores, marks.to(kind), edges)
    how = {"task": "binary", "ignore_index": skip}
    assert fed(lambda: Accuracy(**how), *inputs) == pytest.approx(sk.accuracy_score(truth, chosen))
    expected = sk.confusion_matrix(truth, chosen, labels=[0, 1])
    assert np.array_equal(fed(lambda: ConfusionMatrix(**how), *inputs), expected)
    expected = quietly(sk.f1_score, truth, chosen, zero_division=0)
    assert fed(lambda: F1(**how), *inputs) == pytest.approx(expected)
    if len(set(truth)) == 2:
        area = sk.roc_auc_score(truth, scores.double().flatten()[kept].numpy())
        assert fed(lambda: AUC(**how), *inputs) == pytest.approx(area)


@st.composite
def regressions(draw):
    """随便两种 dtype 的输出和目标，占满各自的范围；有的列全相同。"""
    shape = (draw(st.integers(2, 30)), *draw(st.sampled_from([(), (1,), (3,), (2, 2)])))
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def numbers(kind):
        if kind.is_floating_point:
            far = 3e4 if kind == torch.float16 else 1e6
            return (torch.randn(shape, generator=source).clamp(-1, 1) * far).to(kind)
        least, most = max(torch.iinfo(kind).min, -(2**30)), min(torch.iinfo(kind).max, 2**30)
        return torch.randint(least, most + 1, shape, generator=source).to(kind)

    outputs, targets = (numbers(draw(st.sampled_from(KINDS + FLOATS))) for _ in range(2))
    if draw(st.booleans()):
        targets.reshape(shape[0], -1)[:, 0] = 1
    cuts = sorted(draw(st.lists(st.integers(0, shape[0]), max_size=4)))
    return outputs, targets, [0, *cuts, shape[0]]


@few
@given(regressions())
def test_regression_of_any_dtype_is_that_of_scikit_learn(case):
    outputs, targets, _ = case
    guess, truth = (x.double().reshape(len(x), -1).numpy() for x in (outputs, targets))
    error = sk.mean_absolute_error(truth, guess)
    assert fed(MAE, *case) == pytest.approx(error, rel=1e-12)
    assert fed(R2, *case) == pytest.approx(sk.r2_score(truth, guess), rel=1e-9)


@few
@given(samples())
def test_regression_is_that_of_scikit_learn_even_far_from_zero(case):
    scores, _, edges = case
    outputs = scores.double() + 1e6
    targets = outputs.flip(0) * 0.999999 + scores.double()
    inputs = (outputs, targets, edges)
    error = sk.mean_absolute_error(targets.numpy(), outputs.numpy())
    assert fed(MAE, *inputs) == pytest.approx(error, rel=1e-9)
    if len(targets) > 1:
        expected = sk.r2_score(targets.numpy(), outputs.numpy())
        assert fed(R2, *inputs) == pytest.approx(expected, rel=1e-6)
        flat = [0, 2 * len(targets)]  # 一列的
        expected = sk.r2_score(targets[:, :2].flatten().numpy(), outputs[:, :2].flatten().numpy())
        pair = outputs[:, :2].flatten(), targets[:, :2].flatten()
        assert fed(R2, *pair, flat) == pytest.approx(expected, rel=1e-6)


@few
@given(samples(), st.floats(0, 0.5))
def test_auc_of_infinite_scores_is_that_of_scores_beyond_all_others(case, share):
    scores, labels, edges = case
    wild = torch.rand(scores.shape, generator=torch.Generator().manual_seed(len(scores)))
    scores = scores.masked_fill(wild < share, torch.inf)
    scores = scores.masked_fill(wild > 1 - share, -torch.inf)
    tame = scores.double().clamp(-1e4, 1e4)
    logs = tame.log_softmax(dim=1)  # 概率会挤成 0 和 1，取了对数才排得出次序
    columns = [tame[:, 1] - tame[:, 0]] if tame.shape[1] == 2 else logs.unbind(dim=1)
    kept = labels != -100
    areas = [
        sk.roc_auc_score((labels == c)[kept].numpy(), column[kept].numpy())
        for c, column in enumerate(columns, start=len(columns) == 1)
        if (labels == c)[kept].unique().numel() == 2
    ]
    if areas:
        assert fed(AUC, scores, labels, edges) == pytest.approx(np.mean(areas))
    one, marks = scores[:, 0], torch.where(kept, labels % 2, -100)
    if marks[kept].unique().numel() == 2:
        area = sk.roc_auc_score(marks[kept].numpy(), tame[:, 0][kept].numpy())
        assert fed(lambda: AUC(task="binary"), one, marks, edges) == pytest.approx(area)


@few
@given(samples())
def test_perplexity_is_the_exponential_of_torchs_cross_entropy(case):
    scores, labels, _ = case
    expected = F.cross_entropy(scores.float(), labels).double().exp().item()
    assert fed(Perplexity, *case) == pytest.approx(expected, rel=1e-4)
    assert fed(lambda: Perplexity(class_axis=1), *case) == pytest.approx(expected, rel=1e-4)


# —— 布局


def test_the_class_axis_may_be_the_last_one_even_when_both_would_fit():
    outputs = torch.randn(4, 11, 11, generator=torch.Generator().manual_seed(0))
    labels = outputs.argmax(-1)
    for metric in (Accuracy, ConfusionMatrix, F1, AUC):
        made, moved = metric(class_axis=-1), metric(class_axis=1)
        made.update(outputs, labels)
        moved.update(outputs.movedim(-1, 1), labels)
        assert np.array_equal(made.compute(), moved.compute())
    accuracy = Accuracy(class_axis=-1)
    accuracy.update(outputs, labels)
    assert accuracy.compute() == 1.0


def test_scores_with_the_classes_last_are_told_to_say_so():
    with pytest.raises(ShapeError, match=r"类别应在输出的第 1 维.*class_axis=-1"):
        Accuracy().update(torch.randn(4, 8, 11), torch.zeros(4, 8).long())


@pytest.mark.parametrize("targets", [torch.tensor([1, 0]), torch.tensor([[1.0], [0.0]])])
def test_one_column_is_never_taken_for_several_classes(targets):
    for metric in (Accuracy, F1, ConfusionMatrix, AUC):
        with pytest.raises(ShapeError, match=r'不止 1.*task="binary"'):
            metric().update(torch.tensor([[2.0], [-1.0]]), targets)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_nothing_broadcasts(task):
    for metric in (Accuracy, F1, AUC):
        with pytest.raises(ShapeError, match="目标的形状应与输出相同"):
            metric(task=task).update(torch.randn(4, 1), torch.ones(4))


def test_without_an_ignored_label_every_odd_label_is_named():
    accuracy = Accuracy(ignore_index=None)
    accuracy.update(torch.randn(3, 2), torch.tensor([0, -100, 5]))
    with pytest.raises(DataError, match="0 到 1 之间，有 2 个不在"):
        accuracy.compute()


def test_nothing_left_after_ignoring_is_no_sample():
    for metric in (Accuracy, F1, ConfusionMatrix):
        made = metric()
        made.update(torch.randn(2, 3), torch.tensor([-100, -100]))
        with pytest.raises(DataError, match="一个样本都没有"):
            made.compute()


def test_counts_of_ten_thousand_classes_are_small():
    f1 = F1()
    f1.update(torch.randn(4, 10_000), torch.arange(4))
    assert f1.state_dict()["counts"].nbytes < 1e6


def test_targets_overwritten_in_place_after_the_update_change_nothing():
    accuracy, labels = Accuracy(), torch.tensor([0, 1])
    accuracy.update(torch.eye(2), labels)
    labels.fill_(-100)
    assert accuracy.compute() == 1.0


@pytest.mark.parametrize("value", [1.0, 0.1, 1e9 + 0.1, -1 / 3])
def test_r2_of_targets_that_are_all_alike_is_one_when_all_are_right_and_else_zero(value):
    for split in (1, 2, 7):
        right, wrong = R2(), R2()
        for part in torch.full((7,), value, dtype=torch.float64).split(split):
            right.update(part, part)
            wrong.update(part + 1e-3, part)
        assert right.compute() == 1.0  # scikit-learn 的定义
        assert wrong.compute() == 0.0


def test_r2_of_one_sample_is_undefined():
    made = R2()
    made.update(torch.randn(1, 3), torch.ones(1, 3))
    with pytest.raises(DataError, match="至少要两个样本，实际是 1 个"):
        made.compute()
