"""在每一步上打断，再接着练：权重、优化器、记录、随机数与没有断过的一位不差。"""

import os
import pickle
import random
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, WeightedRandomSampler

from companion.checkpoint import saves
from companion.data import loaders
from tests.faults.run_job import SIZE, STEPS, data, interrupted, same, shuffled, train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="没有 fork")

ALL = os.environ.get("FAULTS") == "all"
ROOT = Path(__file__).parents[2]


def two_workers():
    return shuffled(workers=2)


def own_generator(workers=0):
    generator = torch.Generator().manual_seed(7)
    return DataLoader(data(), SIZE, shuffle=True, generator=generator, num_workers=workers)


class Noisy(Dataset):
    """样本带随机噪声：抽的是全局随机数。"""

    def __init__(self):
        self.base = data()

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        inputs, target = self.base[index]
        return inputs + torch.randn(4) * random.random(), target


class Chunks:
    """读者自己的 BatchSampler。"""

    def __iter__(self):
        order = torch.randperm(len(data())).tolist()
        random.shuffle(order)
        return iter([order[i : i + SIZE] for i in range(0, len(order), SIZE)])

    def __len__(self):
        return 5


LOADERS = {
    "shuffle": shuffled,
    "two workers": two_workers,
    "generator": own_generator,
    "sampler's generator": lambda: DataLoader(
        data(),
        SIZE,
        sampler=RandomSampler(data(), True, 37, torch.Generator().manual_seed(1)),
    ),
    "weighted": lambda: DataLoader(
        data(), SIZE, sampler=WeightedRandomSampler(torch.arange(1.0, 38), 37)
    ),
    "batch sampler": lambda: DataLoader(data(), batch_sampler=Chunks()),
    "random samples": lambda: DataLoader(Noisy(), SIZE, shuffle=True),
    "list": lambda: list(DataLoader(data(), SIZE)),
    "loaders of tensors": lambda: loaders(data(), batch_size=SIZE),
    "loaders of random samples": lambda: loaders(Noisy(), batch_size=SIZE),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """没有断过的结果，每种加载器练一次。"""
    results = {}

    def result(name):
        if name not in results:
            results[name] = train(tmp_path_factory.mktemp("whole"), LOADERS[name])
        return results[name]

    return result


def sampled(cases, step):
    return cases if ALL else cases[::step]


@pytest.mark.parametrize(
    ("at", "kind"), sampled(list(product(range(1, STEPS + 1), ["SIGTERM", "SIGKILL"])), 1)
)
def test_interrupted_at_every_step(tmp_path, uninterrupted, at, kind):
    code = interrupted(tmp_path, shuffled, at, kind)
    assert code == (143 if kind == "SIGTERM" else -signal.SIGKILL)
    last = int(saves(tmp_path)[-1].name.split("-")[-1]) if saves(tmp_path) else 0
    assert last == (at if kind == "SIGTERM" else at - 1)
    resumed = train(tmp_path)
    assert resumed["inexact"] is None
    assert same(resumed, uninterrupted("shuffle"))


@pytest.mark.parametrize(
    ("name", "at", "kind"),
    [
        case
        for name in LOADERS
        for case in sampled(list(product([name], range(1, 15), ["SIGTERM", "SIGKILL"])), 11)
        if name not in ("shuffle", "two workers")
    ],
)
def test_every_kind_of_loader_continues_exactly(tmp_path, uninterrupted, name, at, kind):
    interrupted(tmp_path, LOADERS[name], at, kind)
    resumed = train(tmp_path, LOADERS[name])
    assert resumed["inexact"] is None
    assert same(resumed, uninterrupted(name))


@pytest.mark.parametrize(
    ("first", "then", "at", "kind"),
    sampled(
        [
            (*pair, at, kind)
            for at in range(1, 15)
            for kind in ("SIGTERM", "SIGKILL")
            for pair in ((2, 2), (0, 2), (2, 0))
        ],
        17,
    ),
)
def test_the_number_of_workers_does_not_matter(tmp_path, uninterrupted, first, then, at, kind):
    interrupted(tmp_path, lambda: shuffled(first), at, kind)
    assert same(train(tmp_path, lambda: shuffled(then)), uninterrupted("shuffle"))


def test_workers_give_the_same_run_as_no_workers(uninterrupted):
    assert same(uninterrupted("two workers"), uninterrupted("shuffle"))


@pytest.mark.parametrize("seed", range(50 if ALL else 4))
def test_interrupted_again_and_again(tmp_path, uninterrupted, seed):
    choose = random.Random(seed)
    at = 0
    while at < STEPS:
        at = choose.randint(at + 1, STEPS)
        interrupted(tmp_path, own_generator, at, choose.choice(["SIGTERM", "SIGKILL"]))
    assert same(train(tmp_path, own_generator), uninterrupted("generator"))


PROGRAM = """
import pickle, sys
from pathlib import Path
from tests.faults.run_job import train
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    result = train(folder)
    (folder / "result").write_bytes(pickle.dumps(result))
"""


@pytest.mark.parametrize("at", [3, 5, 11])
def test_a_fresh_interpreter_continues_exactly(tmp_path, uninterrupted, at):
    interrupted(tmp_path, shuffled, at, "SIGKILL" if at == 5 else "SIGTERM")
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, check=True)
    result = pickle.loads((tmp_path / "result").read_bytes())
    assert same(result, uninterrupted("shuffle"))


def test_a_damaged_newest_save_is_passed_over_and_the_end_is_the_same(
    tmp_path, uninterrupted, capfd
):
    interrupted(tmp_path, shuffled, 8, "SIGKILL")
    newest = saves(tmp_path)[-1]
    content = bytearray((newest / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "state.pt").write_bytes(content)
    capfd.readouterr()
    assert same(train(tmp_path), uninterrupted("shuffle"))
    printed = capfd.readouterr().out
    assert f"跳过：存档 {newest.name} 坏了：state.pt 的 sha256" in printed
    assert "从第 2 轮第 2 批（第 7 步）接着练" in printed
    assert newest.exists()


def test_random_samples_in_workers_are_warned_about_and_not_claimed_exact(tmp_path, capfd):
    def noisy():
        return DataLoader(Noisy(), SIZE, shuffle=True, num_workers=2)

    interrupted(tmp_path, noisy, 7, "SIGTERM")
    assert "在子进程里抽随机数" in train(tmp_path, noisy)["inexact"]
    printed = capfd.readouterr().out
    assert printed.count("结果不保证与不中断时相同：样本里的随机变换在子进程里抽随机数") == 2


def test_training_longer_continues_a_finished_run(tmp_path, uninterrupted, capfd):
    train(tmp_path, epochs=1)
    train(tmp_path, epochs=2)
    assert same(train(tmp_path), uninterrupted("shuffle"))
    assert "已经练完" not in capfd.readouterr().out
    records = train(tmp_path)["history"]
    assert f"{tmp_path} 已经练完 3 轮，没有要练的" in capfd.readouterr().out
    assert records == uninterrupted("shuffle")["history"]
