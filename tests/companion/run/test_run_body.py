"""Run 的循环体：手写的梯度累积、留着不放的迭代器、各批之前的代码、忘了交的优化器。"""

import copy
import os
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import _global_optimizer_post_hooks as HOOKS
from torch.utils.data import DataLoader, TensorDataset

from companion.checkpoint import saves, verify
from companion.errors import ArgumentError, RunError
from companion.repro import seed_everything
from companion.run import Run

G = torch.Generator().manual_seed(0)
INPUTS, TARGETS = torch.randn(40, 4, generator=G), torch.randint(3, (40,), generator=G)
BATCHES = list(zip(INPUTS.split(4), TARGETS.split(4), strict=True))  # 10 批


class Stop(Exception):
    """像 kill -9 一样断在这里。"""


def model_of():
    return nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.3), nn.Linear(5, 3))


def job(optimizer=torch.optim.SGD, seed=0, **options):
    seed_everything(seed)
    model = model_of()
    return {"model": model, "optimizer": optimizer(model.parameters(), lr=0.1, **options)}


def backward(parts, batch):
    F.cross_entropy(parts["model"](batch[0]), batch[1]).backward()


def update(parts):
    parts["optimizer"].step()
    parts["optimizer"].zero_grad()


def step(parts, batch):
    backward(parts, batch)
    update(parts)


def weights(parts):
    return copy.deepcopy(parts["model"].state_dict())


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def steps_saved(folder):
    return [verify(path)["step"] for path in saves(folder)]


# —— 手写的梯度累积


def accumulate(run, parts, epochs=2, at=None, how=None, tail=True):
    """4 批更新一次，不说 window=；一轮 10 批，末尾 2 批另外更新。第 ``at`` 步上 ``how()``。"""
    for _ in run.epochs(epochs):
        parts["optimizer"].zero_grad()
        for i, batch in enumerate(run.batches(BATCHES)):
            backward(parts, batch)
            if run.step + 1 == at:
                how()
            if (i + 1) % 4 == 0:
                update(parts)
        if tail and (i + 1) % 4:
            update(parts)
    return weights(parts)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def die():
    raise Stop


HAND_MADE = [torch.optim.SGD, torch.optim.AdamW]


@pytest.mark.parametrize("optimizer", HAND_MADE)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("tail", [False, True])
def test_a_signal_inside_a_hand_made_window_waits_for_the_update(tmp_path, optimizer, fused, tail):
    def go(folder, *stop):
        parts = job(optimizer, fused=fused)
        return accumulate(Run(folder, resume=True, **parts), parts, 2, *stop, tail=tail)

    straight = go(tmp_path / "straight")
    for at in (2, 5, 8, 9, 10, 13, 18, 20):
        folder = tmp_path / str(at)
        with pytest.raises(SystemExit):
            go(folder, at, terminate)
        assert same(go(folder), straight)


def test_saves_every_few_steps_wait_for_the_update_of_a_hand_made_window(tmp_path):
    def go(folder, *stop):
        parts = job(torch.optim.AdamW)
        run = Run(folder, resume=True, save_every=3, keep=99, **parts)
        return accumulate(run, parts, 2, *stop)

    straight = go(tmp_path / "straight")
    assert steps_saved(tmp_path / "straight") == [4, 8, 10, 14, 18, 20]
    for at in range(5, 21):
        folder = tmp_path / str(at)
        with pytest.raises(Stop):
            go(folder, at, die)
        assert same(go(folder), straight)


@pytest.mark.parametrize("kind", ["clamped", "averaged"])
def test_a_model_touched_at_every_batch_does_not_look_updated(tmp_path, kind):
    """每批都裁剪权重，或更新一份要训练的滑动平均：那都不是用掉了梯度。"""

    def go(folder, *stop):
        parts = job(torch.optim.AdamW)
        average = copy.deepcopy(parts["model"])
        run = Run(folder, resume=True, average=average, **parts)

        def touch(*_):
            with torch.no_grad():
                for mine, theirs in zip(
                    parts["model"].parameters(), average.parameters(), strict=True
                ):
                    (mine.clamp_(-0.5, 0.5) if kind == "clamped" else theirs.lerp_(mine, 0.1))

        parts["model"].register_forward_pre_hook(touch)
        return accumulate(run, parts, 2, *stop)

    straight = go(tmp_path / "straight")
    for at in (2, 5, 13):
        with pytest.raises(SystemExit):
            go(tmp_path / str(at), at, terminate)
        assert same(go(tmp_path / str(at)), straight)


def test_a_second_signal_in_a_hand_made_window_stops_at_once(tmp_path):
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    parts = job()
    with pytest.raises(KeyboardInterrupt):
        accumulate(Run(tmp_path, **parts), parts, at=6, how=twice)
    assert saves(tmp_path) == []


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_of_less_than_one_batch_is_refused(tmp_path, window):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        with pytest.raises(ArgumentError, match="window 应为不小于 1"):
            run.batches(BATCHES, window=window)


def test_a_window_of_one_never_waits_for_an_optimizer_that_cannot_be_seen(tmp_path):
    parts = job()
    run = Run(tmp_path, save_every=3, keep=99, **parts)
    for _ in run.epochs(1):
        for batch in run.batches(BATCHES, window=1):
            backward(parts, batch)  # 手写的更新：梯度留着，优化器不走
    assert steps_saved(tmp_path) == [3, 6, 9, 10]


def test_objects_given_in_mid_run_are_watched_too(tmp_path):
    run = Run(tmp_path, **job())
    for epoch in run.epochs(2):
        if epoch == 2:
            parts = job(seed=7)
            run.attach(**parts)
            for batch in run.batches(BATCHES):
                step(parts, batch)
                break
    assert run.step == 1


def test_window_wins_over_what_is_seen(tmp_path):
    parts = job()
    run = Run(tmp_path, save_every=1, keep=99, **parts)
    for _ in run.epochs(1):
        for i, batch in enumerate(run.batches(BATCHES, window=5)):
            backward(parts, batch)
            if i in (0, 3):
                update(parts)
    assert steps_saved(tmp_path) == [5, 10, 10]


def test_a_skipped_update_postpones_a_save_by_one_batch(tmp_path):
    parts = job()
    run = Run(tmp_path, save_every=4, keep=99, **parts)
    for _ in run.epochs(2):
        for batch in run.batches(BATCHES):
            backward(parts, batch)
            if run.step + 1 != 12:
                update(parts)
    assert steps_saved(tmp_path) == [4, 8, 10, 13, 16, 20, 20]


def test_when_no_update_is_ever_seen_saves_come_as_they_are_due(tmp_path):
    """重放 CUDA 图的更新不动版本号：这里用 .data 造出同样的情形。"""
    parts = job()
    run = Run(tmp_path, save_every=4, keep=99, **parts)
    for _ in run.epochs(2):
        for _ in run.batches(BATCHES):
            for parameter in parts["model"].parameters():
                parameter.data += 1.0
    assert steps_saved(tmp_path) == [4, 8, 10, 12, 16, 20, 20]


def test_a_save_is_not_postponed_for_ever_when_the_updates_are_no_longer_seen(tmp_path):
    """先照常练一轮，然后有梯度，却再也看不到更新，如重放 CUDA 图：等得太久，就照存。"""
    parts = job()
    run = Run(tmp_path, save_every=300, keep=99, **parts)
    for epoch in run.epochs(2):
        for _ in run.batches(range(600)):
            backward(parts, BATCHES[0])
            if epoch == 1:
                update(parts)
    assert steps_saved(tmp_path) == [300, 600, 600, 600 + 300 + 256, 1200, 1200]


def test_a_save_after_the_batches_waits_only_while_gradients_are_pending(tmp_path):
    for tail, saved in ((False, [10, 20, 20]), (True, [10, 10, 20, 20])):
        folder, parts = tmp_path / str(tail), job()
        run = Run(folder, keep=99, **parts)
        for epoch in run.epochs(2):
            for i, batch in enumerate(run.batches(BATCHES)):
                backward(parts, batch)
                if (i + 1) % 4 == 0 or (i == 9 and (tail or epoch == 2)):
                    update(parts)
            run.save()
        assert steps_saved(folder) == saved


def test_a_save_after_a_break_before_training_comes_at_once(tmp_path):
    parts = job()
    run = Run(tmp_path, keep=99, **parts)
    for _ in run.epochs(2):
        for i, batch in enumerate(run.batches(BATCHES)):
            if i == 3:
                break
            step(parts, batch)
        run.save()
    assert steps_saved(tmp_path) == [3, 3, 6, 6]


# —— 留着不放的迭代器


def test_the_last_batch_before_a_break_counts_even_if_the_iterator_is_kept(tmp_path):
    """run 的文档里按步数停的写法，只是迭代器放在变量里（tqdm 也是这样）。"""
    parts = job()
    run = Run(tmp_path, **parts)
    for _ in run.epochs(10):
        kept = run.batches(BATCHES)
        for batch in kept:
            step(parts, batch)
            if run.step + 1 >= 14:
                run.stop()
                break
    assert run.step == steps_saved(tmp_path)[-1] == 14
    assert list(kept) == []


def test_a_kept_iterator_continues_exactly_after_a_break(tmp_path):
    def go(folder, totals):
        for total in totals:
            parts = job()
            own = torch.Generator().manual_seed(1)
            data = TensorDataset(INPUTS, TARGETS)
            loader = DataLoader(data, batch_size=4, shuffle=True, generator=own)
            run = Run(folder, resume=True, **parts)
            for _ in run.epochs(total):
                kept = run.batches(loader)
                for i, batch in enumerate(kept):
                    step(parts, batch)
                    if i == 3:
                        break
        return weights(parts), run.step

    one, two = go(tmp_path / "a", [3]), go(tmp_path / "b", [1, 2, 3])
    assert one[1] == two[1] == 12
    assert same(one[0], two[0])


def test_an_iterator_that_is_not_kept_is_over_right_after_the_break(tmp_path):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        for _ in range(2):
            for _ in run.batches([1, 2]):
                break
        assert run.step == 2


def test_an_iterator_not_yet_begun_is_left_alone(tmp_path):
    run = Run(tmp_path)
    later = [run.batches([1, 2]) for _ in range(2)]
    for epoch in run.epochs(2):
        assert list(later[epoch - 1]) == [1, 2]


# —— 断在一轮中间时说的话


def test_an_epoch_that_did_not_end_names_the_save_to_continue_from(tmp_path, capsys):
    def go(folder, at, **options):
        parts = job()
        run = Run(folder, **options, **parts)
        with pytest.raises(Stop):
            for _ in run.epochs(2):
                for batch in run.batches(BATCHES):
                    step(parts, batch)
                    if run.step + 1 == at:
                        raise Stop
        return capsys.readouterr().out

    tail = "想存完再停，用 run.stop()。\n"
    assert go(tmp_path / "a", 17, save_every=4) == (
        f"第 2 轮没有走到收尾；最后的存档是 save-00005-step-16。{tail}"
    )
    assert go(tmp_path / "b", 12) == (
        f"第 2 轮没有走到收尾；最后的存档是 save-00001-step-10。{tail}"
    )
    assert go(tmp_path / "c", 3) == f"第 1 轮没有走到收尾；还没有存档。{tail}"


def test_a_save_that_was_asked_for_and_cut_off_by_break_is_named(tmp_path, capsys):
    parts = job()
    run = Run(tmp_path, **parts)
    for _ in run.epochs(2):
        for batch in run.batches(BATCHES):
            step(parts, batch)
            run.save()
            break
        break
    assert "还没有存档，save() 要的那次这一步走完才存，没有等到。" in capsys.readouterr().out


class Wrapper(torch.optim.Optimizer):
    """像 accelerate 那样包着一个优化器，自己没有钩子。"""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.state, self.defaults = optimizer.state, optimizer.defaults
        self.param_groups = optimizer.param_groups

    def state_dict(self):
        return self.optimizer.state_dict()

    def step(self):
        self.optimizer.step()

    def zero_grad(self):
        self.optimizer.zero_grad()


def test_a_wrapped_optimizer_is_counted_and_not_called_forgotten(tmp_path, capsys):
    parts = job(torch.optim.AdamW, fused=True)
    parts["optimizer"] = Wrapper(parts["optimizer"])
    run = Run(tmp_path, save_every=6, keep=99, **parts)
    accumulate(run, parts, 2)
    assert steps_saved(tmp_path) == [8, 10, 14, 18, 20]
    assert capsys.readouterr().out == ""


def test_a_hook_is_gone_after_an_error_or_when_the_run_is_closed(tmp_path):
    parts = job()
    run = Run(tmp_path, **parts)
    kept = run.epochs(1)
    next(kept)
    for _ in run.batches(BATCHES):
        assert len(HOOKS) == 1
        assert not parts["optimizer"]._optimizer_step_post_hooks
        break
    run.close()
    assert not HOOKS
    with pytest.raises(RunError):
        run.epochs(1)
