import json
import random

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from companion.data import (
    EpochSampler,
    Normalize,
    RandomCrop,
    RandomErase,
    RandomFlip,
    TensorLoader,
)
from companion.data import _sampler as sampling
from companion.data._random import mix
from companion.errors import ArgumentError, DataError, MismatchError, ShapeError

AUGMENT = (RandomCrop(2), RandomFlip(), Normalize(0.5, 0.5), RandomErase(value=9))


def numbered(n=50, **options):
    """张量里存的就是样本的编号，看得见谁去了哪里。"""
    index = torch.arange(n)
    return TensorLoader(index, -index, **{"batch_size": 8, "shuffle": True} | options)


def pictures(n=50, size=8):
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, 1, size, size), dtype=torch.uint8, generator=g)


def augmented(batch_size=8, **options):
    images = pictures()
    labels = torch.arange(len(images))
    options = {"shuffle": True, "transform": AUGMENT} | options
    return TensorLoader(images, labels, batch_size=batch_size, **options)


def by_label(batches):
    """编号到图：不论在哪一批、排第几。"""
    pairs = (zip(labels.tolist(), images, strict=True) for images, labels in batches)
    return {label: image for batch in pairs for label, image in batch}


def same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b)
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def pretend(monkeypatch, rank, world):
    monkeypatch.setattr(sampling, "rank", lambda: rank)
    monkeypatch.setattr(sampling, "world_size", lambda: world)


def on_each_rank(monkeypatch, make, world):
    """每个进程一轮里的各批。"""
    passes = []
    for rank in range(world):
        pretend(monkeypatch, rank, world)
        loader = make()
        passes.append(list(loader))
        assert len(loader) == len(passes[-1])
    return passes


def global_sizes(passes):
    return [sum(len(batch[0]) for batch in slices) for slices in zip(*passes, strict=True)]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [4, 5, 7, 16, 1000])
def test_every_sample_comes_exactly_once_an_epoch(monkeypatch, world, batch_size):
    for n in [4, 5, 15, 16, 17, 18, 33, 64, 65]:
        passes = on_each_rank(monkeypatch, lambda n=n: numbered(n, batch_size=batch_size), world)
        seen = torch.cat([inputs for batches in passes for inputs, _ in batches])
        assert sorted(seen.tolist()) == list(range(n))
        assert len({len(batches) for batches in passes}) == 1
        assert min(len(inputs) for batches in passes for inputs, _ in batches) >= 1


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_slices_of_all_ranks_make_up_the_global_batch(monkeypatch, world):
    whole = [inputs for inputs, _ in numbered(52)]  # 最后一批 4 个，4 个进程也够分
    passes = on_each_rank(monkeypatch, lambda: numbered(52), world)
    for expected, *slices in zip(whole, *passes, strict=True):
        assert torch.equal(torch.cat([inputs for inputs, _ in slices]), expected)
        sizes = [len(inputs) for inputs, _ in slices]
        assert max(sizes) - min(sizes) <= 1


def test_a_last_batch_too_small_for_the_ranks_joins_the_one_before(monkeypatch):
    passes = on_each_rank(monkeypatch, lambda: numbered(50), 4)  # 6 批 8 个，余下 2 个
    assert global_sizes(passes) == [8] * 5 + [10]


def test_without_the_last_short_batch_all_batches_are_full(monkeypatch):
    for world in (1, 3):
        passes = on_each_rank(monkeypatch, lambda: numbered(50, drop_last=True), world)
        assert global_sizes(passes) == [8] * 6


def test_tensors_stay_together_and_are_cut_by_the_order():
    loader = augmented(transform=None, seed=3)
    order = loader.sampler.order(0)
    images = pictures()
    for k, (inputs, labels) in enumerate(loader):
        index = order[8 * k : 8 * k + 8]
        assert torch.equal(inputs, images[index])
        assert torch.equal(labels, index)


def test_the_order_is_written_down_because_saved_runs_rely_on_it():
    sampler = EpochSampler(10, 4, shuffle=True, seed=0)
    assert sampler.order(0).tolist() == [1, 5, 0, 4, 9, 7, 8, 3, 6, 2]
    assert sampler.order(1).tolist() == [7, 9, 8, 0, 3, 6, 1, 5, 2, 4]
    assert mix(0) == 0xE220A8397B1DCDAF  # splitmix64 的第一个数，见其参考实现


def test_each_pass_is_a_new_epoch_and_an_epoch_can_be_asked_for_again():
    loader = numbered()
    first, second = list(loader), list(loader)
    assert not same(first, second)
    loader.set_epoch(1)
    assert same(loader, second)
    loader.set_epoch(0)
    assert same(loader, first)
    assert same(loader, second)


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    torch.manual_seed(1)
    first = list(numbered(seed=5))
    torch.manual_seed(2)
    assert same(first, numbered(seed=5))
    assert not same(first, numbered(seed=6))
    assert mix(5, 0) != mix(0, 5)
    assert len({mix(seed, epoch) % 2**32 for seed in range(50) for epoch in range(50)}) == 2500


def test_without_shuffle_the_samples_come_in_order():
    assert torch.cat([inputs for inputs, _ in numbered(shuffle=False)]).tolist() == list(range(50))


def test_the_global_random_numbers_are_not_touched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    list(augmented())
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


@pytest.mark.parametrize("start", range(8))
def test_starting_at_batch_k_gives_the_rest_of_the_pass(start):
    whole, loader = augmented(), augmented()
    for loaded in (whole, loader):
        loaded.set_epoch(3)
    expected = list(whole)[start:]
    assert same(loader.iter_from(start), expected)
    assert same(loader, whole)  # 之后两个都到了第 4 轮
    running = loader.iter_from(start)
    assert loader.state_dict()["batch"] == start % 7
    for handed_out in range(start + 1, 8):
        next(running)
        assert loader.state_dict()["batch"] == handed_out % 7


def test_a_refused_transform_leaves_the_global_random_numbers_alone():
    before = torch.get_rng_state()
    with pytest.raises(ArgumentError):
        augmented(transform=lambda x: torch.rand(len(x)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_loaded_state_continues_after_the_batch_handed_out_last(stop):
    loader = augmented(seed=4)
    list(loader)
    running = iter(loader)
    for _ in range(stop):
        next(running)
    state = json.loads(json.dumps(loader.state_dict()))
    other = augmented(seed=0)
    other.load_state_dict(state)
    assert other.state_dict() == state
    if stop < 7:
        assert same(other, running)
    assert same(other, loader)  # 存在一轮的最后一批，就从下一轮开始


def test_a_state_of_other_data_or_another_batch_size_is_refused():
    for other in (numbered(51), numbered(batch_size=9)):
        with pytest.raises(MismatchError, match=r"存档是 \(50, 8\)"):
            other.load_state_dict(numbered().state_dict())


def test_an_image_is_augmented_alike_in_any_batch_and_on_any_rank(monkeypatch):
    expected = by_label(augmented(50, shuffle=False))
    for batch_size in (7, 64):
        found = by_label(augmented(batch_size))
        assert all(torch.equal(found[label], expected[label]) for label in range(50))
    passes = on_each_rank(monkeypatch, augmented, 3)
    found = by_label([batch for batches in passes for batch in batches])
    assert all(torch.equal(found[label], expected[label]) for label in range(50))


def test_the_images_of_one_batch_are_augmented_differently_and_anew_each_epoch():
    one = pictures(1).expand(50, 1, 8, 8).contiguous()
    loader = TensorLoader(one, batch_size=50, transform=[RandomCrop(2), RandomFlip()])
    (first,), (second,) = next(iter(loader)), next(iter(loader))
    assert len(first.flatten(1).unique(dim=0)) > 20
    assert not torch.equal(first, second)


def test_a_batch_is_a_copy_so_that_changing_it_spares_the_data():
    images = pictures()
    for shuffle in (False, True):
        for (batch,) in TensorLoader(images, batch_size=8, shuffle=shuffle):
            batch.zero_()
    assert torch.equal(images, pictures())


def test_a_dataset_of_tensors_and_the_tensors_give_the_same():
    images, labels = pictures(), torch.arange(50)
    ours = TensorLoader(images, labels, batch_size=8)
    assert same(ours, TensorLoader(TensorDataset(images, labels), batch_size=8))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: numbered(0), DataError, "至少有一个样本"),
        (lambda: numbered(batch_size=0), ArgumentError, "不小于 1 的整数，实际是 0"),
        (lambda: numbered(batch_size=2.5), ArgumentError, "不小于 1 的整数，实际是 2.5"),
        (lambda: numbered(7, drop_last=True), DataError, "只有 7 个，一批也不剩"),
        (lambda: numbered().iter_from(8), ArgumentError, r"0 到 7（批数）之间，实际是 8"),
        (lambda: TensorLoader(batch_size=8), ArgumentError, "实际是 空的"),
        (lambda: TensorLoader(np.ones(3), batch_size=8), ArgumentError, "torch.from_numpy"),
        (lambda: TensorLoader(torch.tensor(1.0), batch_size=8), ShapeError, r"实际形状是 \(\)"),
        (
            lambda: TensorLoader(torch.ones(3, 2), torch.ones(4), batch_size=8),
            ShapeError,
            r"\(3, 2\)、\(4,\)",
        ),
        (
            lambda: TensorLoader(torch.ones(3), torch.ones(3, device="meta"), batch_size=8),
            DataError,
            "cpu、meta",
        ),
        (lambda: augmented(transform="flip"), ArgumentError, "变换应能调用"),
        (lambda: augmented(transform=RandomFlip), ArgumentError, "请加括号"),
        (
            lambda: augmented(transform=lambda x: x.float().mean()),
            ArgumentError,
            r"实际得到 \(\)",
        ),
        (lambda: augmented(transform=lambda x: None), ArgumentError, "实际得到 NoneType"),
        (
            lambda: augmented(transform=lambda x: torch.rand(len(x))),
            ArgumentError,
            "动用了 torch 的全局",
        ),
    ],
)
def test_what_cannot_work_is_explained_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_too_many_ranks_are_explained(monkeypatch):
    pretend(monkeypatch, 0, 4)
    with pytest.raises(ArgumentError, match="每个进程的批量 × 4"):
        list(numbered(batch_size=3))
    with pytest.raises(DataError, match="不少于进程数 4，实际只有 3 个"):
        list(numbered(3, batch_size=8))
