import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score
from torch.nn import functional as F

from companion.errors import ArgumentError, DataError, DtypeError, ShapeError
from companion.metrics import AUC, F1, Accuracy, ConfusionMatrix, Mean, Perplexity

CLASSIFIERS = [Accuracy, ConfusionMatrix, F1, AUC]


def batches(seed=0, sizes=(8, 8, 3), classes=4):
    g = torch.Generator().manual_seed(seed)
    for size in sizes:
        logits = torch.randn(size, classes, generator=g)
        yield logits, torch.randint(classes, (size,), generator=g)


def test_mean_weights_each_value():
    mean = Mean()
    mean.update(torch.tensor(1.0), 30)
    mean.update(torch.tensor(4.0), 10)
    assert mean.compute() == (1 * 30 + 4 * 10) / 40


def test_mean_takes_weights_that_are_still_on_the_device():
    mean = Mean()
    mean.update(torch.tensor(1.0), torch.tensor(3))
    mean.update(torch.tensor(5.0), torch.tensor(1))
    assert mean.compute() == 2.0


def test_mean_does_not_lose_small_values_behind_a_large_sum():
    mean = Mean()
    for value in [2.0**25, *[1.0] * 64]:  # float32 里 2**25 + 1 == 2**25
        mean.update(torch.tensor(value))
    assert mean.compute() == (2**25 + 64) / 65


def test_mean_cuts_the_graph():
    mean, w = Mean(), torch.ones((), requires_grad=True)
    mean.update(w * 2)
    assert not mean._pending[0][0].requires_grad


def test_accuracy_weights_a_short_last_batch_by_samples():
    accuracy, hits, total = Accuracy(), 0, 0
    for logits, labels in batches():
        accuracy.update(logits, labels)
        hits += int(np.sum(logits.numpy().argmax(1) == labels.numpy()))
        total += len(labels)
    assert accuracy.compute() == hits / total
    assert 0 < hits < total == 19


def test_accuracy_counts_pixels_when_labels_are_maps():
    logits = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # (1, 2, 1, 2)：左边是 0，右边是 1
    accuracy = Accuracy()
    accuracy.update(logits, torch.tensor([[[0, 0]]]))
    assert accuracy.compute() == 0.5


def test_confusion_matrix_agrees_with_scikit_learn():
    matrix, truth, guess = ConfusionMatrix(), [], []
    for logits, labels in batches(seed=1, sizes=(50, 50, 7)):
        matrix.update(logits, labels)
        truth += labels.tolist()
        guess += logits.argmax(1).tolist()
    result = matrix.compute()
    assert result.dtype == torch.int64
    assert np.array_equal(result.numpy(), confusion_matrix(truth, guess, labels=range(4)))


def test_the_diagonal_of_the_confusion_matrix_is_the_accuracy():
    matrix, accuracy = ConfusionMatrix(), Accuracy()
    for logits, labels in batches(seed=2):
        matrix.update(logits, labels)
        accuracy.update(logits, labels)
    counts = matrix.compute()
    assert counts.trace() / counts.sum() == pytest.approx(accuracy.compute())


@pytest.mark.parametrize("metric", [ConfusionMatrix, F1, AUC])
@pytest.mark.parametrize("label", [-1, 4, 100])
def test_labels_that_are_no_class_are_counted_and_named(metric, label):
    counter = metric()
    counter.update(torch.zeros(3, 4), torch.tensor([0, label, label]))
    with pytest.raises(DataError, match="0 到 3 之间，有 2 个不在"):
        counter.compute()


def test_confusion_matrix_refuses_a_batch_with_another_number_of_classes():
    matrix = ConfusionMatrix()
    matrix.update(torch.zeros(3, 4), torch.zeros(3).long())
    with pytest.raises(ShapeError, match="是 4，实际是 5"):
        matrix.update(torch.zeros(3, 5), torch.zeros(3).long())


@pytest.mark.parametrize("metric", CLASSIFIERS)
def test_reset_forgets_everything(metric):
    fresh, used = metric(), metric()
    used.update(torch.zeros(2, 7), torch.arange(2))
    used.reset()
    for logits, labels in batches():
        fresh.update(logits, labels)
        used.update(logits, labels)
    assert torch.equal(torch.as_tensor(fresh.compute()), torch.as_tensor(used.compute()))


@pytest.mark.parametrize("metric", [Mean, Perplexity, *CLASSIFIERS])
def test_a_metric_of_nothing_is_undefined(metric):
    with pytest.raises(DataError, match="先 update"):
        metric().compute()


@pytest.mark.parametrize("metric", CLASSIFIERS)
def test_float_or_one_hot_labels_are_explained(metric):
    with pytest.raises(DtypeError, match=r"labels\.long\(\)"):
        metric().update(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(ShapeError, match="argmax"):
        metric().update(torch.zeros(4, 3), torch.zeros(4, 3))


def test_mean_of_a_vector_is_explained():
    with pytest.raises(ShapeError, match=r"标量，实际形状是 \(3,\)"):
        Mean().update(torch.zeros(3))


def test_update_never_reads_a_value_back(count_reads):
    logits, labels = next(batches())
    metrics = [metric() for metric in (*CLASSIFIERS, Perplexity)]
    mean = Mean()

    def update():
        for metric in metrics:
            metric.update(logits, labels)
        mean.update(logits.mean(), 8)

    assert count_reads(update) == 0
    assert count_reads(mean.compute) > 0


@pytest.mark.parametrize("metric", CLASSIFIERS)
def test_a_metric_may_be_updated_inside_and_outside_inference_mode(metric):
    once, both = metric(), metric()
    logits, labels = next(batches())
    once.update(logits, labels)
    once.update(logits, labels)
    with torch.inference_mode():
        both.update(logits, labels)
    both.update(logits, labels)
    assert torch.equal(torch.as_tensor(once.compute()), torch.as_tensor(both.compute()))


def softmax64(logits):
    return logits.double().softmax(dim=1).numpy()


def filled(metric, **how):
    counter, logits, labels = metric(), [], []
    for outputs, targets in batches(**how):
        counter.update(outputs, targets)
        logits.append(outputs)
        labels.append(targets)
    return counter, torch.cat(logits), torch.cat(labels)


@pytest.mark.parametrize("average", ["macro", "micro", None])
def test_f1_agrees_with_scikit_learn(average):
    f1, logits, labels = filled(lambda: F1(average), sizes=(50, 50, 7))
    expected = f1_score(labels, logits.argmax(1), average=average)
    np.testing.assert_allclose(f1.compute(), expected, rtol=1e-12)


def test_f1_of_three_samples_computed_by_hand():
    f1 = F1(average=None)
    f1.update(torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0]]), torch.tensor([0, 1, 1]))
    each = f1.compute()  # 第 0 类：TP 1，FP 1；第 1 类：TP 1，FN 1；第 2 类没有出现过
    assert each[:2].tolist() == [2 / 3, 2 / 3]
    assert each[2].isnan()
    macro = F1("macro")
    macro.load_state_dict(f1.state_dict())
    assert macro.compute() == 2 / 3


def test_f1_refuses_an_unknown_average():
    with pytest.raises(ArgumentError, match="'macro'、'micro'、'weighted'、None"):
        F1("binary")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 5])
def test_auc_agrees_with_scikit_learn_ties_included(classes, dtype):
    auc, scores, truth = AUC(), [], []
    for logits, labels in batches(seed=3, sizes=(200, 200, 57), classes=classes):
        logits = logits[torch.arange(len(logits)) % 50].to(dtype)  # 每一行都重复，一样高的很多
        auc.update(logits, labels)
        scores.append(softmax64(logits))
        truth += labels.tolist()
    scores = np.concatenate(scores)
    scores = scores[:, 1] if classes == 2 else scores
    assert len(np.unique(scores)) < len(truth) * classes / 2
    assert auc.compute() == pytest.approx(roc_auc_score(truth, scores, multi_class="ovr"), abs=1e-9)


def test_auc_of_four_samples_computed_by_hand():
    auc = AUC()
    scores, labels = torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1])
    auc.update(torch.stack([-scores, scores], dim=1), labels)
    assert auc.compute() == 3.5 / 4  # 四对里赢三对，平一对


def test_auc_of_one_class_only_is_undefined():
    auc = AUC()
    auc.update(torch.zeros(3, 2), torch.ones(3).long())
    with pytest.raises(DataError, match="全是同一类"):
        auc.compute()


def test_auc_leaves_out_the_classes_that_never_occur():
    auc, logits, labels = AUC(), torch.randn(40, 3), torch.arange(40) % 2
    auc.update(logits, labels)
    chances = softmax64(logits)
    each = [roc_auc_score(labels == c, chances[:, c]) for c in (0, 1)]
    assert auc.compute() == pytest.approx(sum(each) / 2)


def test_auc_of_nan_scores_is_refused():
    auc = AUC()
    auc.update(torch.tensor([[0.0, float("nan")], [0.0, 1.0]]), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="nan"):
        auc.compute()


def test_auc_keeps_scores_that_the_caller_overwrites():
    auc, logits = AUC(), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    auc.update(logits, torch.tensor([0, 1]))
    logits.zero_()
    assert auc.compute() == 1.0


def test_perplexity_is_exp_of_the_mean_loss_of_the_counted_tokens():
    g = torch.Generator().manual_seed(0)
    perplexity, logits, targets = Perplexity(), [], []
    for size in (4, 4, 1):
        scores = torch.randn(size, 6, 11, generator=g)
        words = torch.randint(11, (size, 6), generator=g)
        words[0, :size] = -100  # 补齐的位置；各批里个数不同
        perplexity.update(scores, words)
        logits.append(scores.double().flatten(0, 1))
        targets.append(words.flatten())
    loss = F.cross_entropy(torch.cat(logits), torch.cat(targets))
    assert perplexity.compute() == pytest.approx(loss.exp().item(), rel=1e-6)


def test_perplexity_of_a_blind_guess_is_the_number_of_words():
    perplexity = Perplexity(ignore_index=0)
    perplexity.update(torch.zeros(2, 3, 7), torch.tensor([[1, 2, 0], [0, 0, 0]]))
    perplexity.update(torch.zeros(1, 3, 7), torch.zeros(1, 3).long())  # 一个也不算的一批
    assert perplexity.compute() == pytest.approx(7)


def test_perplexity_too_large_for_a_float_is_infinite():
    perplexity = Perplexity()
    perplexity.update(torch.tensor([[0.0, 1e4]]), torch.tensor([0]))
    assert perplexity.compute() == float("inf")


def test_perplexity_wants_the_words_in_the_last_dimension():
    with pytest.raises(ShapeError, match=r"应为 \(2, 7\)，实际是 \(2, 3\).*transpose"):
        Perplexity().update(torch.zeros(2, 7, 3), torch.zeros(2, 3).long())


def only_plain(value):
    if isinstance(value, dict):
        return all(only_plain(part) for part in value.values())
    if isinstance(value, torch.Tensor):
        return value.device.type == "cpu"
    return value is None or type(value) in (int, float)


@pytest.mark.parametrize("metric", [*CLASSIFIERS, Perplexity])
def test_a_metric_continues_from_its_state_as_if_never_stopped(metric):
    straight, stopped = metric(), metric()
    for i, (logits, labels) in enumerate(batches(sizes=(8, 8, 8, 5))):
        straight.update(logits, labels)
        if i == 2:
            state, stopped = stopped.state_dict(), metric()
            assert only_plain(state)
            stopped.load_state_dict(state)
        stopped.update(logits, labels)
    assert torch.equal(torch.as_tensor(straight.compute()), torch.as_tensor(stopped.compute()))


@pytest.mark.parametrize("metric", [*CLASSIFIERS, Perplexity])
def test_merged_parts_equal_the_whole_even_when_one_part_is_empty(metric):
    whole, parts = metric(), [metric() for _ in range(3)]
    for i, (logits, labels) in enumerate(batches(sizes=(8, 8, 8, 5))):
        whole.update(logits, labels)
        parts[i % 2].update(logits, labels)  # 第三份一批也没有
    merged = metric()
    merged.update(torch.zeros(2, 4), torch.arange(2))  # 合并会换掉它
    merged.merge([part.state_dict() for part in parts])
    torch.testing.assert_close(merged.compute(), whole.compute(), rtol=1e-12, atol=0)
    empty = metric()
    empty.merge([parts[2].state_dict()])
    with pytest.raises(DataError):
        empty.compute()


def test_mean_continues_and_merges_exactly():
    whole, halves = Mean(), [Mean(), Mean()]
    for i in range(10):
        value = torch.tensor(1 / (i + 3))
        whole.update(value, i + 1)
        halves[i // 5].update(value, i + 1)
    resumed = Mean()
    resumed.load_state_dict(halves[0].state_dict())
    for i in range(5, 10):
        resumed.update(torch.tensor(1 / (i + 3)), i + 1)
    assert resumed.compute() == whole.compute()
    resumed.merge([half.state_dict() for half in halves])
    assert resumed.compute() == pytest.approx(whole.compute(), rel=1e-15)
    assert only_plain(resumed.state_dict())


def test_confusion_matrices_of_different_models_do_not_merge():
    one, two = ConfusionMatrix(), ConfusionMatrix()
    one.update(torch.zeros(2, 3), torch.zeros(2).long())
    two.update(torch.zeros(2, 4), torch.zeros(2).long())
    with pytest.raises(ShapeError, match=r"\[3, 4\]"):
        ConfusionMatrix().merge([one.state_dict(), two.state_dict()])
