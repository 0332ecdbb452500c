"""Run：目录、恢复、核对、留存档、停下。断在每一步上是否精确，见 tests/faults。"""

import copy
import json
import os
import signal
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from companion.checkpoint import load_checkpoint, saves, verify
from companion.checkpoint._manifest import write_manifest
from companion.data import TensorLoader
from companion.errors import (
    ArgumentError,
    CheckpointError,
    CorruptCheckpointError,
    MismatchError,
    NewerFormatError,
    RunError,
)
from companion.repro import seed_everything
from companion.run import Run

G = torch.Generator().manual_seed(0)
INPUTS, TARGETS = torch.randn(12, 4, generator=G), torch.randint(3, (12,), generator=G)
BATCHES = list(zip(INPUTS.split(4), TARGETS.split(4), strict=True))


def model_of(width=5):
    return nn.Sequential(nn.Linear(4, width), nn.Dropout(0.3), nn.Linear(width, 3))


def job(seed=0, lr=0.1, **changes):
    seed_everything(seed)
    model = model_of()
    return {"model": model, "optimizer": torch.optim.AdamW(model.parameters(), lr=lr)} | changes


def train(run, parts, epochs=1, batches=BATCHES, valid=None):
    """练几轮；``valid`` 是每轮的 valid_loss。"""
    for epoch in run.epochs(epochs):
        for inputs, targets in run.batches(batches):
            step(run, parts, inputs, targets)
        if valid:
            run.log(valid_loss=valid[epoch - 1])
    return run


def step(run, parts, inputs, targets):
    loss = F.cross_entropy(parts["model"](inputs), targets)
    parts["optimizer"].zero_grad()
    loss.backward()
    parts["optimizer"].step()
    if "scheduler" in parts:
        parts["scheduler"].step()
    run.log(loss=loss, n=len(targets))


def rebuilt(width):
    """宽度不同的模型，和它自己的优化器。"""
    model = model_of(width)
    return {"model": model, "optimizer": torch.optim.AdamW(model.parameters(), lr=0.1)}


def with_scheduler(parts, kind=torch.optim.lr_scheduler.StepLR, *args, **options):
    return parts | {"scheduler": kind(parts["optimizer"], *args, **options)}


def weights(parts):
    return copy.deepcopy(parts["model"].state_dict())


def same(one, two):
    return all(torch.equal(one[name], two[name]) for name in one) and one.keys() == two.keys()


# —— 目录


def test_a_directory_with_saves_is_refused_unless_resumed(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(RunError, match=r"已有 1 个存档.*resume=True.*换一个目录"):
        Run(tmp_path, **parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_resume_on_a_new_directory_starts(tmp_path):
    parts = job()
    run = train(Run(tmp_path / "a" / "b", resume=True, **parts), parts)
    assert (run.epoch, run.step, len(run.history)) == (1, 3, 1)


def test_the_same_process_may_open_it_again_and_the_old_object_says_so(tmp_path):
    parts = job()
    old = train(Run(tmp_path, **parts), parts)
    new = Run(tmp_path, resume=True, **parts)
    with pytest.raises(RunError, match="同一个目录又建了新的 Run"):
        old.epochs(2)
    with pytest.raises(RunError):
        old.save()
    assert train(new, parts, 2).epoch == 2


def test_a_refused_directory_leaves_the_old_object_alone(tmp_path):
    parts = job()
    old = train(Run(tmp_path, **parts), parts)
    with pytest.raises(RunError):
        Run(tmp_path)
    assert train(old, parts, 2).epoch == 2


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
    (tmp_path / ".tmp-save-00009-step-3").mkdir()
    Run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_run_that_is_no_longer_referenced_frees_its_lock(tmp_path):
    run = Run(tmp_path)
    lock = run._saves._lock
    del run
    assert lock._file is not None  # 测试自己还拿着
    gone = weakref.ref(lock)
    del lock
    assert gone() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep 应为不小于 1"),
        ({"save_every": 0}, "save_every 应为不小于 1"),
        ({"mode": "up"}, "mode 应为"),
        ({"config": {"width": 3, "act": len}}, "config 的 act 应能写成 JSON"),
        ({"model": 3}, "交给 Run 的 model 应有 state_dict"),
    ],
)
def test_arguments_are_checked(tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        Run(tmp_path, **options)


def test_the_number_of_epochs_is_checked(tmp_path):
    for total in (0, 1.5):
        with pytest.raises(ArgumentError, match="轮数 total"):
            Run(tmp_path).epochs(total)


# —— 恢复与核对


def test_the_end_of_an_epoch_is_restored_whole(tmp_path):
    straight = with_scheduler(job(), step_size=2)
    train(Run(tmp_path / "one", **straight), straight, 4)
    parts = with_scheduler(job(), step_size=2)
    train(Run(tmp_path / "two", **parts), parts, 2)
    parts = with_scheduler(job(seed=9), step_size=2)
    torch.rand(17)
    run = train(Run(tmp_path / "two", resume=True, **parts), parts, 4)
    assert same(weights(parts), weights(straight))
    assert parts["scheduler"].state_dict() == straight["scheduler"].state_dict()
    assert (run.step, run.epoch) == (12, 4)


def test_going_on_in_the_same_process_is_the_same_as_going_straight(tmp_path):
    straight, parts = job(), None
    train(Run(tmp_path / "one", **straight), straight, 3)
    parts = job()
    run = train(Run(tmp_path / "two", **parts), parts, 1)
    torch.rand(5)  # 中间做了别的事
    train(run, parts, 3)
    assert same(weights(parts), weights(straight))


def test_objects_may_come_later_and_are_restored_when_all_are_there(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts)
    trained, parts = weights(parts), job(seed=1)
    fresh = weights(parts)
    run = Run(tmp_path, resume=True)
    assert (run.epoch, len(run.history)) == (1, 1)
    run.attach(model=parts["model"], scheduler=None)
    assert same(weights(parts), fresh)
    run.attach(optimizer=parts["optimizer"])
    assert same(weights(parts), trained)


def newer(folder):
    """把最新的存档改成格式更新的。"""
    save = saves(folder)[-1]
    manifest = json.loads((save / "manifest.json").read_text())
    (save / "manifest.json").unlink()
    from companion.checkpoint import _manifest as module

    old, module.FORMAT = module.FORMAT, 99
    records = {n: module.FileRecord(**r) for n, r in manifest["files"].items()}
    write_manifest(save, manifest["info"], records)
    module.FORMAT = old


WRONG = {
    "model": (
        lambda parts: parts | rebuilt(6),
        MismatchError,
        "权重应与 Sequential.*形状不同",
    ),
    "optimizer": (
        lambda parts: parts | {"optimizer": torch.optim.SGD(parts["model"].parameters(), lr=0.1)},
        MismatchError,
        "optimizer 应与存档相同，存档里是 AdamW，现在是 SGD",
    ),
    "parameter groups": (
        lambda parts: (
            parts
            | {
                "optimizer": torch.optim.AdamW(
                    [{"params": [p]} for p in parts["model"].parameters()]
                )
            }
        ),
        MismatchError,
        r"分组和次序应与存档相同.*每组有 \[4\] 个，现在有 \[1, 1, 1, 1\] 个",
    ),
    "scheduler's class": (
        lambda parts: with_scheduler(parts, torch.optim.lr_scheduler.ExponentialLR, gamma=0.9),
        MismatchError,
        "scheduler 应与存档相同，存档里是 StepLR，现在是 ExponentialLR",
    ),
    "missing scheduler": (
        lambda parts: {name: parts[name] for name in ("model", "optimizer")},
        MismatchError,
        r"存档里有而这次没给：scheduler（StepLR）",
    ),
    "one too many": (
        lambda parts: parts | {"ema": model_of()},
        MismatchError,
        r"这次给了而存档里没有：ema（Sequential）",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_match_is_named_and_nothing_is_loaded_or_written(tmp_path, name):
    change, error, message = WRONG[name]
    parts = with_scheduler(job(), step_size=2)
    train(Run(tmp_path, **parts), parts).close()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    parts = change(with_scheduler(job(seed=1), step_size=2))
    fresh = weights(parts)
    state = copy.deepcopy(parts["optimizer"].state_dict())
    with pytest.raises(error, match=message):
        train(Run(tmp_path, resume=True, **parts), parts, 2)
    assert same(weights(parts), fresh)
    assert parts["optimizer"].state_dict() == state
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_after_a_mismatch_the_right_objects_can_be_given(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts)
    with pytest.raises(MismatchError):
        Run(tmp_path, resume=True, **job() | rebuilt(9))
    parts = job()
    assert train(Run(tmp_path, resume=True, **parts), parts, 2).epoch == 2


def test_a_newer_format_is_named_and_not_overwritten(tmp_path):
    parts = job()
    train(Run(tmp_path, keep=1, **parts), parts)
    newer(tmp_path)
    names = saves(tmp_path)
    with pytest.raises(NewerFormatError, match="格式是 99"):
        Run(tmp_path, resume=True, **parts)
    assert saves(tmp_path) == names


def test_when_every_save_is_damaged_it_does_not_silently_start_over(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts)
    (saves(tmp_path)[-1] / "state.pt").write_bytes(b"")
    with pytest.raises(CorruptCheckpointError, match=r"state\.pt 应有"):
        Run(tmp_path, resume=True, **parts)


def test_a_damaged_newest_save_is_kept_for_the_curious(tmp_path, capsys):
    parts = job()
    train(Run(tmp_path, keep=2, **parts), parts, 2)
    damaged = saves(tmp_path)[-1]
    content = bytearray((damaged / "state.pt").read_bytes())
    content[100] ^= 1
    (damaged / "state.pt").write_bytes(content)
    parts = job()
    train(Run(tmp_path, resume=True, **parts), parts, 5)
    assert f"跳过：存档 {damaged.name} 坏了" in capsys.readouterr().out
    assert saves(tmp_path)[0] == damaged
    assert len(saves(tmp_path)) == 3


def test_a_compiled_or_wrapped_model_has_the_same_names(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts)
    trained, parts = weights(parts), job(seed=1)
    compiled = torch.compile(parts["model"], backend="eager")
    Run(tmp_path, resume=True, model=compiled, optimizer=parts["optimizer"])
    assert same(weights(parts), trained)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4]),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda i: 1 / (i + 1)),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [
                torch.optim.lr_scheduler.LinearLR(o, total_iters=2),
                torch.optim.lr_scheduler.CosineAnnealingLR(o, 5),
            ],
            [2],
        ),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, 3),
    ],
)
def test_the_schedulers_of_torch_continue_where_they_were(tmp_path, make):
    rates = []
    for name, cuts in (("straight", [3]), ("cut", [1, 2, 3])):
        for cut in cuts:
            parts = job()
            parts["scheduler"] = make(parts["optimizer"])
            train(Run(tmp_path / name, resume=True, **parts), parts, cut)
        rates.append(parts["optimizer"].param_groups[0]["lr"])
    assert rates[0] == rates[1]


def test_a_new_object_under_a_used_name_takes_over_the_state(tmp_path):
    parts = job()
    run = train(Run(tmp_path, **parts), parts)
    others = job(seed=5)
    run.attach(**others)
    assert same(weights(others), weights(parts))
    with pytest.raises(MismatchError):
        run.attach(model=model_of(7))
    assert train(run, others, 2).epoch == 2


def test_an_object_replaced_before_the_restore_gets_the_saved_state(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts)
    trained, one, two = weights(parts), job(seed=1), job(seed=2)
    run = Run(tmp_path, resume=True)
    run.attach(model=one["model"])
    run.attach(**two)
    assert same(weights(two), trained)


def test_after_a_mismatch_the_same_run_takes_the_right_objects(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts)
    trained, run = weights(parts), Run(tmp_path, resume=True)
    with pytest.raises(MismatchError):
        run.attach(**rebuilt(9))
    parts = job(seed=4)
    run.attach(**parts)
    assert same(weights(parts), trained)


def test_saving_before_everything_is_restored_is_refused(tmp_path):
    parts = job()
    train(Run(tmp_path, **parts), parts)
    before = saves(tmp_path)
    with pytest.raises(MismatchError, match="optimizer"):
        Run(tmp_path, resume=True, model=parts["model"]).save()
    assert saves(tmp_path) == before


def test_before_the_start_a_new_object_keeps_its_own_state(tmp_path):
    run = Run(tmp_path, **job())
    other = job(seed=5)
    fresh = weights(other)
    run.attach(**other)
    assert same(weights(other), fresh)


# —— 说的话


def test_resuming_says_where_and_which_hyper_parameters_differ(tmp_path, capsys):
    parts = job(lr=0.1)
    train(Run(tmp_path, config={"width": 5, "tag": "甲"}, **parts), parts).close()
    for lr in (0.2, 0.3):
        parts = job(lr=lr)
        run = Run(tmp_path, resume=True, config={"width": 6, "tag": "甲"}, **parts)
        capsys.readouterr()
        train(run, parts, run.epoch + 1)
        first, second, *_ = capsys.readouterr().out.splitlines()
        assert (
            first == f"继续 {tmp_path}：从第 {run.epoch} 轮开头（已练 {run.step - 3} 步）接着练。"
        )
        assert f"optimizer 的 lr 存档 0.1，现在 {lr}，用存档里的" in second
        assert ("width 存档 5，现在 6" in second) == (lr == 0.2)
        assert "恢复后改 optimizer.param_groups" in second
        assert "tag" not in second
        assert parts["optimizer"].param_groups[0]["lr"] == 0.1


def test_a_tuple_in_config_is_the_same_when_it_comes_back_as_a_list(tmp_path, capsys):
    parts, config = job(), {"betas": (0.9, 0.99), "sizes": (1, 2), "deep": {"more": (1, (2, 3))}}
    train(Run(tmp_path, config=config, **parts), parts)
    train(Run(tmp_path, resume=True, config=config, **parts), parts, 2)
    assert "与存档不同" not in capsys.readouterr().out


def test_resuming_with_the_same_hyper_parameters_says_one_line(tmp_path, capsys):
    parts = job()
    loader = DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=4)
    train(Run(tmp_path, **parts), parts, batches=loader)
    capsys.readouterr()
    train(Run(tmp_path, resume=True, **parts), parts, 2, batches=loader)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_another_batch_size_is_mentioned(tmp_path, capsys):
    parts = job()
    dataset = TensorDataset(INPUTS, TARGETS)
    train(Run(tmp_path, **parts), parts, batches=DataLoader(dataset, batch_size=4))
    train(Run(tmp_path, resume=True, **parts), parts, 2, batches=DataLoader(dataset, batch_size=6))
    assert "批量 4 成了 6" in capsys.readouterr().out


def test_a_finished_run_does_nothing_and_a_larger_total_goes_on(tmp_path, capsys):
    parts = job()
    train(Run(tmp_path, **parts), parts, 2)
    run = train(Run(tmp_path, resume=True, **parts), parts, 2)
    assert capsys.readouterr().out == (
        f"{tmp_path} 已经练完 2 轮，没有要练的；想多练，把轮数改大。\n"
    )
    assert train(run, parts, 3).epoch == 3


def test_a_stream_is_read_again_and_warned_about_once(tmp_path, capsys):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(BATCHES)

    parts = job()
    loader = DataLoader(Stream(), batch_size=None)
    run = Run(tmp_path, save_every=2, **parts)
    assert run.inexact is None
    train(run, parts, 2, batches=loader)
    assert "IterableDataset" in run.inexact
    assert capsys.readouterr().out.count("结果不保证与不中断时相同") == 1
    assert verify(saves(tmp_path)[-1])["inexact"] == run.inexact


def test_a_loader_of_another_length_is_mentioned_when_continuing_inside_an_epoch(tmp_path):
    class Stop(Exception):
        pass

    run = Run(tmp_path, save_every=1)
    with pytest.raises(Stop):
        for _ in run.epochs(1):
            for _ in run.batches(DataLoader(range(8), batch_size=2)):
                if run.step == 2:
                    raise Stop
    run = Run(tmp_path, resume=True)
    for _ in run.epochs(1):
        seen = [batch.tolist() for batch in run.batches(DataLoader(range(8), batch_size=1))]
    assert seen == [[2], [3], [4], [5], [6], [7]]
    assert "批数 4 成了 8，批量 2 成了 1" in run.inexact


# —— 存档


def test_saves_come_at_the_end_of_every_epoch_and_every_so_many_steps(tmp_path):
    parts = job()
    train(Run(tmp_path, keep=99, save_every=2, **parts), parts, 2)
    infos = [verify(path) for path in saves(tmp_path)]
    assert [(info["step"], info["closed"]) for info in infos] == [
        *[(2, False), (3, True), (4, False)],
        *[(6, False), (6, True)],
    ]
    assert [info["epoch"] for info in infos] == [1, 1, 2, 2, 2]


def test_the_last_saves_and_the_best_epoch_are_kept(tmp_path):
    parts = job()
    valid = [3.0, 1.0, 2.0, 1.0, 5.0, 6.0]
    train(Run(tmp_path, **parts), parts, 5, valid=valid)
    assert [verify(path)["epoch"] for path in saves(tmp_path)] == [2, 4, 5]
    run = Run(tmp_path, resume=True, keep=1, **parts)
    train(run, parts, 6, valid=valid)
    assert [verify(path)["epoch"] for path in saves(tmp_path)] == [2, 6]


def test_load_best_brings_the_weights_of_the_best_epoch(tmp_path):
    parts, at = job(), {}
    run = Run(tmp_path, best="valid_accuracy", mode="max", **parts)
    for epoch in run.epochs(3):
        for batch in run.batches(BATCHES):
            step(run, parts, *batch)
        run.log(valid_accuracy=[0.2, 0.9, 0.5][epoch - 1])
        at[epoch] = weights(parts)
    optimizer = copy.deepcopy(parts["optimizer"].state_dict())
    run.load_best()
    assert same(weights(parts), at[2])
    assert parts["optimizer"].state_dict()["param_groups"] == optimizer["param_groups"]
    later = job(seed=4)
    Run(tmp_path, resume=True, best="valid_accuracy", mode="max", **later).load_best()
    assert same(weights(later), at[2])


def test_load_best_says_what_is_missing(tmp_path):
    parts = job()
    run = train(Run(tmp_path, **parts), parts)
    with pytest.raises(RunError, match=r"'valid_loss'.*实际记下的是.*epoch.*loss"):
        run.load_best()
    run = Run(tmp_path / "b", keep=1, **parts)
    train(run, parts, 2, valid=[1.0, 2.0])
    (saves(tmp_path / "b")[0] / "state.pt").unlink()
    with pytest.raises(CheckpointError, match="第 1 轮最好，它的存档却没有了，或者坏了"):
        run.load_best()


def test_save_inside_the_loop_waits_for_the_end_of_the_step(tmp_path):
    parts = job()
    run = Run(tmp_path, keep=9, **parts)
    for _ in run.epochs(1):
        for i, batch in enumerate(run.batches(BATCHES)):
            if i == 1:
                run.save()
            assert len(saves(tmp_path)) == (i > 1)
            step(run, parts, *batch)
            if i == 1:
                after = weights(parts)
    state, info = load_checkpoint(saves(tmp_path)[0])
    assert (info["step"], info["closed"]) == (2, False)
    assert same(state["objects"]["model"], after)


def test_save_outside_the_batches_saves_now_and_continues_exactly(tmp_path):
    class Stop(Exception):
        pass

    def go(folder, stop):
        parts = job()
        run = Run(folder, resume=True, **parts)
        for epoch in run.epochs(2):
            for batch in run.batches(BATCHES):
                step(run, parts, *batch)
            torch.rand(1)  # 评估也抽随机数
            if stop and epoch == 1:
                run.save()
                raise Stop
            run.log(x=torch.rand(()))
        return weights(parts), run.history.records

    with pytest.raises(Stop):
        go(tmp_path / "a", stop=True)
    again, records = go(tmp_path / "a", stop=False)
    straight, expected = go(tmp_path / "b", stop=False)
    assert same(again, straight)
    assert records == expected


def test_save_before_the_start_saves_the_start(tmp_path):
    parts = job()
    Run(tmp_path, **parts).save()
    fresh, parts = weights(parts), job(seed=3)
    run = Run(tmp_path, resume=True, **parts)
    assert same(weights(parts), fresh)
    assert train(run, parts).step == 3


def test_with_a_window_saves_only_happen_after_an_update(tmp_path):
    run = Run(tmp_path, keep=99, save_every=3)
    for _ in run.epochs(1):
        for _ in run.batches(range(10), window=4):
            pass
    assert [verify(p)["step"] for p in saves(tmp_path)] == [4, 8, 10]


def test_state_that_cannot_be_stored_is_named(tmp_path):
    class Strange:
        def state_dict(self):
            return {"inner": object()}

        def load_state_dict(self, state):
            pass

    run = Run(tmp_path, strange=Strange())
    with pytest.raises(ArgumentError, match=r"state\.objects\.strange\.inner"):
        list(run.epochs(1))


# —— 循环


def test_two_loaders_one_after_the_other_continue_in_the_second(tmp_path):
    def go(folder, until=None):
        parts = job()
        seen = []
        run = Run(folder, resume=True, save_every=1, **parts)
        first = DataLoader(range(6), batch_size=2, shuffle=True, generator=torch.Generator())
        second = DataLoader(range(4), batch_size=1, shuffle=True)
        for _ in run.epochs(2):
            for name, loader in (("一", first), ("二", second)):
                for batch in run.batches(loader):
                    if run.step == until:
                        return seen
                    seen.append((name, batch.tolist(), torch.rand(1).item()))
        return seen

    straight = go(tmp_path / "straight")
    for until in (1, 3, 4, 7, 9):
        folder = tmp_path / str(until)
        assert go(folder, until) + go(folder) == straight


def test_a_generator_that_the_reader_seeds_every_epoch_is_left_alone(tmp_path):
    def go(folder, totals):
        seen = []
        for total in totals:
            g = torch.Generator().manual_seed(0)
            loader = DataLoader(range(6), batch_size=6, shuffle=True, generator=g)
            run = Run(folder, resume=True)
            for epoch in run.epochs(total):
                g.manual_seed(epoch)
                seen += [batch.tolist() for batch in run.batches(loader)]
        return seen

    assert go(tmp_path / "a", [4]) == go(tmp_path / "b", [1, 2, 4])


def test_the_order_of_companions_loaders_depends_on_the_epoch_only(tmp_path):
    def go(folder, totals):
        seen = []
        for total in totals:
            loader = TensorLoader(torch.arange(9), batch_size=4, shuffle=True)
            run = Run(folder, resume=True)
            for _ in run.epochs(total):
                seen += [batch[0].tolist() for batch in run.batches(loader)]
        return seen

    straight = go(tmp_path / "a", [3])
    assert straight == go(tmp_path / "b", [1, 2, 3])
    assert straight[0] != straight[3]


def test_batches_must_be_inside_epochs_and_one_at_a_time(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(RunError, match=r"run\.batches 应在 for epoch in run\.epochs"):
        next(run.batches([1]))
    for _ in run.epochs(1):
        outer = run.batches([1, 2])
        next(outer)
        with pytest.raises(RunError, match="还没有走完"):
            next(run.batches([3]))
        assert list(outer) == [2]


def test_leaving_the_batches_early_still_closes_the_epoch(tmp_path):
    parts = job()
    for total in (1, 2):
        run = Run(tmp_path, resume=True, **parts)
        for _ in run.epochs(total):
            for i, batch in enumerate(run.batches(BATCHES)):
                if i == 2:
                    break
                step(run, parts, *batch)
        assert (run.epoch, run.step) == (total, 2 * total)


def test_an_old_iterator_left_half_way_does_not_disturb_the_next_epoch(tmp_path):
    run, kept = Run(tmp_path), []
    for _ in run.epochs(2):
        kept.append(run.batches([1, 2]))
        next(kept[-1])
    assert run.epoch == 2
    kept.clear()
    run.save()


def test_stop_finishes_the_epoch_and_stays_stopped(tmp_path, capsys):
    parts = job()
    run = Run(tmp_path, **parts)
    for epoch in run.epochs(5):
        for batch in run.batches(BATCHES):
            step(run, parts, *batch)
            if epoch == 2:
                run.stop()
    assert (run.epoch, run.step) == (2, 6)
    again = Run(tmp_path, resume=True, **parts)
    assert list(again.epochs(5)) == []
    assert "已经练完 2 轮（run.stop() 叫停的）" in capsys.readouterr().out
    assert list(again.epochs(6)) == [3, 4, 5, 6]


def test_break_after_the_batches_says_that_the_epoch_was_not_saved(tmp_path, capsys):
    parts = job()
    run = Run(tmp_path, **parts)
    for epoch in run.epochs(3):
        for batch in run.batches(BATCHES):
            step(run, parts, *batch)
        if epoch == 2:
            break
    assert capsys.readouterr().out == (
        "第 2 轮没有走到收尾；最后的存档是 save-00001-step-3。想存完再停，用 run.stop()。\n"
    )
    assert [verify(path)["epoch"] for path in saves(tmp_path)] == [1]
    with pytest.raises(RunError, match=r"断在一轮中间.*resume=True"):
        run.epochs(3)


def test_break_before_anything_was_done_loses_nothing(tmp_path, capsys):
    parts = job()
    run = train(Run(tmp_path, **parts), parts)
    for _ in run.epochs(3):
        break
    assert (run.epoch, capsys.readouterr().out) == (1, "")
    assert train(run, parts, 2).epoch == 2


def test_an_error_in_the_loop_leaves_the_last_save_and_the_handlers(tmp_path):
    parts = job()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run = Run(tmp_path, **parts)
    with pytest.raises(ZeroDivisionError):
        for epoch in run.epochs(3):
            for batch in run.batches(BATCHES):
                step(run, parts, *batch)
                assert signal.getsignal(signal.SIGINT) is not handlers[0]
                if epoch == 2:
                    raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert verify(saves(tmp_path)[-1])["step"] == 3


def test_a_thread_may_train_without_touching_the_signals(tmp_path):
    seen = []

    def go():
        for _ in Run(tmp_path).epochs(1):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_ignored_signal_stays_ignored(tmp_path):
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for _ in Run(tmp_path).epochs(1):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)


def test_ctrl_c_saves_the_step_and_raises_keyboard_interrupt(tmp_path, capsys):
    parts = job()
    run = Run(tmp_path, **parts)
    with pytest.raises(KeyboardInterrupt):
        for _ in run.epochs(2):
            for i, batch in enumerate(run.batches(BATCHES)):
                if i == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                step(run, parts, *batch)
    path = saves(tmp_path)[-1]
    assert verify(path)["step"] == 2
    assert f"Ctrl-C：已存到 {path}（第 1 轮，共 2 步）" in capsys.readouterr().out
    with pytest.raises(RunError, match="已经存好停下"):
        run.epochs(2)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        for _ in run.epochs(1):
            for _ in run.batches([1, 2]):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                raise AssertionError("第二次应当立即停")
    assert saves(tmp_path) == []


def test_a_signal_during_the_evaluation_waits_for_the_end_of_the_epoch(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(SystemExit) as left:
        for _ in run.epochs(3):
            list(run.batches([1, 2]))
            os.kill(os.getpid(), signal.SIGTERM)
            run.log(valid_loss=1.0)
    assert left.value.code == 143
    assert verify(saves(tmp_path)[-1])["closed"]
    assert run.history.records == [{"epoch": 1, "valid_loss": 1.0}]
