"""加载器的种种写法：共用的发生器、自己的采样器、就地打乱、数据集自带的发生器、不重启的子进程。"""

import random
import re
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from companion.data import TensorLoader, loaders
from companion.repro import seed_everything
from companion.run import Run
from companion.train import fit

N = 12


def epochs_of(folder, totals, make, body):
    """每个 ``total`` 是一个新进程；返回见到的各批，每批带一个模型里抽的随机数。"""
    seen = []
    for total in totals:
        seed_everything(0)
        loaders_, run = make(), Run(folder, resume=True)
        for epoch in run.epochs(total):
            seen += body(run, epoch, *loaders_)
        run.close()
    return seen


def assert_exact(tmp_path, make, body):
    straight = epochs_of(tmp_path / "a", [4], make, body)
    assert epochs_of(tmp_path / "b", [1, 2, 4], make, body) == straight
    assert epochs_of(tmp_path / "c", [3, 4], make, body) == straight


def plain(run, epoch, train, *_):
    return [(batch.tolist(), torch.rand(()).item()) for batch in run.batches(train)]


# —— 一个发生器，训练和验证都用


def sharing():
    g = torch.Generator().manual_seed(0)
    train = DataLoader(range(N), 4, shuffle=True, generator=g)
    return train, DataLoader(range(N), 6, generator=g), g


def then_valid(run, epoch, train, valid, g):
    seen = plain(run, epoch, train)
    list(valid)
    return seen


def then_train_again(run, epoch, train, valid, g):
    seen = plain(run, epoch, train)
    list(train)
    return seen


def both_in_batches(run, epoch, train, valid, g):
    return plain(run, epoch, train) + plain(run, epoch, valid)


def seeded_first(run, epoch, train, valid, g):
    g.manual_seed(epoch)
    return then_valid(run, epoch, train, valid, g)


def seeded_last(run, epoch, train, valid, g):
    seen = then_valid(run, epoch, train, valid, g)
    g.manual_seed(epoch)
    return seen


def built_anew(run, epoch, train, valid, g):
    seen = plain(run, epoch, DataLoader(range(N), 4, shuffle=True, generator=g))
    list(valid)
    return seen


@pytest.mark.parametrize(
    "body",
    [then_valid, then_train_again, both_in_batches, seeded_first, seeded_last, built_anew],
)
def test_a_generator_that_others_use_too_continues_where_the_epoch_left_it(tmp_path, body):
    assert_exact(tmp_path, sharing, body)


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6, 8])
def test_a_shared_generator_is_exact_inside_an_epoch_too(tmp_path, at):
    def go(folder, until=None):
        seed_everything(0)
        (train, valid, _), seen = sharing(), {}
        run = Run(folder, resume=True, save_every=1)
        for epoch in run.epochs(3):
            for batch in run.batches(train):
                if run.step == until:
                    return seen
                seen[run.step] = (batch.tolist(), torch.rand(()).item())
            seen[f"验证 {epoch}"] = [torch.rand(()).item() for _ in valid]
            if until == f"验证 {epoch}":
                run.save()
                return seen
        return seen

    straight = go(tmp_path / "a")
    first = go(tmp_path / "b", at)
    assert first | go(tmp_path / "b") == straight


def test_a_save_after_the_validation_is_exact_with_a_shared_generator(tmp_path):
    def go(folder, until=None):
        seed_everything(0)
        (train, valid, _), seen = sharing(), []
        run = Run(folder, resume=True)
        for epoch in run.epochs(3):
            seen += plain(run, epoch, train)
            if epoch == until:
                run.save()
                return seen
            list(valid)
        return seen

    straight = go(tmp_path / "a")
    assert go(tmp_path / "b", 2) + go(tmp_path / "b") == straight


def test_a_generator_moved_once_between_two_loops_is_continued_later(tmp_path):
    def go(folder, *totals, between=False):
        seed_everything(0)
        train, valid, _ = sharing()
        run, seen = Run(folder, resume=True), []
        for total in totals:
            for epoch in run.epochs(total):
                seen += plain(run, epoch, train)
            if between:
                list(valid)
                between = False
        run.close()
        return seen

    straight = go(tmp_path / "a", 1, 4, between=True)
    assert go(tmp_path / "b", 1, 3, between=True) + go(tmp_path / "b", 4) == straight


def test_a_loader_is_not_kept_alive_between_the_epochs(tmp_path):
    run = Run(tmp_path)
    epochs = run.epochs(2)
    next(epochs)
    loader = DataLoader(range(N), 4, shuffle=True, generator=torch.Generator())
    list(run.batches(loader))
    gone = weakref.ref(loader)
    del loader
    next(epochs)
    assert gone() is None
    batches = [torch.zeros(1)]
    gone = weakref.ref(batches[0])
    list(run.batches(batches))
    del batches
    list(epochs)
    assert gone() is None


# —— 自己的采样器


class Sampler:
    def __init__(self):
        self.rng = np.random.RandomState(3)

    def __len__(self):
        return N

    def __iter__(self):
        return iter(self.rng.permutation(N).tolist())


def test_numpys_random_state_in_a_sampler_is_continued(tmp_path):
    assert_exact(tmp_path, lambda: [DataLoader(range(N), 4, sampler=Sampler())], plain)


def sampled(run, epoch, batches):
    return plain(run, epoch, random.sample(batches, len(batches)))


def test_a_list_of_batches_shuffled_into_a_copy_is_exact(tmp_path):
    assert_exact(tmp_path, lambda: [[torch.tensor([i]) for i in range(6)]], sampled)


# —— 不重启的子进程


def staying(**options):
    return DataLoader(range(4), 2, num_workers=1, persistent_workers=True, **options)


def test_workers_that_stay_are_named(tmp_path, capsys):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        list(run.batches(staying(shuffle=True)))
    assert "persistent_workers=True" in capsys.readouterr().out
    assert "persistent_workers=True" in run.inexact


def test_workers_that_stay_do_make_a_difference_and_those_of_loaders_do_not(tmp_path, capsys):
    def go(folder, make):
        return epochs_of(tmp_path / f"{folder} 1", [2], make, plain) == epochs_of(
            tmp_path / f"{folder} 2", [1, 2], make, plain
        )

    assert not go("torch", lambda: [staying(shuffle=True)])
    capsys.readouterr()
    assert go("ours", lambda: [loaders(range(4), batch_size=2, workers=1)])
    assert "不保证" not in capsys.readouterr().out


@pytest.mark.parametrize("valid", ["stays", "starts anew", "ours"])
def test_fit_is_exact_whatever_the_workers_of_the_validation_do(tmp_path, valid):
    data = TensorDataset(torch.randn(12, 2), torch.zeros(12, dtype=torch.int64))
    made = {
        "stays": lambda: DataLoader(data, 4, num_workers=1, persistent_workers=True),
        "starts anew": lambda: DataLoader(data, 4, num_workers=1),
        "ours": lambda: loaders(list(data), batch_size=4, workers=1),
    }

    def go(folder, totals):
        for total in totals:
            seed_everything(0)
            model, train = nn.Linear(2, 2), DataLoader(data, 4, shuffle=True)
            how = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "progress": False}
            how |= {"loss": F.cross_entropy, "epochs": total, "run": Run(folder, resume=True)}
            fit(model, train, made[valid](), **how)
        return model.weight.tolist()

    assert go(tmp_path / "a", [3]) == go(tmp_path / "b", [1, 2, 3])


# —— 加载器的样子

OTHER = {
    "样本数 95 成了 99": {"n": 99},
    "种子 0 成了 7": {"seed": 7},
    "批量 10 成了 11，批数 10 成了 9": {"batch_size": 11},
}


@pytest.mark.parametrize("changed", OTHER)
def test_another_loader_is_named_when_continuing_inside_an_epoch(tmp_path, capsys, changed):
    def feed(n=95, batch_size=10, seed=0):
        return TensorLoader(torch.arange(n), batch_size=batch_size, shuffle=True, seed=seed)

    run = Run(tmp_path, save_every=5)
    for _ in run.epochs(1):
        for i, _ in enumerate(run.batches(feed())):
            if i == 5:
                break
        break
    run.close()
    run = Run(tmp_path, resume=True)
    for _ in run.epochs(1):
        list(run.batches(feed(**OTHER[changed])))
    assert set(changed.split("，")) <= set(re.findall(r"\w+ \d+ 成了 \d+", run.inexact))
    assert run.inexact in capsys.readouterr().out
