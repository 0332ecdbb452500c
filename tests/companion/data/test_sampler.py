"""``loaders(sampler=…)``：次序只由种子和轮次决定，不论它从哪里抽随机数。"""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from companion.data import EpochSampler, IndexLoader, RandomFlip, TensorLoader, loaders
from companion.errors import ArgumentError, DataError, MismatchError

N = 40
SAMPLES = list(range(N))


class Own(Sampler):
    """自己写的采样器：``draw(self)`` 给出编号，``state`` 是它自己记着的。"""

    def __init__(self, draw, n=N, **state):
        self.draw, self.n = draw, n
        vars(self).update(state)

    def __iter__(self):
        return iter(self.draw(self))

    def __len__(self):
        return self.n


class ByEpoch(Own):
    """像 ``DistributedSampler`` 那样，要人告诉它第几轮。"""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch


def own_generator():
    source = torch.Generator()
    source.seed()
    return source


MAKERS = {
    "torch, global": lambda: RandomSampler(SAMPLES),
    "torch, own": lambda: RandomSampler(SAMPLES, generator=own_generator()),
    "replacement": lambda: RandomSampler(SAMPLES, replacement=True, num_samples=70),
    "weighted": lambda: WeightedRandomSampler(torch.arange(N) + 1.0, 30),
    "weighted, own": lambda: WeightedRandomSampler(
        torch.arange(N) + 1.0, 30, generator=own_generator()
    ),
    "subset": lambda: SubsetRandomSampler([3, 5, 7, 11, 13, 17, 19, 23, 29, 31]),
    "python": lambda: Own(lambda s: random.sample(SAMPLES, N)),
    "python, own": lambda: Own(lambda s: s.source.sample(SAMPLES, N), source=random.Random()),
    "numpy": lambda: Own(lambda s: np.random.permutation(N)),
    "numpy, own": lambda: Own(lambda s: s.source.permutation(N), source=np.random.default_rng()),
    "numpy, own, old": lambda: Own(
        lambda s: s.source.permutation(N), source=np.random.RandomState()
    ),
    "tensors": lambda: Own(lambda s: torch.randperm(N)),
    "in a list": lambda: Own(
        lambda s: torch.randperm(N, generator=s.sources[0]), sources=[own_generator()]
    ),
    "around another": lambda: Own(
        lambda s: reversed(list(s.inner)), inner=RandomSampler(SAMPLES, generator=own_generator())
    ),
    "told the epoch": lambda: ByEpoch(
        lambda s: torch.randperm(N, generator=torch.Generator().manual_seed(s.epoch)).tolist()
    ),
    "for one process": lambda: DistributedSampler(SAMPLES, num_replicas=1, rank=0),
}


def build(in_memory, sampler, **options):
    data = (torch.arange(N),) if in_memory else SAMPLES
    return loaders(data, batch_size=4, sampler=sampler, **options)


def numbers(batches):
    return [(batch[0] if isinstance(batch, tuple) else batch).tolist() for batch in batches]


def flat(batches):
    return [index for batch in numbers(batches) for index in batch]


def global_random():
    legacy = np.random.get_state()
    return torch.get_rng_state().tolist(), legacy[1].tolist(), legacy[2:], random.getstate()


def disturb():
    torch.rand(3), np.random.rand(3), random.random()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_new_sampler_in_a_new_process_gives_the_rest_of_the_epoch(kind, in_memory):
    straight = build(in_memory, MAKERS[kind](), seed=5)
    epochs = [numbers(straight) for _ in range(3)]
    assert epochs[0] != epochs[1]
    disturb()
    resumed = build(in_memory, MAKERS[kind](), seed=5)
    disturb()
    resumed.set_epoch(1)
    assert numbers(resumed.iter_from(2)) == epochs[1][2:]
    assert numbers(resumed) == epochs[2]


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if "epoch" not in kind])
def test_the_order_changes_with_the_seed(kind):
    if kind != "for one process":  # 它自己定种：seed=0 加轮次
        one, two = (numbers(build(True, MAKERS[kind](), seed=seed)) for seed in (0, 1))
        assert one != two


@pytest.mark.parametrize("kind", MAKERS)
def test_no_generator_is_moved(kind):
    sampler, before = MAKERS[kind](), global_random()
    sources = [v for v in vars(sampler).values() if isinstance(v, torch.Generator)]
    states = [source.get_state() for source in sources]
    list(build(True, sampler))
    assert global_random() == before
    assert all(torch.equal(s.get_state(), b) for s, b in zip(sources, states, strict=True))


def test_the_order_is_what_the_sampler_draws_after_seeding_by_hand():
    found = flat(build(True, WeightedRandomSampler(torch.arange(N) + 1.0, 30), seed=3))
    from companion.data._random import mix

    torch.default_generator.manual_seed(mix(3, 0, 2))
    assert found == list(WeightedRandomSampler(torch.arange(N) + 1.0, 30))


def test_a_weighted_sampler_draws_each_sample_in_proportion():
    weights = torch.tensor([1.0, 3.0] * (N // 2))
    loader = build(True, WeightedRandomSampler(weights, 8000))
    odd = torch.tensor(flat(loader)) % 2
    assert odd.float().mean().item() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("listed", [[7, 7, 1], (7, 7, 1), torch.tensor([7, 7, 1])])
def test_a_list_of_indices_is_the_order_of_every_epoch(listed):
    loader = build(True, listed)
    assert [flat(loader) for _ in range(2)] == [[7, 7, 1]] * 2
    assert flat(build(False, np.array([7, 7, 1]))) == [7, 7, 1]


def test_only_training_is_sampled_and_it_has_the_length_of_the_sampler():
    train, valid = loaders(
        (torch.arange(N),), (torch.arange(N),), batch_size=4, sampler=range(10), drop_last=True
    )
    assert (len(train), len(valid)) == (2, 10)
    assert flat(train) == list(range(8))
    assert flat(valid) == SAMPLES


def test_workers_change_nothing():
    none, two = (build(False, MAKERS["weighted, own"](), workers=k) for k in (0, 2))
    for _ in range(2):
        assert numbers(two) == numbers(none)


class Noisy:
    def __len__(self):
        return N

    def __getitem__(self, index):
        return index, torch.rand(())


def test_a_sample_drawn_twice_is_changed_twice_alike_wherever_the_epoch_is_taken_up():
    whole = loaders(Noisy(), batch_size=4, sampler=[6] * 10)
    noise = torch.cat([batch[1] for batch in whole])
    assert len(noise.unique()) == 10
    whole.set_epoch(0)
    assert torch.equal(torch.cat([batch[1] for batch in whole.iter_from(1)]), noise[4:])

    ramp = torch.arange(8.0).expand(N, 1, 1, 8).contiguous()
    loader = loaders((ramp,), batch_size=8, sampler=[6] * 32, transform=RandomFlip())
    images = torch.cat([images for (images,) in loader])
    flipped = images[:, 0, 0, 0] == 7
    assert 4 < flipped.sum() < 28
    assert len(flipped.view(4, 8).unique(dim=0)) > 1  # 每一批也各抽各的
    loader.set_epoch(0)
    assert torch.equal(torch.cat([images for (images,) in loader.iter_from(2)]), images[16:])


def test_the_state_of_a_tensor_loader_names_the_sampler_by_its_order():
    loader = build(True, MAKERS["weighted, own"]())
    running = iter(loader)
    next(running)
    state = loader.state_dict()
    again = build(True, MAKERS["weighted, own"](), seed=9)
    again.load_state_dict(state)
    assert numbers(again) == numbers(running)
    for other in (WeightedRandomSampler(torch.ones(N), 30), None, [1, 2, 3]):
        with pytest.raises(MismatchError, match="加载器的sampler"):
            refused = build(True, other, seed=9)
            refused.load_state_dict(state)
        assert refused.state_dict() == build(True, other, seed=9).state_dict()
    with pytest.raises(MismatchError, match="加载器的sampler"):
        again.load_state_dict(build(True, None).state_dict())


def test_one_sampler_serves_two_loaders_and_two_passes_at_once():
    sampler = MAKERS["torch, own"]()
    one, two = build(True, sampler), build(True, sampler)
    assert all(torch.equal(a, b) for (a,), (b,) in zip(one, two, strict=True))
    running = iter(one)
    next(running)
    list(two)
    again = build(True, sampler)
    again.set_epoch(1)
    assert numbers(running) == numbers(again)[1:]


def test_a_sampler_may_change_its_mind_between_epochs():
    sampler = WeightedRandomSampler(torch.ones(N), 30)
    loader = build(True, sampler)
    list(loader)
    sampler.weights = torch.nn.functional.one_hot(torch.tensor(5), N).double()
    assert flat(loader) == [5] * 30


class Endless(Sampler):
    def __iter__(self):
        while True:
            yield 0


class EndlessWithLength(Endless):
    def __len__(self):
        return N


class Slotted:
    """自带的发生器藏在看不见的地方。"""

    __slots__ = ("source",)

    def __init__(self):
        self.source = own_generator()

    def __iter__(self):
        return iter(torch.randperm(N, generator=self.source).tolist())

    def __len__(self):
        return N


def counting(sampler):
    sampler.turn += 1
    return torch.randperm(N, generator=torch.Generator().manual_seed(sampler.turn)).tolist()


@pytest.mark.parametrize(
    ("sampler", "error", "message"),
    [
        (RandomSampler, ArgumentError, "sampler 应是对象，实际是类 RandomSampler"),
        (BatchSampler(SequentialSampler(SAMPLES), 4, False), ArgumentError, "sampler 应逐个"),
        (DataLoader(SAMPLES, 4), ArgumentError, "sampler 应逐个"),
        (torch.ones(N, dtype=torch.bool), ArgumentError, "sampler 应逐个给出整数编号，.*掩码"),
        ([0.5], ArgumentError, "sampler 应逐个"),
        ([1, None], ArgumentError, "sampler 应逐个"),
        ("random", ArgumentError, "sampler 应逐个"),
        (torch.ones(3, 2, dtype=torch.int64), ArgumentError, "sampler 应逐个"),
        (3, ArgumentError, r"sampler 应有 len\(\)"),
        (iter([1, 2]), ArgumentError, r"sampler 应有 len\(\)"),
        (Endless(), ArgumentError, r"sampler 应有 len\(\)"),
        (EndlessWithLength(), DataError, "sampler 一轮给出.*40 个，实际有更多"),
        (Own(lambda s: range(3)), DataError, "sampler 一轮给出.*40 个，实际有 3 个"),
        ([], DataError, "sampler 应至少给出一个"),
        ([N], DataError, "sampler 的编号应在 0 到 39 之间.*实际有 40"),
        ([-1], DataError, "sampler 的编号.*实际有 -1"),
        (RandomSampler(range(99)), DataError, "sampler 的编号"),
        (DistributedSampler(SAMPLES, 2, 0), ArgumentError, "sampler 应给出全部进程"),
        (WeightedRandomSampler([float("nan")] * N, 5), ArgumentError, "sampler 应能抽出编号"),
        (WeightedRandomSampler([1.0] * 400, 400), DataError, "sampler 的编号"),
        (Slotted(), ArgumentError, "sampler 的次序应只由随机数"),
        (Own(counting, turn=0), ArgumentError, "sampler 的次序应只由随机数"),
        (
            Own(lambda s: np.random.default_rng().permutation(N)),
            ArgumentError,
            "sampler 的次序应只由随机数",
        ),
    ],
)
def test_what_is_no_sampler_is_refused_at_once(sampler, error, message):
    for in_memory in (True, False):
        with pytest.raises(error, match=message):
            build(in_memory, sampler)


def test_a_sampler_that_goes_wrong_later_is_refused_at_its_epoch():
    loader = build(True, ByEpoch(lambda s: range(s.epoch, N + s.epoch)))
    assert flat(loader) == SAMPLES
    with pytest.raises(DataError, match="sampler 的编号"):
        list(loader)


def test_a_sampler_and_shuffling_exclude_each_other():
    with pytest.raises(ArgumentError, match="shuffle=True 和 sampler"):
        TensorLoader(torch.arange(N), batch_size=4, shuffle=True, sampler=[1])
    with pytest.raises(DataError, match="drop_last=True"):
        build(True, [1, 2], drop_last=True)
    sampler = EpochSampler(N, 4, shuffle=False, sampler=[9, 8, 9])
    assert list(sampler) == [[(0, 9, 0), (0, 8, 1), (0, 9, 2)]]
    assert flat(IndexLoader(SAMPLES, sampler)) == [9, 8, 9]
