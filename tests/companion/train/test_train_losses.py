"""损失知道自己平均的是几个：与一大批一次算的相同，或者说清楚要用 step。"""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from companion.errors import ArgumentError, ShapeError
from companion.train import StepOut, Update, evaluate, fit, train_epoch

N = 24
SIZES = (5, 7, 24)


def sequences():
    """长短不一的标号序列：后一半的样本只有头一个位置有标签。"""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (N, 6), generator=g)
    labels[N // 2 :, 1:] = -100
    return torch.randn(N, 4, 6, generator=g), labels


def pairs(targets):
    return torch.randn(N, 4, generator=torch.Generator().manual_seed(1)), targets


def labels(classes=3):
    return torch.randint(classes, (N,), generator=torch.Generator().manual_seed(2))


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


WEIGHT = torch.tensor([1.0, 5.0, 20.0])
IGNORED = torch.where(labels() == 0, -100, labels())
DENSE = {
    "交叉熵": (F.cross_entropy, labels()),
    "权重": (nn.CrossEntropyLoss(weight=WEIGHT), labels()),
    "权重和平滑": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), labels()),
    "有的不算": (F.cross_entropy, IGNORED),
    "有的不算还有权重": (nn.CrossEntropyLoss(weight=WEIGHT), IGNORED),
    "零号不算": (partial(F.cross_entropy, ignore_index=0), labels()),
    "零号不算且平滑": (partial(F.cross_entropy, ignore_index=0, label_smoothing=0.1), labels()),
    "两层 partial": (partial(partial(F.cross_entropy, weight=WEIGHT), ignore_index=1), labels()),
    "对数概率": (nn.NLLLoss(weight=WEIGHT), labels()),
    "目标是概率": (nn.CrossEntropyLoss(weight=WEIGHT), noise(N, 3)),
    "均方": (F.mse_loss, noise(N, 3)),
    "绝对值": (nn.L1Loss(), noise(N, 3)),
    "Huber": (nn.HuberLoss(), noise(N, 3)),
    "多标签": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), (noise(N, 3) > 0.5).float()),
    "泊松": (nn.PoissonNLLLoss(), noise(N, 3)),
    "软间隔": (F.soft_margin_loss, (noise(N, 3) > 0.5).float() * 2 - 1),
    "铰链": (nn.HingeEmbeddingLoss(), (noise(N, 3) > 0.5).float() * 2 - 1),
    "散度逐元素": (nn.KLDivLoss(), noise(N, 3)),
    "散度按样本": (nn.KLDivLoss(reduction="batchmean"), noise(N, 3)),
    "多类间隔": (nn.MultiMarginLoss(weight=WEIGHT), labels()),
    "多标签软间隔": (nn.MultiLabelSoftMarginLoss(weight=WEIGHT), (noise(N, 3) > 0.5).float()),
    "自己写的均方": (lambda o, t: ((o - t) ** 2).mean(), noise(N, 3)),
    "自己写的，与批无关的正则": (lambda o, t: F.mse_loss(o, t) + 3.0, noise(N, 3)),
}


def loader(inputs, targets, size):
    return DataLoader(TensorDataset(inputs, targets), batch_size=size)


@pytest.mark.filterwarnings("ignore:reduction")  # KLDivLoss 的 mean 以后要改，torch 先说一声
@pytest.mark.parametrize("case", DENSE)
def test_an_epoch_cut_into_any_batches_has_the_loss_of_one_big_batch(case):
    loss, targets = DENSE[case]
    inputs, targets = pairs(targets)
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    whole = loss(model(inputs), targets).item()  # 裁判：torch 一次算完
    for size in SIZES:
        found = evaluate(model, loader(inputs, targets, size), loss=loss)["loss"]
        assert found == pytest.approx(whole, rel=2e-6)


@pytest.mark.filterwarnings("ignore:reduction")  # KLDivLoss 的 mean 以后要改，torch 先说一声
@pytest.mark.parametrize("case", DENSE)
def test_accumulating_has_the_gradient_of_one_big_batch(case):
    loss, targets = DENSE[case]
    inputs, targets = pairs(targets)
    trained = []
    for size, accumulate in ((24, 1), (5, 5), (7, 4)):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        update = Update(model, optimizer, accumulate=accumulate)
        train_epoch(model, loader(inputs, targets, size), loss=loss, optimizer=update)
        trained.append(model.weight.detach())
    for weight in trained[1:]:
        assert torch.allclose(weight, trained[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(ignore_index=-100)])
def test_padded_sequences_are_averaged_over_the_positions_that_have_a_label(loss):
    inputs, targets = sequences()
    torch.manual_seed(0)
    model = nn.Conv1d(4, 5, 1)
    whole = loss(model(inputs), targets).item()
    for size in SIZES:
        found = evaluate(model, loader(inputs, targets, size), loss=loss)["loss"]
        assert found == pytest.approx(whole, rel=2e-6)


def test_many_batches_of_several_lengths_are_counted_right():
    inputs, targets = pairs(IGNORED)
    batches = [(inputs[:k], targets[:k]) for k in (1, 3, 24, 2)] * 200
    model = nn.Linear(4, 3)
    kept = [(x[t != -100], t[t != -100]) for x, t in batches]
    everything = [torch.cat(part) for part in zip(*kept, strict=True)]
    whole = F.cross_entropy(model(everything[0]), everything[1]).item()
    assert evaluate(model, batches, loss=F.cross_entropy)["loss"] == pytest.approx(whole, rel=1e-5)


def _masked(outputs, targets):
    kept = targets != -100
    return (F.cross_entropy(outputs, targets, reduction="none") * kept).sum() / kept.sum()


NOT_MEANS = {
    "和": lambda o, t: F.cross_entropy(o, t, reduction="sum"),
    "藏着的权重": lambda o, t: F.cross_entropy(o, t, weight=WEIGHT),
    "自己写的掩码": _masked,
    "均方根": lambda o, t: F.mse_loss(o, F.one_hot(t.clamp(min=0), 3).float()).sqrt(),
    "广播了": lambda o, t: ((o[:, :1] - t) ** 2).mean(),
}


@pytest.mark.parametrize("case", NOT_MEANS)
def test_a_loss_that_is_no_mean_over_the_samples_is_refused_before_the_first_step(case):
    inputs, targets = pairs(IGNORED if case == "自己写的掩码" else labels())
    model = nn.Linear(4, 3)
    before = copy.deepcopy(model.state_dict())
    arguments = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "epochs": 1}
    with pytest.raises(ArgumentError, match=r"loss 应是各个样本的损失的平均.*step"):
        fit(model, [(inputs, targets)], loss=NOT_MEANS[case], progress=False, **arguments)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(reduction="sum"), nn.MSELoss(reduction="sum")]
)
def test_a_sum_is_refused_and_the_message_names_step(loss):
    model = nn.Linear(4, 3)
    with pytest.raises(ArgumentError, match=r"损失应是平均.*step"):
        evaluate(model, [pairs(labels())], loss=loss)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, "mse", torch.ones(())])
def test_what_is_no_function_is_refused(loss):
    with pytest.raises(ArgumentError, match="loss 应是函数或模块"):
        evaluate(nn.Linear(4, 3), [pairs(labels())], loss=loss)


def test_trying_a_loss_leaves_its_state_and_the_random_numbers_alone():
    class Counts(nn.Module):
        calls = 0

        def forward(self, outputs, targets):
            self.calls += 1
            return F.cross_entropy(F.dropout(outputs, 0.5), targets)

    loss, model = Counts(), nn.Linear(4, 3)
    torch.manual_seed(5)
    found = evaluate(model, [pairs(labels())], loss=loss)["loss"]
    assert loss.calls == 1
    torch.manual_seed(5)
    inputs, targets = pairs(labels())
    assert found == F.cross_entropy(F.dropout(model(inputs), 0.5), targets).item()


_calls, _centre, _count = [], torch.zeros(3), 0


def _appends(outputs, targets):
    _calls.append(1)
    return F.cross_entropy(outputs, targets, reduction="sum")


def _rebinds(outputs, targets):
    global _count
    _count += 1
    return F.cross_entropy(outputs, targets, reduction="sum")


def _changes_a_tensor(outputs, targets):
    _centre.add_(outputs.detach().mean(0))
    return F.cross_entropy(outputs - _centre, targets, reduction="sum")


class _Recorder:
    def __init__(self):
        self.seen = []

    def __call__(self, outputs, targets):
        self.seen.append(len(targets))
        return F.cross_entropy(outputs, targets)


def test_a_loss_with_a_state_is_called_once_a_batch_and_never_to_try_it():
    inside, recorder = [], _Recorder()

    def closes(outputs, targets):
        inside.append(1)
        return F.cross_entropy(outputs, targets)

    class Module(nn.Module):
        def forward(self, outputs, targets):
            return closes(outputs, targets)

    nested = partial(lambda extra, o, t: closes(o, t), None)
    model, before = nn.Linear(4, 3), _centre.clone()
    for loss in (_appends, _rebinds, _changes_a_tensor, closes, Module(), nested, recorder):
        evaluate(model, [pairs(labels())] * 2, loss=loss)
    assert (len(_calls), _count, len(inside), recorder.seen) == (2, 2, 6, [N, N])
    outputs = model(pairs(labels())[0]).detach().mean(0)
    assert torch.allclose(_centre, before + 2 * outputs)


@pytest.mark.parametrize(
    "loss", [F.poisson_nll_loss, F.hinge_embedding_loss, F.multilabel_soft_margin_loss, F.kl_div]
)
def test_no_loss_of_torch_broadcasts_in_silence(loss):
    with pytest.raises(ShapeError, match="targets 的形状应与输出相同"):
        evaluate(nn.Linear(4, 1), [pairs(noise(N))], loss=loss)


class Two(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("model", "targets"), [(Two(4, 3), labels()), (nn.Linear(4, 3), labels().tolist())]
)
def test_outputs_or_targets_that_are_no_tensor_are_refused_and_step_is_named(model, targets):
    with pytest.raises(ArgumentError, match=r"loss= 要模型返回一个张量.*step"):
        evaluate(model, [pairs(targets)], loss=F.cross_entropy)


# —— n 是 0 的批


def masked_step(count):
    def step(model, batch):
        inputs, targets = batch
        kept = targets != -100
        each = F.cross_entropy(model(inputs), targets, reduction="none")
        return StepOut((each * kept).sum() / kept.sum(), count(kept))

    return step


COUNTS = [lambda kept: kept.sum(), lambda kept: kept, lambda kept: int(kept.sum())]


@pytest.mark.parametrize("count", COUNTS, ids=["张量", "掩码", "整数"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_with_nothing_to_count_counts_nothing(count, accumulate):
    inputs, targets = pairs(labels())
    empty = (inputs, torch.full((N,), -100))
    trained = []
    for batches in ([(inputs, targets)], [empty, (inputs, targets), empty, empty]):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
        update = Update(model, optimizer, accumulate=accumulate)
        record = train_epoch(model, batches, step=masked_step(count), optimizer=update)
        trained.append((model.weight.detach(), record["loss"]))
    assert torch.allclose(trained[0][0], trained[1][0], rtol=1e-6)
    assert trained[0][1] == pytest.approx(trained[1][1], rel=1e-6)


def test_a_batch_without_samples_counts_nothing():
    inputs, targets = pairs(labels())
    batches = [(inputs[:0], targets[:0]), (inputs, targets)]
    model = nn.Linear(4, 3)
    whole = F.cross_entropy(model(inputs), targets).item()
    assert evaluate(model, batches, loss=F.cross_entropy)["loss"] == pytest.approx(whole)


@pytest.mark.parametrize("n", [None, -1, float("nan"), "24", torch.tensor(-2)])
def test_an_n_that_is_no_count_is_refused(n):
    def step(model, batch):
        return StepOut(F.cross_entropy(model(batch[0]), batch[1]), n)

    with pytest.raises(ArgumentError, match="StepOut 的 n 应是不小于 0"):
        evaluate(nn.Linear(4, 3), [pairs(labels())], step=step)
