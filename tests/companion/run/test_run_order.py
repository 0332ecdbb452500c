"""让加载器从第 k 批开始；看出哪些加载器不能精确续上。"""

import os
import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from companion.data import TensorLoader, loaders
from companion.repro import random_state, restore_random_state, seed_everything
from companion.run._order import (
    _clone,
    _Indices,
    announce,
    generators,
    looks_of,
    start,
    why_inexact,
)
from companion.run._place import _restore as restore
from companion.run._place import _states as states

DATA = TensorDataset(torch.arange(22.0).reshape(11, 2))


class Halves:
    """读者自己的 BatchSampler：每轮先洗牌，再两个两个地给。"""

    def __init__(self, rng=None):
        self.rng = rng

    def __iter__(self):
        order = list(range(10))
        (self.rng or random).shuffle(order)
        return iter([order[i : i + 2] for i in range(0, 10, 2)])

    def __len__(self):
        return 5


class Lazy(Halves):
    """边取边抽的采样器。"""

    def __iter__(self):
        for _ in range(5):
            yield torch.randint(10, (2,)).tolist()


def generator():
    return torch.Generator().manual_seed(4)


LOADERS = {
    "shuffle": lambda **o: DataLoader(DATA, batch_size=3, shuffle=True, **o),
    "in order": lambda **o: DataLoader(DATA, batch_size=3, drop_last=True, **o),
    "generator": lambda **o: DataLoader(
        DATA, batch_size=3, shuffle=True, generator=generator(), **o
    ),
    "sampler's generator": lambda **o: DataLoader(
        DATA, 3, sampler=RandomSampler(DATA, replacement=True, generator=generator()), **o
    ),
    "weighted": lambda **o: DataLoader(
        DATA, 2, sampler=WeightedRandomSampler(torch.arange(1.0, 12.0), 8), **o
    ),
    "subset": lambda **o: DataLoader(DATA, 2, sampler=SubsetRandomSampler(range(7)), **o),
    "batch sampler": lambda **o: DataLoader(DATA, batch_sampler=Halves(), **o),
    "with python's generator": lambda **o: DataLoader(
        DATA, batch_sampler=Halves(random.Random(1)), **o
    ),
    "with numpy's generator": lambda **o: DataLoader(
        DATA, batch_sampler=Halves(np.random.default_rng(1)), **o
    ),
    "no batches": lambda **o: DataLoader(DATA, batch_size=None, shuffle=True, **o),
    "whole batches": lambda **o: DataLoader(
        DATA, sampler=BatchSampler(RandomSampler(DATA), 4, False), batch_size=None, **o
    ),
}


def never(*reason):
    raise AssertionError(reason)


def flat(batches):
    return [torch.cat([t.flatten() for t in batch]).tolist() for batch in batches]


SAMPLED = ["shuffle", "sampler's generator"]  # 子进程慢：平时只试两种，FAULTS=all 全试
CASES = [(name, 0) for name in LOADERS]
CASES += [(name, 2) for name in (LOADERS if os.environ.get("FAULTS") == "all" else SAMPLED)]


@pytest.mark.parametrize(("name", "workers"), CASES)
def test_a_loader_started_at_a_batch_gives_the_batches_that_were_left(name, workers):
    loader = LOADERS[name](num_workers=workers)
    seed_everything(1)
    before, own = random_state(), states(generators(loader))
    whole = flat(start(loader, 0, never)[0])
    after, own_after = random_state(), states(generators(loader))
    for done in {1, 2, len(whole)} if workers == 0 else {2}:
        restore_random_state(before)
        restore(generators(loader), own)
        iterator, draw = start(loader, done, never)
        draw()
        assert random_state()["torch"].equal(after["torch"])
        assert flat(iterator) == whole[done:]
        assert states(generators(loader)) == own_after


@pytest.mark.parametrize("name", LOADERS)
def test_a_fresh_start_gives_the_batches_of_a_plain_for(name):
    seed_everything(2)
    plain = flat(LOADERS[name]())
    seed_everything(2)
    assert flat(start(LOADERS[name](), 0, never)[0]) == plain


def test_the_samples_of_skipped_batches_are_not_read():
    class Counting(Dataset):
        read = 0

        def __len__(self):
            return 10

        def __getitem__(self, index):
            Counting.read += 1
            return index

    iterator, _ = start(DataLoader(Counting(), batch_size=2), 4, never)
    assert [batch.tolist() for batch in iterator] == [[8, 9]]
    assert Counting.read == 2


def test_the_copy_keeps_every_option_of_the_loader():
    def collate(samples):
        return len(samples)

    loader = DataLoader(DATA, batch_size=4, collate_fn=collate)
    assert list(start(loader, 1, never)[0]) == [4, 3]
    options = {
        "num_workers": 2,
        "collate_fn": collate,
        "worker_init_fn": lambda worker: None,
        "generator": torch.Generator(),
        "multiprocessing_context": "spawn",
        "prefetch_factor": 5,
        "timeout": 7,
        "in_order": True,
        "pin_memory": True,
    }
    loader = DataLoader(DATA, batch_size=4, **options)
    copy = _clone(loader, _Indices(loader.batch_sampler, 1, never))
    for name in options.keys() - {"multiprocessing_context"}:
        assert getattr(copy, name) is getattr(loader, name), name
    assert copy.multiprocessing_context.get_start_method() == "spawn"


def test_a_worker_init_fn_still_runs_when_an_epoch_is_continued_in_the_middle(tmp_path):
    def mark(worker):
        (tmp_path / f"{worker}").touch()

    loader = DataLoader(DATA, batch_size=4, num_workers=1, worker_init_fn=mark)
    assert len(list(start(loader, 1, never)[0])) == 2
    assert (tmp_path / "0").exists()


def test_lists_and_loaders_of_companion_start_where_they_are_told():
    assert list(start([1, 2, 3], 1, never)[0]) == [2, 3]
    assert list(start((1, 2), 2, never)[0]) == []
    ours = TensorLoader(torch.arange(10.0), batch_size=2, shuffle=True)
    ours.set_epoch(3)
    whole = flat(ours)
    ours.set_epoch(3)
    assert flat(start(ours, 2, never)[0]) == whole[2:]


def test_other_iterables_are_read_and_thrown_away_when_the_order_is_drawn():
    iterator, draw = start(iter(range(5)), 2, never)
    draw()
    assert list(iterator) == [2, 3, 4]
    iterator, draw = start(iter(range(2)), 9, never)
    draw()
    assert list(iterator) == []


@pytest.mark.parametrize("done", [0, 3])
def test_a_sampler_that_draws_between_batches_is_reported(done):
    reasons = []
    iterator, draw = start(DataLoader(DATA, batch_sampler=Lazy()), done, reasons.append)
    draw()
    list(iterator)
    assert len(reasons) == 1
    assert "采样器边取边抽随机数" in reasons[0]


def test_the_epoch_is_told_to_the_loader_and_to_every_sampler():
    class Told(Halves):
        def set_epoch(self, epoch):
            self.epoch = epoch

    inner, outer = Told(), Told()
    announce(DataLoader(DATA, sampler=inner), 4)
    announce(DataLoader(DATA, batch_sampler=outer), 5)
    announce([1], 6)
    assert (inner.epoch, outer.epoch) == (4, 5)


def test_a_loader_tells_what_it_looks_like_where_it_can():
    nested = DataLoader(DATA, batch_sampler=BatchSampler(range(4), 2, False))
    ours = TensorLoader(torch.zeros(4), batch_size=2, seed=5)
    assert looks_of(DataLoader(DATA, batch_size=3)) == {"批数": 4, "批量": 3, "样本数": 11}
    assert looks_of(nested) == {"批数": 2, "批量": 2, "样本数": 11}
    assert looks_of(ours) == {"批数": 2, "批量": 2, "一轮取几个": 4, "样本数": 4, "种子": 5}
    assert looks_of(loaders(range(4), batch_size=2)) == {
        "批数": 2,
        "批量": 2,
        "一轮取几个": 4,
        "样本数": 4,
        "种子": 0,
    }
    assert looks_of([1, 2]) == {"批数": 2}
    assert looks_of(DataLoader(Stream())) == {"批量": 1}


# —— 哪些不能精确续上


class Items(Dataset):
    """样本由 ``draw`` 给出。"""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.draw()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(6))


class Shifted(DataLoader):
    def __iter__(self):
        return (batch + 1 for batch in super().__iter__())


DRAWS = {
    "torch": lambda: torch.rand(2),
    "numpy": lambda: np.random.rand(2),
    "python": lambda: random.random(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_samples_can_be_continued_in_the_main_process_but_not_in_workers(name):
    dataset = Items(DRAWS[name])
    assert why_inexact(DataLoader(dataset)) is None
    assert "在子进程里抽随机数" in why_inexact(DataLoader(dataset, num_workers=1))


def test_a_random_collate_function_is_seen_too():
    def mixup(samples):
        return torch.stack(samples) * torch.rand(())

    dataset = Items(lambda: torch.ones(2))
    assert why_inexact(DataLoader(dataset, collate_fn=mixup)) is None
    assert "子进程" in why_inexact(DataLoader(dataset, collate_fn=mixup, num_workers=1))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "wrap",
    [
        float,
        lambda number: {"x": (torch.tensor(number), 1)},
        lambda number: np.array([number]),
    ],
)
def test_a_dataset_with_a_generator_of_its_own_is_seen(wrap, workers):
    rng = random.Random(0)
    loader = DataLoader(Items(lambda: wrap(rng.random())), num_workers=workers)
    assert "数据集自己的发生器" in why_inexact(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_are_always_the_same_are_exact(workers):
    samples = [
        torch.tensor([1.0, torch.nan]),
        np.ones(2),
        {"a": (1, "字")},
        torch.eye(2).to_sparse(),
    ]
    for sample in samples:
        loader = DataLoader(
            Items(lambda sample=sample: sample), collate_fn=list, num_workers=workers
        )
        assert why_inexact(loader) is None


def test_looking_costs_no_random_numbers():
    seed_everything(3)
    before = random_state()["torch"]
    for workers in (0, 1):
        why_inexact(DataLoader(Items(lambda: torch.rand(2)), num_workers=workers))
    assert torch.equal(random_state()["torch"], before)


def test_with_workers_the_dataset_is_not_touched_in_the_main_process():
    class Opened(Dataset):
        file = None

        def __len__(self):
            return 3

        def __getitem__(self, index):
            self.file = "打开了"
            return index

    dataset = Opened()
    assert why_inexact(DataLoader(dataset, num_workers=1)) is None
    assert dataset.file is None


def test_a_dataset_that_cannot_be_tried_is_given_the_benefit_of_the_doubt():
    dataset = {"甲": 1, "乙": 2}
    assert why_inexact(DataLoader(dataset, sampler=list(dataset), batch_size=1)) is None


def test_what_can_only_be_read_again_is_named():
    assert "IterableDataset" in why_inexact(DataLoader(Stream()))
    assert why_inexact(iter([1])).startswith("list_iterator")
    assert why_inexact(Shifted(DATA)).startswith("Shifted")
    assert "in_order=False" in why_inexact(DataLoader(DATA, num_workers=1, in_order=False))


def test_ours_and_plain_lists_are_exact():
    assert why_inexact([1, 2]) is None
    assert why_inexact(TensorLoader(torch.zeros(3), batch_size=1)) is None
    assert why_inexact(loaders(Items(lambda: torch.rand(2)), batch_size=2, workers=2)) is None
