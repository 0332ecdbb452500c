"""Run 碰上人常做的事：break、重建模型、写错列名、练出 nan、给错目录。"""

import argparse
import copy
import os
import random
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import _global_optimizer_post_hooks as HOOKS
from torch.utils.data import DataLoader, Dataset, IterableDataset, StackDataset, TensorDataset

from companion.checkpoint import load_checkpoint, saves, verify
from companion.data import loaders
from companion.errors import ArgumentError, CorruptCheckpointError, RunError
from companion.optim import EMA, PerStep
from companion.repro import seed_everything
from companion.run import Run
from companion.run._probe import why_inexact

G = torch.Generator().manual_seed(0)
INPUTS, TARGETS = torch.randn(40, 4, generator=G), torch.randint(3, (40,), generator=G)
BATCHES = list(zip(INPUTS.split(4), TARGETS.split(4), strict=True))


def job(seed=0, lr=0.1, width=5):
    seed_everything(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.3), nn.Linear(width, 3))
    return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=lr)}


def step(parts, batch):
    loss = F.cross_entropy(parts["model"](batch[0]), batch[1])
    parts["optimizer"].zero_grad()
    loss.backward()
    parts["optimizer"].step()


def train(run, parts, epochs=1, **logged):
    for _ in run.epochs(epochs):
        for batch in run.batches(BATCHES[:3]):
            step(parts, batch)
        run.log(**logged)
    return run


def weights(parts):
    return copy.deepcopy(parts["model"].state_dict())


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# —— break


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize(("before", "steps"), [(False, 4), (True, 3)])
def test_break_counts_the_batch_only_if_it_was_trained_on(
    tmp_path, before, steps, optimizer, options
):
    parts = job()
    parts["optimizer"] = optimizer(parts["model"].parameters(), lr=0.1, **options)
    run = Run(tmp_path, **parts)
    for _ in run.epochs(1):
        for i, batch in enumerate(run.batches(BATCHES)):
            if before and i == 3:
                break
            step(parts, batch)
            run.log(x=float(i))
            if i == 3:
                break
    assert run.step == verify(saves(tmp_path)[-1])["step"] == steps
    assert run.history["x"] == [sum(range(steps)) / steps]


def test_break_without_a_model_counts_the_batch(tmp_path):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        for i in run.batches(range(5)):
            if i == 2:
                break
    assert run.step == 3


def test_when_the_versions_never_move_the_batch_is_counted(tmp_path):
    """重放 CUDA 图的更新不动版本号：这里用 .data 造出同样的情形。"""
    parts = job()
    run = Run(tmp_path, **parts)
    for _ in run.epochs(1):
        for i, _ in enumerate(run.batches(BATCHES)):
            for parameter in parts["model"].parameters():
                parameter.data += 1.0
            if i == 2:
                break
    assert run.step == 3


def test_a_step_number_has_one_state_even_if_the_reader_breaks_at_it(tmp_path):
    parts, at = job(), {}
    run = Run(tmp_path, keep=99, save_every=2, **parts)
    for epoch in run.epochs(3):
        for i, batch in enumerate(run.batches(BATCHES)):
            step(parts, batch)
            at[run.step + 1] = weights(parts)
            if i == epoch:
                break
    found = [load_checkpoint(path) for path in saves(tmp_path)]
    assert [info["step"] for _, info in found] == [2, 4, 5, 6, 8, 9]
    for state, info in found:
        assert same(state["objects"]["model"], at[info["step"]])


def test_a_save_due_at_the_break_comes_at_the_next_boundary(tmp_path):
    parts = job()
    run = Run(tmp_path, keep=99, save_every=2, **parts)
    for _ in run.epochs(1):
        for _ in range(2):
            for i, batch in enumerate(run.batches(BATCHES)):
                step(parts, batch)
                if i == 1:
                    break
    assert [verify(path)["step"] for path in saves(tmp_path)] == [3, 4]


def test_breaking_after_an_update_continues_exactly(tmp_path):
    def go(folder, totals):
        for total in totals:
            parts = job()
            run = Run(folder, resume=True, **parts)
            for _ in run.epochs(total):
                for i, batch in enumerate(run.batches(DataLoader(list(BATCHES), shuffle=True))):
                    step(parts, (batch[0][0], batch[1][0]))
                    if i == 3:
                        break
        return weights(parts), run.step

    one, two = go(tmp_path / "a", [3]), go(tmp_path / "b", [1, 2, 3])
    assert one[1] == two[1] == 12
    assert same(one[0], two[0])


def until(run, parts, max_steps):
    """Run 的文档里，按步数停的写法。"""
    for _ in run.epochs(max_steps):
        for batch in run.batches(BATCHES):
            step(parts, batch)
            if run.step + 1 >= max_steps:
                run.stop()
                break
    return run


def test_training_for_a_number_of_steps_stops_there_and_can_be_extended(tmp_path):
    parts = job()
    assert until(Run(tmp_path, **parts), parts, 13).step == 13
    assert until(Run(tmp_path, resume=True, **parts), parts, 13).step == 13
    parts = job(seed=3)
    assert until(Run(tmp_path, resume=True, **parts), parts, 27).step == 27


def test_the_count_of_updates_leaves_no_hook_on_the_optimizer(tmp_path):
    parts = job()
    for total in (1, 2):
        train(Run(tmp_path, resume=True, **parts), parts, total)
        assert not HOOKS
    run = Run(tmp_path / "b", **parts)
    for _ in run.epochs(1):
        next(run.batches(BATCHES))
        assert len(HOOKS) == 1
        break
    assert not HOOKS


# —— 哪里对不上，怎么说


class Own(Dataset):
    """样本里抽 ``draw``。"""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index + float(self.draw())


def counter():
    counts = iter(range(10**6))
    return lambda: next(counts)


def own_torch():
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.rand((), generator=generator)


OWN = {
    "numpy": lambda: np.random.default_rng(0).random,
    "python": lambda: random.Random(0).random,
    "torch": own_torch,
    "counter": counter,
}
GLOBAL = [lambda: torch.rand(()), np.random.rand, random.random]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", OWN)
def test_loaders_over_a_dataset_with_its_own_generator_are_not_exact(name, workers):
    found = why_inexact(loaders(Own(OWN[name]()), batch_size=2, workers=workers))
    assert "数据集自己的发生器" in found.reason
    assert "请只用 torch、random、np.random 的全局随机数" in found.hint
    assert found.always


@pytest.mark.parametrize("draw", GLOBAL)
def test_loaders_over_a_dataset_that_draws_from_the_global_generators_are_exact(draw):
    assert why_inexact(loaders(Own(draw), batch_size=2)) is None
    assert why_inexact(loaders(TensorDataset(INPUTS), batch_size=2)) is None


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(6))


ALWAYS = {
    "own, main process": (lambda: DataLoader(Own(counter())), True),
    "own, workers start anew": (lambda: DataLoader(Own(counter()), num_workers=1), False),
    "own, workers stay": (
        lambda: DataLoader(Own(counter()), num_workers=1, persistent_workers=True),
        True,
    ),
    "global, workers start anew": (lambda: DataLoader(Own(random.random), num_workers=1), False),
    "global, workers stay": (
        lambda: DataLoader(Own(random.random), num_workers=1, persistent_workers=True),
        True,
    ),
    "stream": (lambda: DataLoader(Stream()), False),
    "zip": (lambda: zip(range(3), range(3), strict=True), True),
    "enumerate": (lambda: enumerate(range(3)), True),
    "no order": (lambda: DataLoader(range(3), num_workers=1, in_order=False), True),
}


@pytest.mark.parametrize("name", ALWAYS)
def test_the_line_says_whether_the_start_of_an_epoch_is_affected_too(tmp_path, capsys, name):
    make, always = ALWAYS[name]
    run = Run(tmp_path)
    for _ in run.epochs(1):
        list(run.batches(make()))
    line = next(x for x in capsys.readouterr().out.splitlines() if "不保证与不中断时相同" in x)
    assert line.startswith("接着练（从一轮开头也一样），" if always else "从一轮中间接着练，")
    assert run.inexact in line
    assert ("enumerate(run.batches(loader))" in line) == (name in ("zip", "enumerate"))


@pytest.mark.parametrize("name", [name for name in ALWAYS if name.startswith(("own", "global"))])
def test_what_is_said_about_the_start_of_an_epoch_is_true(tmp_path, name):
    make, always = ALWAYS[name]

    def go(folder, totals):
        seen = []
        for total in totals:
            seed_everything(0)
            loader, run = make(), Run(folder, resume=True)
            for _ in run.epochs(total):
                seen += [batch.tolist() for batch in run.batches(loader)]
        return seen

    assert (go(tmp_path / "a", [3]) != go(tmp_path / "b", [1, 2, 3])) == always


def enumerated(run):
    one = loaders(TensorDataset(INPUTS), batch_size=8)
    return ((run.step, batch) for _, batch in enumerate(run.batches(one)))


def paired(run):
    both = StackDataset(TensorDataset(INPUTS[:8]), Own(random.random))
    return run.batches(loaders(both, batch_size=2))


@pytest.mark.parametrize("advised", [enumerated, paired])
def test_what_the_hints_advise_is_exact_at_every_batch(tmp_path, advised):
    def go(folder, until=None):
        seed_everything(0)
        seen, run = [], Run(folder, resume=True, save_every=1)
        for _ in run.epochs(2):
            for batch in advised(run):
                if run.step == until:
                    return seen
                seen.append((str(batch), torch.rand(()).item()))
        assert run.inexact is None
        return seen

    straight = go(tmp_path / "straight")
    for cut in (1, 3, 4, 5, 7):
        assert go(tmp_path / str(cut), cut) + go(tmp_path / str(cut)) == straight


def test_nested_batches_are_told_a_way_that_is_exact(tmp_path):
    for _ in Run(tmp_path).epochs(1):
        run = Run(tmp_path, resume=True)
        break
    for _ in run.epochs(1):
        for _ in run.batches([1, 2]):
            with pytest.raises(RunError, match=r"loaders\(torch\.utils\.data\.StackDataset") as e:
                next(run.batches([3]))
            assert "zip" not in str(e.value)


# —— 训练的是另一个模型


def test_an_optimizer_of_another_model_is_refused(tmp_path):
    mixed = {"model": job()["model"], "optimizer": job()["optimizer"]}
    with pytest.raises(ArgumentError, match=r"optimizer 应更新交给 Run 的模型.*也要重建"):
        Run(tmp_path, **mixed)
    run = Run(tmp_path)
    run.attach(model=mixed["model"])
    run.attach(optimizer=mixed["optimizer"])
    with pytest.raises(ArgumentError, match="model 没有优化器"):
        next(run.epochs(1))


def alright():
    one, two = job(), job(seed=1)
    extra, frozen = nn.Parameter(torch.zeros(2)), job()["model"].requires_grad_(False)
    sgd = torch.optim.SGD
    pair = {"g": one["model"], "d": two["model"]}
    return {
        "two of each": pair | {"o_g": one["optimizer"], "o_d": two["optimizer"]},
        "one for both": pair
        | {"optimizer": sgd([*one["model"].parameters(), *two["model"].parameters()], 0.1)},
        "more than the model's": {
            "model": one["model"],
            "optimizer": sgd([*one["model"].parameters(), extra], 0.1),
        },
        "one for a number besides": one | {"other": sgd([extra], 0.1)},
        "a frozen model": {"model": frozen, "optimizer": sgd([extra], 0.1)},
        "a teacher": one | {"teacher": two["model"]},
        "compiled": one | {"model": torch.compile(one["model"], backend="eager")},
        "averaged": one | {"ema": EMA(one["model"])},
        "only the head": {
            "model": one["model"],
            "optimizer": sgd(one["model"][2].parameters(), 0.1),
        },
    }


@pytest.mark.parametrize("name", alright())
def test_other_ways_to_combine_models_and_optimizers_are_not_refused(tmp_path, name):
    run = Run(tmp_path, **alright()[name])
    assert list(run.epochs(1)) == [1]


def test_training_another_model_than_the_one_given_is_said_once(tmp_path, capsys):
    run = Run(tmp_path, **job())
    train(run, job(seed=1), 3)
    assert capsys.readouterr().out == (
        "第 1 轮里，交给 Run 的模型的参数一个也没有变：训练的是不是另一个模型？"
        "重建模型和优化器之后，Run 也要重建。\n"
    )


def no_batches(run, model):
    pass


def without_versions(run, model):
    for _ in run.batches(range(2)):
        for parameter in model.parameters():
            parameter.data += 1.0


def only_buffers(run, model):
    for _ in run.batches(range(2)):
        model[1](torch.rand(4, 3))


def frozen(run, model):
    model.requires_grad_(False)
    list(run.batches(range(2)))


@pytest.mark.parametrize("body", [no_batches, without_versions, only_buffers, frozen])
def test_an_epoch_in_which_nothing_had_to_change_is_silent(tmp_path, capsys, body):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    run = Run(tmp_path, model=model)
    for _ in run.epochs(2):
        body(run, model)
    assert capsys.readouterr().out == ""


# —— 最好的一轮


def momentum(parts):
    return torch.optim.SGD(parts["model"].parameters(), lr=0.1, momentum=0.9)


def adam(parts):
    return torch.optim.AdamW(parts["model"].parameters(), lr=0.1)


def adagrad(parts):  # 一建好就有状态
    return torch.optim.Adagrad(parts["model"].parameters(), lr=0.1)


@pytest.mark.parametrize("make", [momentum, adam, adagrad])
def test_a_new_run_with_a_used_optimizer_says_so_once_and_a_resumed_one_does_not(
    tmp_path, capsys, make
):
    parts = job()
    parts["optimizer"] = make(parts)
    with pytest.raises(ZeroDivisionError):
        for _ in Run(tmp_path, **parts).epochs(2):  # 第一轮里出错，还没有存过
            step(parts, BATCHES[0])
            _ = 1 / 0
    assert "重建" not in capsys.readouterr().out
    train(Run(tmp_path, **parts), parts, epochs=2)  # 只重跑了建 Run 的那一格
    assert capsys.readouterr().out.count("已经更新过参数，现在是接着它练") == 1
    train(Run(tmp_path, resume=True, **parts), parts, epochs=3)
    assert "已经更新过" not in capsys.readouterr().out


def test_a_best_that_is_never_logged_is_said_after_the_first_epoch(tmp_path, capsys):
    parts = job()
    train(Run(tmp_path, best="val_f1", mode="max", **parts), parts, 3, valid_f1=0.5)
    assert capsys.readouterr().out == (
        "best='val_f1' 这一列没有记，定不出最好的一轮；记下的列是 epoch、valid_f1。"
        "请改 best=，或 run.log 记下它。\n"
    )
    train(Run(tmp_path / "default", **parts), parts, 1, loss=1.0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("best", "mode", "lines"),
    [
        ("valid_accuracy", "min", 1),
        ("valid_F1", "min", 1),
        ("valid_acc", "max", 0),
        ("valid_pace", "min", 0),
    ],
)
def test_a_column_that_should_be_large_asks_for_mode_max(tmp_path, capsys, best, mode, lines):
    parts = job()
    train(Run(tmp_path, best=best, mode=mode, **parts), parts, 2, **{best: 0.5})
    assert capsys.readouterr().out.count('越大越好的列应写 mode="max"') == lines


# —— 练坏了


def test_the_last_finite_save_is_never_pushed_out(tmp_path, capsys):
    parts = job()
    run = Run(tmp_path, keep=2, **parts)
    for epoch in run.epochs(6):
        for batch in run.batches(BATCHES[:2]):
            step(parts, batch)
        if epoch == 3:
            with torch.no_grad():
                parts["model"][2].bias[0] = torch.nan
    infos = [verify(path) for path in saves(tmp_path)]
    assert [(info["epoch"], info["finite"]) for info in infos] == [
        *[(2, True), (5, False), (6, False)]
    ]
    assert capsys.readouterr().out == (
        "第 6 步：模型的参数里有 nan 或 inf，这一份照存，但最后一份好的不会被删掉。\n"
    )
    parts = job()
    train(Run(tmp_path, resume=True, keep=1, **parts), parts, 7)
    assert [verify(path)["epoch"] for path in saves(tmp_path)] == [2, 7]
    assert f"{saves(tmp_path)[0].parent}" in capsys.readouterr().out


def test_resuming_from_a_broken_save_says_so(tmp_path, capsys):
    parts = job(lr=float("inf"))
    train(Run(tmp_path, **parts), parts)
    capsys.readouterr()
    train(Run(tmp_path, resume=True, **parts), parts, 2)
    out = capsys.readouterr().out
    assert "save-00001-step-3 的参数里有 nan 或 inf" in out
    assert "照存" not in out


# —— 超参数


@pytest.mark.parametrize(
    ("wrap", "where"), [(lambda s: s, "scheduler"), (PerStep, "scheduler.scheduler")]
)
def test_with_a_scheduler_the_hint_names_the_rates_it_keeps(tmp_path, capsys, wrap, where):
    def with_schedule(lr):
        parts = job(lr=lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(parts["optimizer"], lambda i: 0.5**i)
        return parts | {"scheduler": wrap(schedule)}, schedule

    parts, _ = with_schedule(0.1)
    train(Run(tmp_path, **parts), parts)
    parts, schedule = with_schedule(0.2)
    run = Run(tmp_path, resume=True, **parts)
    train(run, parts, 2)
    out = capsys.readouterr().out
    assert f"恢复后改 optimizer.param_groups，还有 {where}.base_lrs）" in out
    parts["optimizer"].param_groups[0]["lr"], schedule.base_lrs = 0.2, [0.2]  # 照它说的做
    for i in range(1, 3):
        parts["scheduler"].step()
        assert parts["optimizer"].param_groups[0]["lr"] == 0.2 * 0.5**i


def test_a_rate_that_is_not_used_is_said_every_time_and_not_written_down(tmp_path, capsys):
    for epochs in (1, 2, 3):
        parts = job(lr=0.1 if epochs == 1 else 0.2)
        config = {"lr": 0.1 if epochs == 1 else 0.2, "width": epochs}
        train(Run(tmp_path, resume=True, config=config, **parts), parts, epochs)
        told = "lr 存档 0.1，现在 0.2" in capsys.readouterr().out
        assert told == (epochs > 1)
        saved = verify(saves(tmp_path)[-1])["config"]
        assert (saved["lr"], saved["width"]) == (0.1, epochs)
        assert parts["optimizer"].param_groups[0]["lr"] == 0.1


def test_a_batch_size_given_by_hand_is_kept(tmp_path):
    run = Run(tmp_path, config={"batch_size": 99})
    for _ in run.epochs(1):
        list(run.batches(DataLoader(range(4), batch_size=2)))
    assert verify(saves(tmp_path)[-1])["config"]["batch_size"] == 99


def test_a_namespace_is_told_to_become_a_dictionary(tmp_path):
    with pytest.raises(ArgumentError, match=r"config 应是字典，实际是 Namespace.*vars\(args\)"):
        Run(tmp_path, config=argparse.Namespace(lr=0.1))
    with pytest.raises(ArgumentError, match="实际是 list。请换成字典"):
        Run(tmp_path, config=[1])


# —— 信号、坏存档、目录


def test_what_is_said_at_a_signal_depends_on_where_the_loop_is(tmp_path, capsys):
    def go(folder, place):
        run = Run(folder)
        with pytest.raises(KeyboardInterrupt):
            for _ in run.epochs(2):
                for here in ("before", "inside", "after"):
                    if here == place:
                        os.kill(os.getpid(), signal.SIGINT)
                    if here == "inside":
                        for _ in run.batches(range(2)):
                            if place == "in":
                                os.kill(os.getpid(), signal.SIGINT)
                                place = ""
        return capsys.readouterr().out.splitlines()[0], run.step

    assert go(tmp_path / "a", "before") == (
        "收到 Ctrl-C：练完这一步，存好就停；再来一次，立即停，上一份存档之后的要重练。",
        1,
    )
    assert go(tmp_path / "b", "in")[0].startswith("收到 Ctrl-C：练完这一步，")
    assert go(tmp_path / "c", "after") == (
        "收到 Ctrl-C：这一轮收尾（验证等）之后，存好就停；"
        "再来一次，立即停，上一份存档之后的要重练。",
        2,
    )


def test_when_every_save_is_damaged_the_way_out_is_named(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts)
    (saves(tmp_path)[-1] / "state.pt").write_bytes(b"")
    with pytest.raises(CorruptCheckpointError, match=r"state\.pt 应有.*一个好的也没有") as error:
        Run(tmp_path, resume=True, **parts)
    assert str(error.value).endswith("从备份恢复，或换一个目录从头练。")
    assert "newest_good" not in str(error.value)


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_in_place_of_the_directory_is_refused(tmp_path, resume):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(RunError, match=r"应是能写的目录，实际不能写.*换一个目录"):
            Run(path, resume=resume)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("companion.run._lock.os.open", refuse)
    with pytest.raises(RunError, match=r"应是能写的目录，实际不能写：.*Permission denied"):
        Run(tmp_path)
