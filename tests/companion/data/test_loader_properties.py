"""加载器对任意的样本数、批量、起点、进程数都成立的事。"""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from companion.data import IndexLoader, TensorLoader, loaders
from companion.data import _sampler as sampling

few = settings(derandomize=True, deadline=None, database=None, max_examples=60)
sizes, batch_sizes = st.integers(1, 60), st.integers(1, 70)
seeds, epochs = st.integers(-(2**70), 2**70), st.integers(0, 10**6)
in_memory = st.booleans()


def build(n, batch_size, in_memory, **options):
    data = (torch.arange(n),) if in_memory else list(range(n))
    loader = loaders(data, batch_size=batch_size, **options)
    assert isinstance(loader, TensorLoader if in_memory else IndexLoader)
    return loader


def numbers(batches):
    """逐批的样本编号。"""
    return [(batch[0] if isinstance(batch, tuple) else batch).tolist() for batch in batches]


def flat(batches):
    return [index for batch in batches for index in batch]


@contextmanager
def as_rank(rank, world):
    with (
        patch.object(sampling, "rank", lambda: rank),
        patch.object(sampling, "world_size", lambda: world),
    ):
        yield


@st.composite
def samplers(draw):
    """样本数，和一个新采样器的做法：每次调用都从别处的随机数开始。"""
    n, count = draw(sizes), draw(sizes)
    chosen = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=60))

    def make():
        own = torch.Generator()
        own.seed()
        kinds = (
            lambda: RandomSampler(range(n)),
            lambda: RandomSampler(range(n), True, count, generator=own),
            lambda: WeightedRandomSampler(torch.arange(n) + 0.5, count),
            lambda: WeightedRandomSampler(torch.arange(n) + 0.5, count, generator=own),
            lambda: SubsetRandomSampler(chosen, generator=own),
            lambda: chosen,
        )
        return kinds[kind]()

    kind = draw(st.integers(0, 5))
    return n, make


@few
@given(sizes, batch_sizes, seeds, epochs, in_memory)
def test_each_sample_comes_exactly_once_an_epoch_in_full_batches(n, size, seed, epoch, in_memory):
    loader = build(n, size, in_memory, seed=seed)
    loader.set_epoch(epoch)
    batches = numbers(loader)
    assert sorted(flat(batches)) == list(range(n))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(loader) - 1)
    assert len(batches) == len(loader) == -(-n // size)


@few
@given(sizes, batch_sizes, in_memory)
def test_drop_last_drops_less_than_a_batch_and_repeats_nothing(n, size, in_memory):
    size = min(n, size)
    loader = build(n, size, in_memory, drop_last=True)
    batches = numbers(loader)
    assert [len(batch) for batch in batches] == [size] * (n // size) == [size] * len(loader)
    assert len(set(flat(batches))) == n // size * size


@few
@given(sizes, batch_sizes, st.booleans(), epochs, in_memory, st.data())
def test_starting_anywhere_gives_the_rest_of_the_epoch(n, size, drop, epoch, in_memory, data):
    size = min(n, size)
    whole, later = (build(n, size, in_memory, drop_last=drop) for _ in range(2))
    start = data.draw(st.integers(0, len(whole)))
    for loader in (whole, later):
        loader.set_epoch(epoch)
    assert numbers(later.iter_from(start)) == numbers(whole)[start:]
    assert numbers(later) == numbers(whole)  # 都到了下一轮


@few
@given(sizes, batch_sizes, seeds, st.data())
def test_a_state_taken_anywhere_continues_with_the_same_batches(n, size, seed, data):
    loader, other = build(n, size, True, seed=seed), build(n, size, True)
    loader.set_epoch(data.draw(epochs))
    running = iter(loader)
    for _ in range(data.draw(st.integers(0, len(loader) - 1))):
        next(running)
    state = loader.state_dict()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert numbers(other) == numbers(running)
    assert numbers(other) == numbers(loader)


@few
@given(sizes, batch_sizes, st.integers(1, 5), st.booleans(), in_memory)
def test_the_ranks_share_out_each_batch_and_lose_nothing(n, size, world, drop, in_memory):
    n, size = max(n, world), max(size, world)
    drop = drop and n >= size
    whole = numbers(build(n, size, in_memory, drop_last=drop))
    parts = []
    for rank in range(world):
        with as_rank(rank, world):
            loader = build(n, size, in_memory, drop_last=drop)
            parts.append(numbers(loader))
            assert len(loader) == len(parts[-1])
    shared = [flat(batch) for batch in zip(*parts, strict=True)]
    assert flat(shared) == flat(whole)
    assert shared[:-1] == whole[: len(shared) - 1]  # 只有最后一批可能并进前一批
    for batch in zip(*parts, strict=True):
        assert max(map(len, batch)) - min(map(len, batch)) <= 1 <= min(map(len, batch))


@few
@given(samplers(), batch_sizes, seeds, epochs, in_memory, st.data())
def test_a_sampler_gives_the_same_order_wherever_it_starts(
    made, size, seed, epoch, in_memory, data
):
    n, make = made
    loaders_ = [build(n, size, in_memory, seed=seed, sampler=make()) for _ in range(2)]
    for loader in loaders_:
        loader.set_epoch(epoch)
    whole, later = loaders_
    start = data.draw(st.integers(0, len(whole)))
    batches = numbers(whole)
    torch.rand(start)  # 别人抽了随机数
    assert numbers(later.iter_from(start)) == batches[start:]
    assert len(whole) == len(batches) == -(-len(make()) // size)
    assert set(flat(batches)) <= set(range(n))


@few
@given(samplers(), batch_sizes, st.integers(1, 4), in_memory)
def test_the_ranks_share_out_what_a_sampler_gives(made, size, world, in_memory):
    n, make = made
    size = max(size, world)
    if len(make()) < world:
        return
    whole, parts = flat(numbers(build(n, size, in_memory, sampler=make()))), []
    for rank in range(world):
        with as_rank(rank, world):
            parts.append(numbers(build(n, size, in_memory, sampler=make())))
    assert flat(flat(batch) for batch in zip(*parts, strict=True)) == whole


@settings(few, max_examples=5)
@given(sizes, batch_sizes, st.booleans(), st.data())
def test_two_workers_give_what_none_gives(n, size, sampled, data):
    sampler = WeightedRandomSampler([1.0] * n, n) if sampled else None
    none, two = (build(n, size, False, workers=k, sampler=sampler) for k in (0, 2))
    start = data.draw(st.integers(0, len(none)))
    assert numbers(two.iter_from(start)) == numbers(none)[start:]
