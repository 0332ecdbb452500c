import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from companion.errors import DataError, DtypeError, ShapeError
from companion.metrics import Accuracy, ConfusionMatrix, Mean


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
    assert not mean._sum.requires_grad


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


@pytest.mark.parametrize("label", [-1, 4, 100])
def test_confusion_matrix_counts_labels_that_are_no_class_and_says_so(label):
    matrix = ConfusionMatrix()
    matrix.update(torch.zeros(3, 4), torch.tensor([0, label, label]))
    with pytest.raises(DataError, match="0 到 3 之间，有 2 个不在"):
        matrix.compute()


def test_confusion_matrix_refuses_a_batch_with_another_number_of_classes():
    matrix = ConfusionMatrix()
    matrix.update(torch.zeros(3, 4), torch.zeros(3).long())
    with pytest.raises(ShapeError, match="是 4，实际是 5"):
        matrix.update(torch.zeros(3, 5), torch.zeros(3).long())


@pytest.mark.parametrize("metric", [Accuracy, ConfusionMatrix])
def test_reset_forgets_everything(metric):
    fresh, used = metric(), metric()
    used.update(torch.zeros(2, 7), torch.ones(2).long())
    used.reset()
    for logits, labels in batches():
        fresh.update(logits, labels)
        used.update(logits, labels)
    assert torch.equal(torch.as_tensor(fresh.compute()), torch.as_tensor(used.compute()))


@pytest.mark.parametrize("metric", [Mean, Accuracy, ConfusionMatrix])
def test_a_metric_of_nothing_is_undefined(metric):
    with pytest.raises(DataError, match="先 update"):
        metric().compute()


@pytest.mark.parametrize("metric", [Accuracy, ConfusionMatrix])
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
    metrics = [Accuracy(), ConfusionMatrix()]
    mean = Mean()

    def update():
        for metric in metrics:
            metric.update(logits, labels)
        mean.update(logits.mean(), 8)

    assert count_reads(update) == 0
    assert count_reads(mean.compute) > 0


@pytest.mark.parametrize("metric", [Accuracy, ConfusionMatrix])
def test_a_metric_may_be_updated_inside_and_outside_inference_mode(metric):
    once, both = metric(), metric()
    logits, labels = next(batches())
    once.update(logits, labels)
    once.update(logits, labels)
    with torch.inference_mode():
        both.update(logits, labels)
    both.update(logits, labels)
    assert torch.equal(torch.as_tensor(once.compute()), torch.as_tensor(both.compute()))
