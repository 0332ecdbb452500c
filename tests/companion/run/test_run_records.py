"""Run 的记录、最好的一轮、交给它的对象：外面的人试出来的错。"""

import copy
import csv
import json
import os
import random
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from companion.checkpoint import saves, verify
from companion.errors import ArgumentError, CheckpointError, MismatchError, RunError, ShapeError
from companion.optim import EMA, LAMB
from companion.repro import seed_everything
from companion.run import Run
from companion.run._log import Log
from companion.train import fit

G = torch.Generator().manual_seed(0)
INPUTS, TARGETS = torch.randn(12, 4, generator=G), torch.randint(3, (12,), generator=G)
BATCHES = list(zip(INPUTS.split(4), TARGETS.split(4), strict=True))


def job(lr=0.1, optimizer=torch.optim.AdamW):
    seed_everything(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    return {"model": model, "optimizer": optimizer(model.parameters(), lr=lr)}


def train(run, parts, epochs=1, batches=BATCHES, **logged):
    """``logged``：每轮之后记下的数，一列一个列表。"""
    for epoch in run.epochs(epochs):
        for inputs, targets in run.batches(batches):
            parts["optimizer"].zero_grad()
            F.cross_entropy(parts["model"](inputs), targets).backward()
            parts["optimizer"].step()
        run.log(**{name: values[epoch - 1] for name, values in logged.items()})
    return run


def weights(model):
    return copy.deepcopy(model.state_dict())


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# —— 记下的值


SCALARS = [
    np.float32(0.5),
    np.int64(1),
    np.array(0.5),
    np.array([[0.5]]),
    [0.5],
    torch.tensor([0.5]),
    np.bool_(True),
]


@pytest.mark.parametrize("value", SCALARS, ids=repr)
def test_one_number_in_any_wrapping_is_averaged(tmp_path, value):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        for _ in run.batches([0, 1]):
            run.log(x=value, n=np.int64(3))
        run.log(y=value)
    expected = float(value[0] if isinstance(value, list) else value.item())
    assert run.history.records == [{"epoch": 1, "x": expected, "y": expected}]


KEPT = {
    "confusion": np.eye(2),
    "list": [1, 2.5],
    "pair": (3.0, 2.0),
    "three": (1, 2, 3),
    "words": "甲",
    "matrix": torch.eye(2),
    "nothing": None,
    "by_class": {"cat": 0.5},
}


def test_what_is_not_a_number_is_kept_stored_and_restored(tmp_path):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        run.log(loss=1.0, **KEPT)
    run.close()
    first, restored = run.history.records[0], Run(tmp_path, resume=True).history.records[0]
    assert isinstance(first["confusion"], np.ndarray)
    for record in (first, restored):
        assert torch.equal(torch.as_tensor(record["confusion"]), torch.eye(2).double())
        assert torch.equal(record["matrix"], torch.eye(2))
        assert (record["list"], record["pair"], record["three"]) == (
            [1, 2.5],
            (3.0, 2.0),
            (1, 2, 3),
        )
        assert (record["words"], record["nothing"]) == ("甲", None)
        assert record["by_class"] == {"cat": 0.5}
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"epoch": "1", "loss": "1.0", "words": "甲"}]


def test_a_kept_array_is_a_copy_without_a_graph(tmp_path):
    run, counts, weight = Run(tmp_path), np.zeros(2), torch.ones(2, requires_grad=True)
    for _ in run.epochs(2):
        counts += 1
        run.log(counts=counts, weight=weight)
    assert [record["counts"].tolist() for record in run.history] == [[1, 1], [2, 2]]
    assert not run.history["weight"][0].requires_grad


@pytest.mark.parametrize(
    ("value", "actual"),
    [
        (np.ones(3), r"形状是 \(3,\)"),
        (np.ones(0), r"形状是 \(0,\)"),
        (torch.ones(2), r"形状是 \(2,\)"),
        ([1, 2], "是 list"),
        ((1, 2), "是 tuple"),
        ({"a": 1}, "是 dict"),
        (object(), "是 object"),
    ],
    ids=repr,
)
def test_inside_the_batches_only_numbers_may_be_logged(tmp_path, value, actual):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        for _ in run.batches([0]):
            with pytest.raises(ShapeError, match=rf"run\.log 的 per_class 应是标量，实际{actual}"):
                run.log(per_class=value)
    assert run.history.records == [{"epoch": 1}]


@pytest.mark.parametrize("n", [torch.ones(2), np.ones(2), "3", None])
def test_the_weight_must_be_one_number(tmp_path, n):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        for _ in run.batches([0]):
            with pytest.raises(ShapeError, match=r"run\.log 的 n 应是标量"):
                run.log(n=n, loss=1.0)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["a", "b"]), [object()]], ids=repr)
def test_what_cannot_be_stored_is_refused_by_name_when_it_is_logged(tmp_path, value):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        with pytest.raises(ArgumentError, match=r"^run\.log 的 odd.* 应是张量、数、字符串"):
            run.log(odd=value)
        run.log(good=1)
    assert run.history.records == [{"epoch": 1, "good": 1.0}]
    assert verify(saves(tmp_path)[-1])["epoch"] == 1


def test_in_memory_anything_may_be_kept():
    sums, odd = Log(None), object()
    sums.add(1, {"odd": odd}, inside=False)
    sums.close_epoch(1)
    assert sums.history.records == [{"epoch": 1, "odd": odd}]


# —— 最好的一轮


def test_a_best_epoch_that_was_not_kept_says_why_and_what_to_do(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts, 5, val_loss=[1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(RunError, match="请从第一轮起就把 best= 写成其中一列"):
        Run(tmp_path, resume=True, **parts).load_best()
    with pytest.raises(CheckpointError, match="按 val_loss，第 1 轮最好，它的存档却没有了"):
        Run(tmp_path, resume=True, best="val_loss", **parts).load_best()


def test_load_best_brings_the_average_too(tmp_path):
    own = job()
    ema, run = EMA(own["model"], 0.5), Run(tmp_path, **own)
    more = {"loss": nn.CrossEntropyLoss(), "epochs": 2, "progress": False, "run": run}
    fit(own["model"], BATCHES, BATCHES, optimizer=own["optimizer"], ema=ema, **more)
    run.load_best()
    with ema.average():
        expected = weights(own["model"])
    run.close()
    model = job()["model"]
    ema = EMA(model)
    Run(tmp_path, resume=True, model=model, ema=ema).load_best()
    with ema.average():
        assert same(weights(model), expected)


# —— 优化器


OPTIMIZERS = {
    "AdamW": (torch.optim.AdamW, {}),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True}),
    "SGD": (torch.optim.SGD, {"momentum": 0.9}),
    "RMSprop": (torch.optim.RMSprop, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "Adadelta": (torch.optim.Adadelta, {}),
    "Adamax": (torch.optim.Adamax, {}),
    "NAdam": (torch.optim.NAdam, {}),
    "Rprop": (torch.optim.Rprop, {}),
    "ASGD": (torch.optim.ASGD, {}),
    "Adafactor": (torch.optim.Adafactor, {}),
    "LBFGS": (torch.optim.LBFGS, {}),
    "LAMB": (LAMB, {}),
}


def optimized(kind, order):
    seed_everything(0)
    model = nn.Linear(4, 3)
    make, options = OPTIMIZERS[kind]
    return {
        "model": model,
        "optimizer": make([*model.parameters()][::order], lr=0.1, **options),
    }


def one_epoch(folder, own):
    run = Run(folder, resume=True, **own)
    for _ in run.epochs(run.epoch + 1):
        for inputs, targets in run.batches(BATCHES):

            def closure(inputs=inputs, targets=targets):
                own["optimizer"].zero_grad()
                loss = F.cross_entropy(own["model"](inputs), targets)
                loss.backward()
                return loss

            own["optimizer"].step(closure)
    run.close()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_parameters_in_the_same_order_are_accepted(tmp_path, kind):
    one_epoch(tmp_path, optimized(kind, 1))
    one_epoch(tmp_path, optimized(kind, 1))
    assert verify(saves(tmp_path)[-1])["epoch"] == 2


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_parameters_in_another_order_are_refused_before_anything_is_loaded(tmp_path, kind):
    one_epoch(tmp_path, optimized(kind, 1))
    own = optimized(kind, -1)
    fresh = weights(own["model"])
    with pytest.raises(MismatchError, match=r"存档里是 model\.weight，现在是 model\.bias"):
        Run(tmp_path, resume=True, **own)
    assert same(weights(own["model"]), fresh)
    assert own["optimizer"].state_dict()["state"].keys() <= {0, 1}


def test_an_optimizer_from_elsewhere_may_shape_its_state_as_it_likes(tmp_path):
    class Projected(torch.optim.Optimizer):
        """像 GaLore：名字也叫 exp_avg，形状却比参数小。"""

        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["exp_avg"] = torch.zeros(2)

    for epoch in (1, 2):
        own = job(optimizer=Projected)
        assert train(Run(tmp_path, resume=True, **own), own, epoch).epoch == epoch


# —— 交给 Run 的东西


@pytest.mark.parametrize(
    "objects",
    [
        {"models": [nn.Linear(1, 1)] * 2},
        {"nets": {"g": nn.Linear(1, 1)}},
        {"counts": {"seen": np.array(["a"])}},
        {"width": 3},
        {"act": len},
    ],
    ids=lambda objects: next(iter(objects)),
)
def test_an_object_without_a_state_is_refused_by_name_when_it_is_handed_over(tmp_path, objects):
    with pytest.raises(ArgumentError, match=next(iter(objects))):
        Run(tmp_path, **objects)


HELD = {
    "torch": lambda: torch.Generator().manual_seed(3),
    "python": lambda: random.Random(3),
    "numpy": lambda: np.random.default_rng(3),
    "old numpy": lambda: np.random.RandomState(3),
    "dict": lambda: {"seen": 0, "names": ["甲"], "sum": torch.zeros(2)},
    "counter": lambda: Counter("aab"),
    "list": lambda: [0.5],
    "extra state": lambda: Extra(),
}


class Extra(nn.Linear):
    """带着 ``get_extra_state`` 的模块。"""

    def __init__(self):
        super().__init__(1, 1)
        self.calls = 0

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def use(thing):
    """改一改 ``thing``，返回改完的样子。"""
    if isinstance(thing, torch.Generator):
        return torch.rand(2, generator=thing).tolist()
    if isinstance(thing, Counter):
        thing["b"] += 1
        return dict(thing)
    if isinstance(thing, dict):
        thing["seen"] += 1
        thing["sum"] += 1
        return str(thing)
    if isinstance(thing, list):
        thing.append(thing[-1] * 2)
        return list(thing)
    if isinstance(thing, Extra):
        thing.calls += 1
        return thing.calls
    return [thing.random() if hasattr(thing, "random") else thing.rand() for _ in range(2)]


@pytest.mark.parametrize("kind", HELD)
def test_generators_counters_and_extra_state_go_on_where_they_were(tmp_path, kind):
    def go(folder, totals):
        seen = []
        for total in totals:
            thing = HELD[kind]()
            for _ in Run(folder, resume=True, thing=thing).epochs(total):
                seen.append(use(thing))
        return seen

    assert go(tmp_path / "a", [3]) == go(tmp_path / "b", [1, 2, 3])


def test_a_loss_with_parameters_is_saved_with_the_model_by_fit(tmp_path):
    class Centres(nn.Module):
        def __init__(self):
            super().__init__()
            self.centres = nn.Parameter(torch.randn(3, 3))

        def forward(self, outputs, targets):
            return F.cross_entropy(outputs @ self.centres, targets)

    def go(folder, totals):
        for total in totals:
            seed_everything(0)
            model, loss = nn.Linear(4, 3), Centres()
            optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=0.1)
            how = {"optimizer": optimizer, "epochs": total, "progress": False}
            fit(model, BATCHES, loss=loss, run=Run(folder, resume=True), **how)
        return weights(model) | {"centres": loss.centres.detach().clone()}

    assert same(go(tmp_path / "a", [4]), go(tmp_path / "b", [2, 4]))


def test_frozen_and_thawed_parameters_are_restored_and_said(tmp_path, capsys):
    def go(folder, totals):
        for total in totals:
            own = job()
            own["model"][0].requires_grad_(False)
            run = Run(folder, resume=True, **own)
            for epoch in run.epochs(total):
                for batch in run.batches(BATCHES):
                    own["optimizer"].zero_grad()
                    F.cross_entropy(own["model"](batch[0]), batch[1]).backward()
                    own["optimizer"].step()
                if epoch == 1:
                    own["model"][0].requires_grad_(True)
        return weights(own["model"])

    straight = go(tmp_path / "a", [4])
    capsys.readouterr()
    assert same(go(tmp_path / "b", [2, 4]), straight)
    assert "model.0.weight 的 requires_grad 照存档改成了 True" in capsys.readouterr().out


def test_a_group_added_later_is_asked_for_by_name(tmp_path):
    own = job()
    own["optimizer"] = torch.optim.SGD(own["model"][1].parameters(), lr=0.1)
    for _ in Run(tmp_path, **own).epochs(1):
        own["optimizer"].add_param_group({"params": list(own["model"][0].parameters())})
    own = job()
    own["optimizer"] = torch.optim.SGD(own["model"][1].parameters(), lr=0.1)
    with pytest.raises(
        MismatchError, match=r"每组有 \[2, 2\] 个，现在有 \[2\] 个.*add_param_group"
    ):
        Run(tmp_path, resume=True, **own)


# —— 目录


def test_run_json_of_a_run_that_was_thrown_away_is_replaced(tmp_path):
    own = job(lr=0.1)
    train(Run(tmp_path, config={"tag": "旧"}, **own), own).close()
    for path in saves(tmp_path):
        shutil.rmtree(path)
    own = job(lr=0.5)
    train(Run(tmp_path, resume=True, **own), own, 2)
    config = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["config"]
    assert (config["lr"], "tag" in config) == (0.5, False)


@pytest.mark.skipif(os.name == "nt", reason="Windows 不让删开着的文件")
def test_the_run_in_a_directory_made_again_continues_exactly(tmp_path):
    straight, own = job(), job()
    train(Run(tmp_path / "straight", **straight), straight, 3)
    folder = tmp_path / "run"
    run = train(Run(folder, **own), own, 1)
    shutil.rmtree(folder)
    train(run, own, 2).close()
    own = job()
    train(Run(folder, resume=True, **own), own, 3)
    assert same(weights(own["model"]), weights(straight["model"]))
