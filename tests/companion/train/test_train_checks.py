"""第一步之前就看得出的错：配不上的模型、优化器、调度器，给错了的参数。"""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader, TensorDataset

from companion.data import TensorLoader, loaders
from companion.errors import ArgumentError, CompanionError, DataError, NonFiniteError
from companion.metrics import Accuracy, ConfusionMatrix
from companion.optim import EMA, PerStep, one_cycle, warmup_cosine
from companion.run import Run
from companion.train import StepOut, dry_run, evaluate, fit, train_epoch

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3


def train(size=10):
    return TensorLoader(X, Y, batch_size=size)


def go(model=None, data=None, valid=None, make=None, schedule=None, lr=0.1, **changes):
    """跑 fit；``schedule(optimizer)`` 是调度器。返回 (记录, 模型, 优化器)。"""
    torch.manual_seed(0)
    model = nn.Linear(6, 3) if model is None else model
    optimizer = (make or (lambda m: torch.optim.SGD(m.parameters(), lr=lr)))(model)
    options = {"loss": F.cross_entropy, "epochs": 2, "progress": False} | changes
    if schedule is not None:
        options["scheduler"] = schedule(optimizer)
    data = train() if data is None else data
    return fit(model, data, valid, optimizer=optimizer, **options), model, optimizer


# —— 模型和优化器


def test_a_layer_replaced_after_the_optimizer_was_built_is_noticed():
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[1] = nn.Linear(8, 3)
    with pytest.raises(ValueError, match=r"应都在 optimizer 里，实际有 2 个不在.*1\.weight"):
        go(model, make=lambda m: optimizer)


def test_a_layer_added_after_the_optimizer_was_built_is_noticed():
    model = nn.Sequential(nn.Linear(6, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.append(nn.Linear(8, 3))
    with pytest.raises(ValueError, match="应都在 optimizer 里"):
        train_epoch(model, train(), loss=F.cross_entropy, optimizer=optimizer)


def test_parts_left_out_on_purpose_are_frozen_and_then_accepted():
    model = nn.Sequential(nn.Linear(6, 8).requires_grad_(False), nn.Linear(8, 3))
    before = copy.deepcopy(model.state_dict())
    go(model, make=lambda m: torch.optim.SGD(m[1].parameters(), lr=0.1))
    after = model.state_dict()
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["1.weight"], before["1.weight"])


def test_parameters_of_something_else_may_be_trained_beside_the_model():
    extra = nn.Linear(3, 3)

    def step(model, batch):
        return StepOut(F.cross_entropy(extra(model(batch[0])), batch[1]), len(batch[1]))

    before = extra.weight.detach().clone()
    both = lambda m: torch.optim.SGD([*m.parameters(), *extra.parameters()], lr=0.1)  # noqa: E731
    go(make=both, loss=None, step=step)
    assert not torch.equal(extra.weight, before)


def norm_net():
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))


@pytest.mark.parametrize("whole", [False, True], ids=["只有它在 eval", "整个模型刚预测完"])
def test_a_batch_norm_frozen_in_eval_keeps_its_statistics(whole):
    model = norm_net()
    model[1].requires_grad_(False).eval()
    if whole:
        model.eval()
    before = model[1].running_mean.clone()
    go(
        model,
        valid=train(),
        make=lambda m: torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.1),
    )
    assert torch.equal(model[1].running_mean, before)
    assert not model[1].training
    assert model[2].training


def test_a_batch_norm_put_in_eval_alone_keeps_its_statistics_while_its_scale_is_trained():
    model = norm_net()
    model[1].eval()
    before = model[1].running_mean.clone(), model[1].weight.detach().clone()
    go(model)
    assert torch.equal(model[1].running_mean, before[0])
    assert not torch.equal(model[1].weight, before[1])


def test_a_model_in_eval_is_trained_in_train_mode_as_ever():
    model = norm_net().eval()
    before = model[1].running_mean.clone()
    go(model)
    assert all(module.training for module in model.modules())
    assert not torch.equal(model[1].running_mean, before)


def test_a_last_batch_of_one_sample_is_named_before_the_first_step_when_batch_norm_cannot_take_it():
    data = TensorDataset(X, Y)
    for bad in (
        loaders((X, Y), batch_size=13),
        DataLoader(data, batch_size=13),
        loaders([(x, int(y)) for x, y in zip(X, Y, strict=True)], batch_size=13),
    ):
        model = norm_net()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=r"批归一化要至少两个样本.*drop_last"):
            go(model, bad)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    go(norm_net(), loaders((X, Y), batch_size=13, drop_last=True))
    image = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 2, 1),
        nn.BatchNorm2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    go(image, loaders((X, Y), batch_size=13))  # 每个通道不止一个数，torch 算得了


def test_a_batch_of_one_sample_anywhere_is_explained_when_batch_norm_meets_it():
    model, one = norm_net(), (X[:1], Y[:1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ways = {"loss": F.cross_entropy}, {"step": lambda m, b: StepOut(m(b[0]).mean(), 1)}
    for way in ways:
        for batches in ([one], [(X, Y), one], DataLoader(TensorDataset(X, Y), batch_size=13)):
            with pytest.raises(DataError, match=r"批归一化要至少两个样本，实际.*drop_last"):
                train_epoch(model, batches, optimizer=optimizer, **way)
    with pytest.raises(DataError, match="批归一化要至少两个样本"):
        go(model, [(X, Y), one])
    with pytest.raises(ValueError, match="别的错"):
        train_epoch(model, [one], optimizer=optimizer, step=fails)
    assert evaluate(model, [one], loss=F.cross_entropy)["loss"] > 0


def fails(model, batch):
    raise ValueError("别的错")


@pytest.mark.parametrize("given", [nn.Linear, norm_net, lambda x: x, "Net", None])
def test_what_is_no_model_is_refused_by_name(given):
    optimizer = torch.optim.SGD(norm_net().parameters(), lr=0.1)
    for use in (
        lambda: EMA(given),
        lambda: train_epoch(given, [(X, Y)], loss=F.cross_entropy, optimizer=optimizer),
        lambda: evaluate(given, [(X, Y)], loss=F.cross_entropy),
    ):
        with pytest.raises(ArgumentError, match=r"model 应是 nn\.Module，实际是.*请|加括号"):
            use()


def test_a_model_compiled_twice_is_a_function_and_is_told_so():
    twice = torch.compile(torch.compile(norm_net()))
    if isinstance(twice, nn.Module):
        pytest.skip("这个版本的 torch 套两次还是模型")
    with pytest.raises(ArgumentError, match=r"实际是 function。torch\.compile 套两次.*只套一次"):
        EMA(twice)


def test_dry_run_sees_the_last_batch_of_one_sample_too():
    model = norm_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="批归一化要至少两个样本"):
        dry_run(model, train(13), loss=F.cross_entropy, optimizer=optimizer)


class Bad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


class Poisoned(nn.Linear):
    def forward(self, x):
        return Bad.apply(super().forward(x))


def test_weights_ruined_by_the_very_last_update_are_not_returned_in_silence():
    with pytest.raises(NonFiniteError, match="参数应是有限的数"):
        go(Poisoned(6, 3), [(X, Y)], epochs=1)
    model = Poisoned(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(NonFiniteError, match="参数应是有限的数"):
        train_epoch(model, [(X, Y)], loss=F.cross_entropy, optimizer=optimizer)


# —— on_epoch


@pytest.mark.parametrize(
    ("answer", "epochs"),
    [(False, 1), (np.False_, 1), (torch.tensor(False), 1), (None, 2), (0, 2), (True, 2), ("", 2)],
)
def test_any_kind_of_false_stops_and_nothing_else_does(answer, epochs):
    assert len(go(on_epoch=lambda record: answer)[0]) == epochs


def test_on_epoch_sees_the_record_with_the_learning_rate():
    seen = []
    go(on_epoch=seen.append, schedule=lambda o: StepLR(o, 1, gamma=0.5))
    assert [(record["epoch"], record["lr"]) for record in seen] == [(1, 0.1), (2, 0.05)]


# —— 给错了的参数


class Two(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


def values_step(model, batch):
    out = model(batch[0])
    return StepOut(F.cross_entropy(out, batch[1]), 10, out)


MISTAKES = {
    "模型是类": (
        lambda: go(nn.Linear, make=lambda m: torch.optim.SGD(nn.Linear(6, 3).parameters())),
        "model 应是 nn.Module",
    ),
    "优化器是类": (lambda: go(make=lambda m: torch.optim.SGD), "optimizer 应是建好的优化器"),
    "要闭包的优化器": (
        lambda: go(make=lambda m: torch.optim.LBFGS(m.parameters())),
        "优化器走一步应不用闭包",
    ),
    "全冻结了": (lambda: go(nn.Linear(6, 3).requires_grad_(False)), "要有可以训练的参数"),
    "断了图": (
        lambda: go(
            loss=None, step=lambda m, b: StepOut(F.cross_entropy(m(b[0]), b[1]).detach(), 1)
        ),
        "损失应连着计算图",
    ),
    "损失是数": (
        lambda: go(loss=None, step=lambda m, b: StepOut(F.cross_entropy(m(b[0]), b[1]).item(), 1)),
        "损失应是形状",
    ),
    "指标是列表": (lambda: go(metrics=[Accuracy()]), "metrics 应是名字到指标的字典"),
    "指标是类": (lambda: go(metrics={"a": Accuracy}), "指标 a 应是有"),
    "指标是函数": (lambda: go(metrics={"a": lambda o, t: 0}), "指标 a 应是有"),
    "values 是张量": (
        lambda: go(loss=None, step=values_step, metrics={"a": Accuracy()}),
        "StepOut 的 values 应是元组",
    ),
    "模型返回元组": (lambda: go(Two(6, 3)), "loss= 要模型返回一个张量"),
    "三项的一批": (lambda: go(data=[(X, Y, Y)]), "一批应是"),
    "数据集": (lambda: go(data=TensorDataset(X, Y)), "train 应一批一批地给出"),
    "验证是数据集": (lambda: go(valid=TensorDataset(X, Y)), "valid 应一批一批地给出"),
    "验证是比例": (lambda: go(valid=0.2), "valid 应是加载器"),
    "攒半批": (lambda: go(accumulate=2.0), "accumulate 应为不小于 1 的整数"),
    "轮数是小数": (lambda: go(epochs=1.5), "epochs 应为不小于 1 的整数"),
    "轮数是真": (lambda: go(epochs=True), "epochs 应为不小于 1 的整数"),
    "没说练多少": (lambda: go(epochs=None), "epochs（几轮）和 max_steps"),
    "说了两遍": (lambda: go(max_steps=3), "epochs（几轮）和 max_steps"),
    "耐心是小数": (lambda: go(valid=train(), patience=2.5), "patience 应为"),
    "裁剪是字": (lambda: go(clip_norm="1"), "clip_norm 应是大于 0 的数"),
    "目录": (lambda: go(run="runs/a"), "run 应是 Run"),
    "平均": (lambda: go(ema=0.999), "ema 应是 EMA"),
    "回调": (lambda: go(on_epoch=3), "on_epoch 应是函数"),
    "调度器是曲线": (
        lambda: go(schedule=lambda o: warmup_cosine(0, 4)),
        "scheduler 应是一个调度器",
    ),
    "调度器是列表": (lambda: go(schedule=lambda o: [StepLR(o, 1)]), "scheduler 应是一个调度器"),
    "调度器是类": (lambda: go(schedule=lambda o: StepLR), "scheduler 应是一个调度器"),
    "没有这一列": (lambda: go(monitor="valid_acc"), "monitor 应是记录里的一列"),
    "方向": (lambda: go(mode="best"), "mode 应为"),
    "差值": (lambda: go(min_delta=-1), "min_delta 应是不小于 0"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_slip_is_one_chinese_error_before_the_first_step(case):
    action, words = MISTAKES[case]
    with pytest.raises(CompanionError, match=words):
        action()


def test_numpy_integers_are_integers():
    assert len(go(epochs=np.int64(2), accumulate=np.int32(2))[0]) == 2


def test_evaluate_names_a_data_set_and_a_class_too():
    with pytest.raises(CompanionError, match="batches 应一批一批地给出"):
        evaluate(nn.Linear(6, 3), TensorDataset(X, Y), loss=F.cross_entropy)
    with pytest.raises(CompanionError, match="model 应是"):
        evaluate(nn.Linear, train(), loss=F.cross_entropy)


# —— 调度器的种类、单位和总步数


WRONG_UNITS = {
    "一轮一步的 OneCycle": (lambda o: OneCycleLR(o, 1.0, epochs=2, steps_per_epoch=4), {}),
    "一轮一步的余弦": (lambda o: CosineAnnealingLR(o, T_max=8), {}),
    "一轮一步的曲线": (lambda o: LambdaLR(o, warmup_cosine(0, 8)), {}),
    "逐步走的，写成了轮数": (lambda o: PerStep(CosineAnnealingLR(o, T_max=2)), {}),
    "逐步走的，写成了批数": (
        lambda o: PerStep(LambdaLR(o, warmup_cosine(0, 8))),
        {"accumulate": 4},
    ),
}


@pytest.mark.parametrize("case", WRONG_UNITS)
def test_a_schedule_counted_in_another_unit_is_refused(case):
    schedule, options = WRONG_UNITS[case]
    with pytest.raises(CompanionError, match="调度器的总步数与走法的单位应相同"):
        go(schedule=schedule, **options)


RIGHT_UNITS = {
    "OneCycle": (lambda o: PerStep(OneCycleLR(o, 1.0, total_steps=8)), {}),
    "一轮一步的 OneCycle": (lambda o: OneCycleLR(o, 1.0, total_steps=2), {}),
    "余弦": (lambda o: CosineAnnealingLR(o, T_max=2), {}),
    "攒四批": (lambda o: PerStep(LambdaLR(o, warmup_cosine(0, 2))), {"accumulate": 4}),
    "攒三批": (lambda o: PerStep(LambdaLR(o, warmup_cosine(0, 4))), {"accumulate": 3}),
    "按步数": (lambda o: PerStep(LambdaLR(o, one_cycle(5))), {"epochs": None, "max_steps": 5}),
}


@pytest.mark.parametrize("case", RIGHT_UNITS)
def test_a_schedule_of_the_right_length_passes_without_a_word(case, capsys):
    schedule, options = RIGHT_UNITS[case]
    go(schedule=schedule, **options)
    assert capsys.readouterr().out == ""


def test_a_cosine_counted_in_updates_ends_at_zero_when_batches_are_accumulated():
    schedule = lambda o: PerStep(LambdaLR(o, warmup_cosine(0, 2 * 2)))  # noqa: E731
    optimizer = go(schedule=schedule, accumulate=3)[2]
    assert optimizer.param_groups[0]["lr"] == 0


def test_a_one_cycle_too_short_is_refused_and_one_too_long_is_said(capsys):
    with pytest.raises(CompanionError, match="调度器应够走完全程"):
        go(schedule=lambda o: PerStep(OneCycleLR(o, 1.0, total_steps=7)))
    go(schedule=lambda o: PerStep(OneCycleLR(o, 1.0, total_steps=20)))
    assert "总步数是 20，每次更新走一步，一共走 8 步" in capsys.readouterr().out


def test_on_resume_a_one_cycle_that_cannot_go_on_is_refused_before_a_step(tmp_path):
    def run(epochs):
        schedule = lambda o: PerStep(OneCycleLR(o, 1.0, total_steps=4 * epochs))  # noqa: E731
        return go(schedule=schedule, epochs=epochs, run=Run(tmp_path, resume=True))

    run(2)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(CompanionError, match="总步数是 8，每次更新走一步，一共走 16 步"):
        run(4)
    assert sorted(path.name for path in tmp_path.iterdir()) == before  # 一步也没有练


def test_on_resume_a_curve_of_another_length_is_said(tmp_path, capsys):
    for epochs in (1, 2):
        schedule = lambda o: PerStep(LambdaLR(o, warmup_cosine(0, 4 * epochs)))  # noqa: B023, E731
        go(schedule=schedule, epochs=epochs, run=Run(tmp_path, resume=True))
    assert "scheduler 的总步数存档 4，现在 8" in capsys.readouterr().out


def chain(inner):
    return lambda o: SequentialLR(o, [StepLR(o, 1), inner(o)], milestones=[2])


KINDS = {
    "里面的": (lambda o: PerStep(StepLR(o, 9)), lambda o: PerStep(LambdaLR(o, lambda k: 1.0))),
    "包没包": (lambda o: PerStep(StepLR(o, 9)), lambda o: StepLR(o, 9)),
    "接起来的": (chain(lambda o: StepLR(o, 9)), chain(lambda o: LambdaLR(o, lambda k: 1.0))),
}


@pytest.mark.parametrize("case", KINDS)
def test_on_resume_another_kind_of_scheduler_is_refused(case, tmp_path):
    old, new = KINDS[case]
    go(schedule=old, epochs=1, run=Run(tmp_path))
    with pytest.raises(CompanionError, match=r"scheduler 应与存档相同.*第 1 轮"):
        go(schedule=new, run=Run(tmp_path, resume=True))


# —— 一个 monitor


def plateau(mode, **options):
    return lambda o: ReduceLROnPlateau(o, mode=mode, patience=0, **options)


def test_plateau_patience_and_best_all_follow_the_monitor(tmp_path):
    watched = {"monitor": "valid_accuracy", "mode": "max", "metrics": {"accuracy": Accuracy()}}
    run = Run(tmp_path, keep=1)
    history, _, optimizer = go(
        valid=train(40),
        schedule=plateau("max", eps=0),
        patience=3,
        run=run,
        lr=1e-9,
        epochs=9,
        **watched,
    )
    assert len(set(history["valid_accuracy"])) == 1  # 学习率太小，准确率一直不变
    assert len(history) == 1 + 3  # 第 1 轮最好，之后三轮没有变好
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-9 * 0.1**3, rel=1e-3)
    assert [path.name[:10] for path in sorted(tmp_path.glob("save-*"))] == [
        "save-00001",
        "save-00004",
    ]


def test_a_plateau_that_wants_the_other_direction_is_refused():
    with pytest.raises(CompanionError, match="ReduceLROnPlateau 的 mode 应与 fit 的相同"):
        go(valid=train(), schedule=plateau("max"), metrics={"accuracy": Accuracy()})


def test_a_plateau_may_watch_the_training_loss_without_a_validation_set():
    assert len(go(schedule=plateau("min"), monitor="train_loss", patience=2)[0]) == 2


def test_a_gain_below_min_delta_is_no_gain():
    history = go(valid=train(), patience=1, min_delta=100.0, epochs=9)[0]
    assert len(history) == 2


def test_a_run_that_names_another_column_is_refused_and_the_same_one_accepted(tmp_path):
    options = {"monitor": "valid_accuracy", "mode": "max", "metrics": {"accuracy": Accuracy()}}
    with pytest.raises(CompanionError, match="最好的一轮应只看一列"):
        go(valid=train(), run=Run(tmp_path / "a", best="train_loss"), **options)
    go(valid=train(), run=Run(tmp_path / "b", best="valid_accuracy", mode="max"), **options)
    go(valid=train(), run=Run(tmp_path / "c", best=None), **options)


def test_a_monitor_that_is_no_number_is_refused_when_it_is_needed():
    options = {"monitor": "valid_m", "metrics": {"m": ConfusionMatrix()}, "epochs": 1}
    with pytest.raises(CompanionError, match="valid_m"):
        go(valid=train(), schedule=plateau("min"), **options)


# —— 记录


def test_the_learning_rate_of_each_epoch_stands_in_the_history(tmp_path):
    history = go(schedule=lambda o: StepLR(o, 1, gamma=0.5), run=Run(tmp_path))[0]
    assert history["lr"] == [0.1, 0.05]
    assert (tmp_path / "history.csv").read_text().splitlines()[0].endswith(",lr")


def test_a_save_does_not_grow_with_the_matrices_of_earlier_epochs(tmp_path):
    x, y = torch.randn(50, 6), torch.arange(50)
    sizes = []
    for epochs in (1, 3, 6):
        data = TensorLoader(x, y, batch_size=25)
        options = {"metrics": {"m": ConfusionMatrix()}, "run": Run(tmp_path, resume=True)}
        history = go(nn.Linear(6, 50), data, epochs=epochs, **options)[0]
        newest = sorted(tmp_path.glob("save-*"))[-1]
        sizes.append(sum(file.stat().st_size for file in newest.iterdir()))
    assert max(sizes) < 1.05 * min(sizes)
    assert [value is None for value in history["train_m"]] == [True] * 5 + [False]


def test_ema_is_an_ema():
    model = nn.Linear(6, 3)
    history = go(model, valid=train(), ema=EMA(model))[0]
    assert len(history) == 2
