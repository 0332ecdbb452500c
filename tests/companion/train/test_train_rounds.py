"""按更新次数练：数据流、几次更新验证一次；断了接着练；验证出错时这一轮不丢。"""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from companion.checkpoint import saves
from companion.data import TensorLoader
from companion.errors import ArgumentError, CompanionError, DataError
from companion.metrics import AUC, Accuracy
from companion.optim import PerStep
from companion.run import Run
from companion.train import StepOut, fit

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3


def train(size=10):
    return TensorLoader(X, Y, batch_size=size, shuffle=True)


def valid():
    return TensorLoader(X, Y, batch_size=40)


def go(data=None, valid=None, run=None, **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = {"loss": F.cross_entropy, "progress": False, "run": run} | changes
    data = train() if data is None else data
    history = fit(model, data, valid, optimizer=optimizer, **options)
    return history, model


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Stream(IterableDataset):
    """没有尽头：第 k 批是 k 定下的。"""

    def __iter__(self):
        for k in itertools.count():
            g = torch.Generator().manual_seed(k)
            yield torch.randn(10, 6, generator=g), torch.randint(3, (10,), generator=g)


def stream():
    return DataLoader(Stream(), batch_size=None)


# —— 练多少


@pytest.mark.parametrize("accumulate", [1, 2])
def test_as_many_updates_as_some_epochs_have_give_the_same_bits(accumulate):
    whole = go(epochs=3, accumulate=accumulate)[1]
    steps = go(max_steps=3 * 4 // accumulate, accumulate=accumulate)[1]
    assert torch.equal(weights(whole), weights(steps))


@pytest.mark.parametrize("valid_every", [1, 3, 4, 5, 100])
def test_how_often_it_is_validated_changes_no_bit(valid_every):
    plain = go(max_steps=10)[1]
    history, model = go(max_steps=10, valid_every=valid_every, valid=valid())
    assert torch.equal(weights(plain), weights(model))
    assert len(history) == -(-10 // valid_every)
    assert all(loss is not None for loss in history["valid_loss"])


def test_without_valid_every_a_round_is_a_pass_over_the_data():
    assert len(go(max_steps=10)[0]) == 3  # 一遍 4 批：4 + 4 + 2


def test_epochs_and_valid_every_train_the_same_number_of_batches():
    history, model = go(epochs=2, valid_every=3)
    assert len(history) == 3  # 8 批：3 + 3 + 2
    assert torch.equal(weights(model), weights(go(epochs=2)[1]))


def test_steps_count_updates_not_batches():
    rates = []

    def curve(k):
        rates.append(k)
        return 1.0

    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = PerStep(torch.optim.lr_scheduler.LambdaLR(optimizer, curve))
    how = {"optimizer": optimizer, "loss": F.cross_entropy, "scheduler": scheduler}
    fit(model, train(), max_steps=5, accumulate=3, progress=False, **how)
    assert max(rates) == 5


def test_an_endless_stream_goes_on_where_the_last_round_stopped():
    seen = []

    def step(model, batch):
        seen.append(batch[0][0, 0].item())
        return StepOut(F.cross_entropy(model(batch[0]), batch[1]), 10)

    go(stream(), loss=None, step=step, max_steps=7, valid_every=2)
    assert seen == [x[0, 0].item() for x, _ in itertools.islice(iter(Stream()), 7)]


class Samples(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Unsized:
    """没有长度的采样器。"""

    def __iter__(self):
        return iter(range(len(X)))


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(Samples(), batch_size=10),
        lambda: DataLoader(TensorDataset(X, Y), batch_size=10, sampler=Unsized()),
    ],
)
def test_a_loader_that_cannot_say_its_length_trains_like_one_that_can(loader):
    sized = DataLoader(TensorDataset(X, Y), batch_size=10)
    for rounds in ({"epochs": 2}, {"max_steps": 6}):
        assert torch.equal(weights(go(loader(), **rounds)[1]), weights(go(sized, **rounds)[1]))


def test_an_endless_stream_without_a_number_of_steps_is_told_what_to_give(capsys):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(stream(), loss=None, step=stop, epochs=1)
    assert "max_steps=" in capsys.readouterr().out
    with pytest.raises(ArgumentError, match="valid_every= 和 epochs="):
        go(stream(), epochs=1, valid_every=2)


def test_a_generator_that_ends_too_soon_says_so():
    batches = ((X[:10], Y[:10]) for _ in range(3))
    with pytest.raises(DataError, match="train 应能一遍一遍地走"):
        go(batches, max_steps=5)


# —— 断了接着练


@pytest.mark.parametrize("stop", [1, 3, 4, 6, 7, 9])
def test_a_run_by_steps_broken_at_any_step_ends_with_the_same_bits(tmp_path, stop):
    whole = go(max_steps=10, valid_every=3, valid=valid())
    calls = []

    def loss(outputs, targets):
        if len(calls) == stop:
            raise RuntimeError("断电")
        if outputs.requires_grad:
            calls.append(1)
        return F.cross_entropy(outputs, targets)

    class Counted(nn.Module):
        def forward(self, outputs, targets):
            return loss(outputs, targets)

    def step(model, batch):
        out = model(batch[0])
        return StepOut(loss(out, batch[1]), len(batch[1]), (out, batch[1]))

    options = {"max_steps": 10, "valid_every": 3, "valid": valid()}
    with pytest.raises(RuntimeError, match="断电"):
        go(run=Run(tmp_path, save_every=1), loss=None, step=step, **options)
    again = go(run=Run(tmp_path, resume=True), **options)
    assert torch.equal(weights(whole[1]), weights(again[1]))
    assert again[0].records == whole[0].records


def test_more_steps_later_are_the_steps_that_one_long_run_takes(tmp_path):
    for steps in (4, 6, 11):
        again = go(max_steps=steps, valid_every=4, run=Run(tmp_path, resume=True))[1]
    assert torch.equal(weights(again), weights(go(max_steps=11)[1]))


def test_a_finished_run_by_steps_has_nothing_left_to_do(tmp_path, capsys):
    go(max_steps=5, valid_every=2, run=Run(tmp_path))
    go(max_steps=5, valid_every=2, run=Run(tmp_path, resume=True))
    out = capsys.readouterr().out
    assert "没有要练的" in out
    assert "不同" not in out


def test_a_plain_data_loader_by_steps_says_that_it_cannot_resume_exactly(tmp_path, capsys):
    data = DataLoader(TensorDataset(X, Y), batch_size=10, shuffle=True)
    run = Run(tmp_path)
    go(data, max_steps=6, valid_every=2, run=run)
    assert "DataLoader" in run.inexact


def test_progress_names_the_round_and_how_many_there_are(capsys):
    go(max_steps=10, valid_every=4, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]


# —— 各批之后出错


class Broken:
    """一走就坏的验证集。"""

    def __len__(self):
        return 1

    def __iter__(self):
        raise OSError("坏了的样本")


class Fails:
    def __init__(self):
        self.reset()

    def update(self, outputs, targets): ...
    def reset(self): ...
    def compute(self):
        raise ValueError("算不出来")


def failing(record):
    raise ZeroDivisionError


AFTER = {
    "验证集坏了": {"valid": Broken()},
    "指标没有定义": {"valid": [(X[:6], Y[:6] * 0)], "metrics": {"auc": AUC()}},
    "on_epoch 出错": {"on_epoch": failing},
}


@pytest.mark.parametrize("case", AFTER)
def test_an_error_after_the_batches_keeps_the_epoch_and_resuming_repeats_only_what_came_after(
    case, tmp_path
):
    good = {"epochs": 3, "valid": valid()}
    if "metrics" in AFTER[case]:
        good["metrics"] = {"auc": AUC()}
    whole = go(run=Run(tmp_path / "whole"), **good)
    with pytest.raises((OSError, CompanionError, ZeroDivisionError)):
        go(run=Run(tmp_path / "cut"), **good | AFTER[case])
    kept = saves(tmp_path / "cut")
    assert [path.name for path in kept] == ["save-00001-step-4"]
    again = go(run=Run(tmp_path / "cut", resume=True), **good)
    assert torch.equal(weights(whole[1]), weights(again[1]))
    assert again[0].records == whole[0].records


def test_a_scheduler_does_not_step_twice_when_on_epoch_fails(tmp_path):
    def rates(folder, **changes):
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        options = {"loss": F.cross_entropy, "epochs": 3, "progress": False} | changes
        run = Run(folder, resume=True)
        return fit(model, train(), optimizer=optimizer, scheduler=scheduler, run=run, **options)[
            "lr"
        ]

    with pytest.raises(ZeroDivisionError):
        rates(tmp_path, on_epoch=failing)
    assert rates(tmp_path) == [1.0, 0.5, 0.25]


def test_metrics_of_a_kept_epoch_come_back_whole(tmp_path):
    good = {"epochs": 1, "metrics": {"accuracy": Accuracy()}}
    whole = go(**good)[0]
    with pytest.raises(OSError, match="坏了的样本"):
        go(valid=Broken(), run=Run(tmp_path), **good)
    again = go(run=Run(tmp_path, resume=True), **good)[0]
    assert again.records == whole.records
