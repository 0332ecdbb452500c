"""fit 断了再接着练，与一口气练完，一位不差：权重、优化器、放大倍数、平均、记录都比。"""

import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from companion.checkpoint import load_checkpoint, saves
from companion.data import TensorLoader
from companion.metrics import Accuracy
from companion.optim import EMA, PerStep
from companion.run import Run
from companion.train import evaluate, fit
from tests.companion.train.test_train import blobs, weights

EPOCHS, BATCHES = 4, 7


class Killed(BaseException):
    """没有人接得住的错，像进程被杀死。"""


class DyingAt:
    """全局第 ``at`` 步的前向里死掉。"""

    def __init__(self, at):
        self.at, self.calls = at, 0

    def __call__(self, outputs, targets):
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls == self.at:
                raise Killed
        return F.cross_entropy(outputs, targets)


def tensors(n):
    return [torch.cat(part) for part in zip(*blobs(n), strict=True)]


def make(kind, folder, loss=F.cross_entropy, **run):
    """全新的一份，像新开的进程；每样东西都要存才接得上：随机失活、动量、放大倍数、平均。"""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    valid = DataLoader(TensorDataset(*tensors(30)), 10)
    train = DataLoader(TensorDataset(*tensors(50)), 8, shuffle=True)
    more = {}
    if kind == "everything":
        train = TensorLoader(*tensors(50), batch_size=8, shuffle=True)
        halve = LambdaLR(optimizer, lambda step: 1 / (1 + 0.1 * step))
        more = {"scheduler": PerStep(halve), "ema": EMA(model, 0.9), "precision": "fp16"}
        more |= {"accumulate": 2, "clip_norm": 0.5, "patience": 50}
    if kind == "plateau":
        more = {"scheduler": ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)}
    how = {"loss": loss, "epochs": EPOCHS, "metrics": {"accuracy": Accuracy()}, "progress": False}
    more["run"] = Run(folder, **run)
    return {"model": model, "train": train, "valid": valid, "optimizer": optimizer} | how | more


def everything(arguments, history):
    ema = arguments.get("ema")
    return {
        "model": weights(arguments["model"]),
        "optimizer": arguments["optimizer"].state_dict(),
        "ema": ema.state_dict() if ema else None,
        "history": history.records,
        "random": torch.get_rng_state(),
    }


def assert_same_bits(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """``whole(kind)``：一口气练完的结果。"""

    @functools.cache
    def run(kind):
        arguments = make(kind, tmp_path_factory.mktemp(kind))
        return everything(arguments, fit(**arguments))

    return run


@pytest.mark.parametrize(
    ("kind", "save_every", "at"),
    [
        *(("simple", None, 17), ("simple", 3, 12), ("plateau", 3, 19)),
        *(("everything", None, 17), ("everything", 3, 1), ("everything", 1, 12)),
        ("everything", 2, 27),
    ],
)
def test_a_fit_that_died_goes_on_to_the_same_bits(whole, kind, save_every, at, tmp_path, capsys):
    dying = make(kind, tmp_path / "run", loss=DyingAt(at), save_every=save_every)
    with pytest.raises(Killed):
        fit(**dying)
    dying["run"].close()
    torch.manual_seed(99)
    again = make(kind, tmp_path / "run", resume=True, save_every=save_every)
    assert_same_bits(everything(again, fit(**again)), whole(kind))
    assert ("接着练" in capsys.readouterr().out) == (len(saves(tmp_path / "run")) > 0 and at > 3)


def test_saves_inside_an_epoch_fall_on_whole_windows(tmp_path):
    arguments = make("everything", tmp_path, save_every=1, keep=99)
    fit(**arguments)
    steps = [load_checkpoint(path)[1]["step"] for path in saves(tmp_path)]
    inside = {2, 4, 6, 7}  # 一轮 7 批，两批一窗；第 7 批是轮末
    assert {step - BATCHES * ((step - 1) // BATCHES) for step in steps} == inside


def test_on_epoch_false_stops_and_a_resumed_run_stays_stopped(tmp_path):
    first = make("simple", tmp_path)
    history = fit(**first, on_epoch=lambda record: record["epoch"] < 2)
    assert history["epoch"] == [1, 2]
    again = make("simple", tmp_path, resume=True)
    assert fit(**again).records == history.records
    torch.testing.assert_close(weights(again["model"]), weights(first["model"]), rtol=0, atol=0)


def test_more_epochs_may_be_asked_for_later(whole, tmp_path):
    fit(**make("everything", tmp_path) | {"epochs": 2})
    again = make("everything", tmp_path, resume=True)
    assert_same_bits(everything(again, fit(**again)), whole("everything"))


# —— 提前停


def worsening(folder, patience=2, **run):
    """验证集的标签是错的，训练得越好，验证损失越高。"""
    arguments = make("simple", folder, **run)
    valid = [(x, (y + 1) % 3) for x, y in blobs(30)]
    return arguments | {"valid": valid, "epochs": 20, "patience": patience, "progress": True}


def test_patience_stops_after_that_many_epochs_without_a_lower_loss(tmp_path, capsys):
    history = fit(**worsening(tmp_path))
    losses = history["valid_loss"]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 20
    words = f"valid_loss 连续 2 轮没有变低，停在第 {best + 3} 轮；最低的是第 {best + 1} 轮。"
    assert capsys.readouterr().out.splitlines()[-1] == words


def test_a_run_stopped_by_patience_stays_stopped(tmp_path):
    history = fit(**worsening(tmp_path))
    arguments = worsening(tmp_path, resume=True)
    assert fit(**arguments).records == history.records
    more = fit(**worsening(tmp_path, patience=4, resume=True))  # 更有耐心，就往下练
    assert len(more) == len(history) + 2
    assert more.records[: len(history)] == history.records


def test_the_best_weights_can_be_fetched_after_the_stop(tmp_path):
    seen = {}
    arguments = worsening(tmp_path)
    model = arguments["model"]
    arguments["on_epoch"] = lambda record: seen.update({record["epoch"]: weights(model)})
    history = fit(**arguments)
    arguments["run"].load_best()
    best, _ = history.best("valid_loss")
    torch.testing.assert_close(weights(model), seen[best], rtol=0, atol=0)


def test_the_best_weights_come_with_the_averages_that_were_judged(tmp_path):
    arguments = worsening(tmp_path)
    arguments["ema"] = EMA(arguments["model"], 0.5)
    history = fit(**arguments)
    arguments["run"].load_best()
    _, judged = history.best("valid_loss")
    with arguments["ema"].average():
        again = evaluate(arguments["model"], arguments["valid"], loss=F.cross_entropy)
    assert again["loss"] == judged
    assert evaluate(arguments["model"], arguments["valid"], loss=F.cross_entropy) != again


# —— 练坏了


def exploding(folder, at, **run):
    class Bad(DyingAt):
        def __call__(self, outputs, targets):
            self.calls += torch.is_grad_enabled()
            bad = torch.is_grad_enabled() and self.calls == at
            return F.cross_entropy(outputs, targets) * (math.nan if bad else 1)

    return make("simple", folder, loss=Bad(at), keep=99, **run)


@pytest.mark.parametrize("save_every", [None, 1])
@pytest.mark.parametrize("at", [10, 14])  # 第 2 轮的第 3 批、最后一批
def test_broken_weights_are_never_saved_and_the_last_good_save_is_named(save_every, at, tmp_path):
    arguments = exploding(tmp_path, at, save_every=save_every)
    words = rf"第 2 轮的平均训练损失是 nan，从第 {at - 7} 批起.*最后一份是 (.*)。"
    with pytest.raises(FloatingPointError, match=words) as caught:
        fit(**arguments)
    last = saves(tmp_path)[-1]
    assert str(last) in str(caught.value)
    for path in saves(tmp_path):
        state, info = load_checkpoint(path)
        assert info["step"] < at
        assert all(value.isfinite().all() for value in state["objects"]["model"].values())


def test_weights_broken_by_a_finite_loss_are_not_saved_either(tmp_path):
    class Sneaky(nn.Module):
        """损失有限，梯度是 inf：sqrt 在 0 处。"""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return x[:, :3] + self.weight.abs().sqrt()

    arguments = make("simple", tmp_path) | {"model": (model := Sneaky())}
    arguments["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.1)
    arguments["train"] = blobs(8, 8)  # 一轮只有一批：损失还看不出来
    with pytest.raises(FloatingPointError, match="参数应是有限的数"):
        fit(**arguments)
    assert saves(tmp_path) == []


def test_the_hyper_parameters_of_fit_are_written_down(tmp_path):
    fit(**make("everything", tmp_path))
    config = load_checkpoint(saves(tmp_path)[-1])[1]["config"]
    expected = {"epochs": EPOCHS, "precision": "fp16", "accumulate": 2, "clip_norm": 0.5}
    assert expected.items() <= config.items()
    assert config["patience"] == 50
