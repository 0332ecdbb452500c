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
from companion.run._order import why_inexact

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
    assert "数据集自己的发生器" in found


@pytest.mark.parametrize("draw", GLOBAL)
def test_loaders_over_a_dataset_that_draws_from_the_global_generators_are_exact(draw):
    assert why_inexact(loaders(Own(draw), batch_size=2)) is None
    assert why_inexact(loaders(TensorDataset(INPUTS), batch_size=2)) is None


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(6))


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


INEXACT = {
    "own generator": lambda: DataLoader(Own(counter())),
    "workers stay": lambda: DataLoader(range(4), num_workers=1, persistent_workers=True),
    "random in workers": lambda: DataLoader(Own(random.random), num_workers=1),
    "stream": lambda: DataLoader(Stream()),
    "zip": lambda: zip(range(3), range(3), strict=True),
    "enumerate": lambda: enumerate(range(3)),
    "no order": lambda: DataLoader(range(3), num_workers=1, in_order=False),
}


@pytest.mark.parametrize("name", INEXACT)
def test_what_cannot_resume_exactly_is_said_once_with_its_reason(tmp_path, capsys, name):
    run = Run(tmp_path)
    for _ in run.epochs(2):
        list(run.batches(INEXACT[name]()))
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "不保证与不中断时相同" in x]
    assert run.inexact in line


# —— 优化器更新的，存档里要有


def test_an_optimizer_of_another_model_is_refused_before_the_first_step(tmp_path):
    run = Run(tmp_path, model=job()["model"], optimizer=job()["optimizer"])
    with pytest.raises(ArgumentError, match=r"optimizer 更新的参数应都在.*有 4 个不在.*也要重建"):
        next(run.epochs(1))


def unsaved():
    one, extra = job(), nn.Parameter(torch.zeros(2))
    sgd = torch.optim.SGD
    return {
        "one number more": one | {"optimizer": sgd([*one["model"].parameters(), extra], 0.1)},
        "a number alone": one | {"other": sgd([extra], 0.1)},
        "no model at all": {"optimizer": one["optimizer"]},
    }


@pytest.mark.parametrize("name", unsaved())
def test_parameters_that_no_save_would_hold_are_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"不在，不会存下.*nn\.Module"):
        next(Run(tmp_path, **unsaved()[name]).epochs(1))


def saved():
    one, two, extra = job(), job(seed=1), nn.ParameterList([nn.Parameter(torch.zeros(2))])
    sgd = torch.optim.SGD
    both = sgd([*one["model"].parameters(), *two["model"].parameters()], 0.1)
    return {
        "two of each": {"g": one["model"], "d": two["model"]}
        | {"o_g": one["optimizer"], "o_d": two["optimizer"]},
        "one for both": {"g": one["model"], "d": two["model"], "optimizer": both},
        "a list of parameters": one | {"other": sgd(extra, 0.1), "extra": extra},
        "a teacher": one | {"teacher": two["model"]},
        "compiled": one | {"model": torch.compile(one["model"], backend="eager")},
        "averaged": one | {"ema": EMA(one["model"])},
        "only the head": one | {"optimizer": sgd(one["model"][2].parameters(), 0.1)},
    }


@pytest.mark.parametrize("name", saved())
def test_other_ways_to_combine_models_and_optimizers_are_not_refused(tmp_path, name):
    assert list(Run(tmp_path, **saved()[name]).epochs(1)) == [1]


# —— 最好的一轮


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
    assert "第 6 步：模型的参数里有 nan 或 inf" in capsys.readouterr().out
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
    assert out.count("参数里有 nan 或 inf") == 1


# —— 超参数


@pytest.mark.parametrize("wrap", [lambda s: s, PerStep])
def test_with_a_scheduler_the_hint_names_the_rates_it_keeps(tmp_path, capsys, wrap):
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
    assert "恢复后改 optimizer.param_groups，有调度器的还有它的 base_lrs。" in out
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

    line, steps = go(tmp_path / "a", "before")
    assert (line.startswith("收到 Ctrl-C：练完这一步，"), steps) == (True, 1)
    assert go(tmp_path / "b", "in")[0].startswith("收到 Ctrl-C：练完这一步，")
    line, steps = go(tmp_path / "c", "after")
    assert (line.startswith("收到 Ctrl-C：这一轮收尾（验证等）之后，"), steps) == (True, 2)


def test_a_signal_that_a_broken_loop_could_not_obey_is_said_or_sent_again(tmp_path, capsys):
    run, told = Run(tmp_path), []
    old = signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            for _ in run.epochs(2):
                os.kill(os.getpid(), number)
                break
        assert "收到过的 Ctrl-C 没有照办" in capsys.readouterr().out
        assert told == [1]
        assert list(run.epochs(2)) == [1, 2]
    finally:
        signal.signal(signal.SIGTERM, old)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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

    monkeypatch.setattr("companion._common.os.open", refuse)
    with pytest.raises(RunError, match=r"应是能写的目录，实际不能写：.*Permission denied"):
        Run(tmp_path)
