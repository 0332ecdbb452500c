"""Run 的记录、最好的一轮、交给它的对象：外面的人试出来的错。"""

import copy
import csv
import inspect
import json
import os
import random
import shutil

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
from companion.run import _given as given
from companion.run._sums import LogSums, averages
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
            [3.0, 2.0],
            [1, 2, 3],
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
    sums, odd = LogSums(), object()
    sums.add(1, {"odd": odd}, only_scalars=False, stored=False)
    assert averages(sums) == {"odd": odd}


# —— 最好的一轮


@pytest.mark.parametrize(
    ("columns", "advice"),
    [
        (["loss", "val_loss"], 'best="val_loss"'),
        (["loss", "eval_accuracy", "test_loss"], 'best="test_loss"'),
        (["loss", "valid_accuracy"], 'best="valid_accuracy", mode="max"'),
    ],
)
def test_another_column_than_valid_loss_is_named_once(tmp_path, capsys, columns, advice):
    parts = job()
    train(Run(tmp_path, **parts), parts, 3, **{name: [1.0, 2.0, 3.0] for name in columns})
    assert capsys.readouterr().out == (
        "没有记 valid_loss（best= 的默认列），最好的一轮没有另外留着。"
        f"想留最好的一轮，写 Run(…, {advice})。\n"
    )


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        (["loss"], {}),
        (["train_loss", "train_accuracy"], {}),
        (["d_loss", "policy_loss", "value_loss"], {}),
        (["loss", "valid_loss", "test_loss"], {}),
        (["val_loss"], {"best": None}),
    ],
)
def test_a_run_that_has_its_column_or_judges_nothing_is_silent(tmp_path, capsys, columns, options):
    parts = job()
    logged = {name: [1.0, 2.0] for name in columns}
    train(Run(tmp_path, **options, **parts), parts, 2, **logged)
    assert capsys.readouterr().out == ""


def test_a_best_epoch_that_was_not_kept_says_why_and_what_to_do(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts, 5, val_loss=[1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(RunError) as error:
        Run(tmp_path, resume=True, **parts).load_best()
    assert str(error.value).endswith(
        "请从第一轮起就把 best= 写成其中一列，或 run.log 记下它：没写的时候练的，只留最近几个存档。"
    )
    with pytest.raises(CheckpointError) as error:
        Run(tmp_path, resume=True, best="val_loss", **parts).load_best()
    assert str(error.value) == (
        "按 val_loss，第 1 轮最好，它的存档却没有了，或者坏了：练它的时候 best= 若不是 "
        'val_loss，就不会另外留着。写着 best="val_loss" 往下练，更好的一轮会留住；'
        "非要这一轮，请换一个目录从头练。"
    )


def averaged(folder, **changes):
    """用 fit 和 EMA 练两轮。"""
    own = job()
    ema = EMA(own["model"], 0.5)
    run = Run(folder, **own)
    more = {"loss": nn.CrossEntropyLoss(), "epochs": 2, "progress": False, "run": run}
    fit(own["model"], BATCHES, BATCHES, optimizer=own["optimizer"], ema=ema, **more)
    return run, own["model"], ema


def test_load_best_says_that_the_average_was_judged_and_how_to_use_it(tmp_path, capsys):
    run, _, _ = averaged(tmp_path)
    assert capsys.readouterr().out == ""
    run.load_best()
    run.load_best()
    assert capsys.readouterr().out == (
        "存档里有 EMA（ema）：fit 评估、定最好的一轮，用的是它的平均；模型装上的是没有平均的权重。"
        "要用平均：with ema.average(): …。\n"
    )


def test_load_best_says_that_the_average_was_not_given_and_the_advice_works(tmp_path, capsys):
    run, model, ema = averaged(tmp_path)
    run.load_best()
    with ema.average():
        expected = weights(model)
    run.close()
    model = job()["model"]
    run = Run(tmp_path, resume=True, model=model)
    capsys.readouterr()
    run.load_best()
    assert capsys.readouterr().out == (
        "存档里有 EMA（ema）：fit 评估、定最好的一轮，用的是它的平均；模型装上的是没有平均的权重。"
        "要用平均：ema = EMA(model)，Run(…, ema=ema)，再 load_best()，然后 "
        "with ema.average(): …。\n"
    )
    ema = EMA(model)
    Run(tmp_path, resume=True, model=model, ema=ema).load_best()
    with ema.average():
        assert same(weights(model), expected)


def test_load_best_without_an_average_is_silent(tmp_path, capsys):
    parts = job()
    train(Run(tmp_path, **parts), parts, 2, valid_loss=[1.0, 2.0]).load_best()
    assert capsys.readouterr().out == ""


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
BLIND = {"Adafactor", "LBFGS"}  # 状态的形状与参数的不同


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


@pytest.mark.parametrize("kind", OPTIMIZERS.keys() - BLIND)
def test_parameters_in_another_order_are_refused_before_anything_is_loaded(tmp_path, kind):
    one_epoch(tmp_path, optimized(kind, 1))
    own = optimized(kind, -1)
    fresh = weights(own["model"])
    with pytest.raises(
        MismatchError, match=r"optimizer 第 1 个参数的 \w+ 应与参数的形状相同，存档里是 \(3, 4\)"
    ):
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


GENERATORS = "请包成有这两个方法的对象；或用 torch、random、np.random 全局的，它们 Run 自己会存。"


@pytest.mark.parametrize(
    ("objects", "advice"),
    [
        ({"models": [nn.Linear(1, 1)] * 2}, "请各给一个名字：Run(…, models_0=…, models_1=…)。"),
        ({"nets": {"g": nn.Linear(1, 1)}}, "请各给一个名字：Run(…, g=…)。"),
        ({"save_evry": 3}, "是不是想写 save_every=？普通的数写进 config=。"),
        ({"resum": True}, "是不是想写 resume=？普通的数写进 config=。"),
        ({"width": 3}, "普通的数写进 config=。"),
        ({"g": torch.Generator()}, GENERATORS),
        ({"rng": np.random.default_rng(0)}, GENERATORS),
        ({"rng": np.random.RandomState(0)}, GENERATORS),
        ({"rng": random.Random(0)}, GENERATORS),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_object_without_a_state_is_told_how_to_give_it(tmp_path, objects, advice):
    with pytest.raises(ArgumentError) as error:
        Run(tmp_path, **objects)
    assert str(error.value).endswith(f" 没有。{advice}")


def test_the_names_that_may_be_mistyped_are_those_of_run():
    named = inspect.signature(Run).parameters.values()
    assert tuple(p.name for p in named if p.kind is p.KEYWORD_ONLY) == given._OPTIONS


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
@pytest.mark.parametrize("every", [None, 2])
def test_a_directory_deleted_in_mid_run_is_made_again_and_locked(tmp_path, capsys, every):
    folder = tmp_path / "run"
    run = Run(folder, save_every=every)
    for epoch in run.epochs(3):
        for _ in run.batches(BATCHES):
            pass
        run.log(valid_loss=float(epoch))
        if epoch == 2:
            shutil.rmtree(folder)
    assert capsys.readouterr().out == (
        f"{folder}（或其中的 lock）在训练中被删掉了：已重建，接着往里存；删掉的存档回不来了。\n"
    )
    assert (folder / "lock").exists()
    assert len((folder / "history.csv").read_text().splitlines()) == 4
    assert verify(saves(folder)[-1])["epoch"] == 3
    run.close()


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
