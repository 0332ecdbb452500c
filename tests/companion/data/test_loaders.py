import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, random_split
from torchvision.transforms import v2

from companion.data import IndexLoader, Normalize, RandomFlip, TensorLoader, loaders
from companion.data import _sampler as sampling
from companion.data._index_loader import ByIndex
from companion.data._random import mix
from companion.errors import ArgumentError, DataError, ShapeError


class Pictures(Dataset):
    """每张图经过 torchvision 的随机变换，再加 NumPy 和 Python 的随机数。"""

    def __init__(self, n=40):
        self.n = n
        self.transform = v2.Compose([v2.RandomCrop(8, padding=2), v2.RandomHorizontalFlip()])

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        image = torch.arange(64.0).view(1, 8, 8) + 64 * index
        return self.transform(image), np.random.normal() + random.gauss(), index


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(10))


def same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b)
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def by_index(batches):
    pairs = (zip(index.tolist(), images, strict=True) for images, _, index in batches)
    return {i: image for batch in pairs for i, image in batch}


def images(n=20):
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4).contiguous()


def global_random():
    numbers = np.random.get_state()
    return torch.get_rng_state().tolist(), numbers[1].tolist(), numbers[2:], random.getstate()


def test_tensors_get_the_tensor_loader_and_other_data_sets_the_data_loader():
    x, y = images(), torch.arange(20)
    assert isinstance(loaders((x, y), batch_size=4), TensorLoader)
    assert isinstance(loaders(TensorDataset(x, y), batch_size=4), TensorLoader)
    pairs = list(zip(x, y, strict=True))
    for data in (Pictures(), pairs):
        loader = loaders(data, batch_size=4)
        assert isinstance(loader, IndexLoader)
        assert isinstance(loader, DataLoader)


def test_a_changed_tensor_data_set_is_asked_for_its_own_samples():
    class Halved(TensorDataset):
        def __getitem__(self, index):
            return (super().__getitem__(index)[0] / 2,)

    (found,) = next(iter(loaders(Halved(torch.arange(4)), batch_size=4)))
    assert sorted(found.tolist()) == [0, 0.5, 1, 1.5]


def test_the_parts_of_a_random_split_hold_their_own_samples():
    whole = TensorDataset(torch.arange(30))
    parts = random_split(whole, [20, 10], torch.Generator().manual_seed(0))
    train, valid = loaders(*parts, batch_size=7)
    assert isinstance(train, TensorLoader)
    for loader, part in zip((train, valid), parts, strict=True):
        found = torch.cat([inputs for (inputs,) in loader]).tolist()
        assert sorted(found) == sorted(part.indices)


def test_training_is_shuffled_anew_each_epoch_and_validation_keeps_order_and_all_samples():
    train, valid = loaders((images(),), (images(),), batch_size=8, drop_last=True)
    first, second = (torch.cat([b for (b,) in train])[:, 0, 0, 0].tolist() for _ in range(2))
    assert len(first) == len(set(first)) == 16
    assert first != second
    for _ in range(2):
        assert torch.equal(torch.cat([b for (b,) in valid]), images())


def test_the_batch_of_validation_may_be_larger():
    train, valid = loaders((images(),), (images(),), batch_size=8, valid_batch_size=20)
    assert (len(train), len(valid)) == (3, 1)
    assert loaders(Pictures(), Pictures(), batch_size=8)[1].batch_sampler.batch_size == 8


def test_validation_is_normalized_but_not_augmented():
    ramp = torch.arange(16, dtype=torch.uint8).expand(20, 1, 4, 16).contiguous()
    normalize = Normalize(0.5, 0.5)
    train, valid = loaders(
        (ramp,), (ramp,), batch_size=20, transform=[RandomFlip(), normalize], seed=1
    )
    (batch,) = next(iter(train))
    flipped = [torch.equal(image, normalize(ramp)[0].flip(-1)) for image in batch]
    assert 0 < sum(flipped) < 20
    (batch,) = next(iter(valid))
    assert torch.equal(batch, normalize(ramp))


def test_random_transforms_are_the_same_with_and_without_workers():
    one, two = loaders(Pictures(), batch_size=8), loaders(Pictures(), batch_size=8, workers=2)
    for _ in range(2):  # 第二轮用的是同一批子进程
        expected = list(one)
        assert same(two, expected)
    rest = one.iter_from(3)
    assert same(two.iter_from(3), rest)


def test_each_pass_is_a_new_epoch_and_an_epoch_can_be_asked_for_again():
    loader = loaders(list(range(40)), batch_size=40)
    first, second = next(iter(loader)).tolist(), next(iter(loader)).tolist()
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second
    loader.set_epoch(1)
    assert next(iter(loader)).tolist() == second


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_starting_at_batch_k_gives_the_rest_of_the_pass(start):
    whole, loader = loaders(Pictures(), batch_size=8), loaders(Pictures(), batch_size=8)
    for epoch in (2, 7):
        whole.set_epoch(epoch)
        loader.set_epoch(epoch)
        assert same(loader.iter_from(start), list(whole)[start:])
    assert same(loader, whole)


def test_a_pass_left_in_the_middle_does_not_disturb_the_next():
    one, two = loaders(Pictures(), batch_size=8), loaders(Pictures(), batch_size=8, workers=2)
    for loader in (one, two):
        next(iter(loader))
    assert same(two, one)


def test_a_sample_does_not_depend_on_its_batch_or_rank_but_on_the_epoch(monkeypatch):
    expected = by_index(loaders(Pictures(), batch_size=40))
    found = by_index(loaders(Pictures(), batch_size=7))
    assert all(torch.equal(found[index], expected[index]) for index in range(40))
    seen = []
    for rank in range(3):
        monkeypatch.setattr(sampling, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(sampling, "world_size", lambda: 3)
        seen += list(loaders(Pictures(), batch_size=13))
    assert sorted(int(i) for _, _, index in seen for i in index) == list(range(40))
    assert all(torch.equal(image, expected[i]) for i, image in by_index(seen).items())
    monkeypatch.undo()
    loader = loaders(Pictures(), batch_size=40)
    loader.set_epoch(1)
    later = by_index(loader)
    assert not all(torch.equal(later[index], expected[index]) for index in range(40))


def test_the_seed_of_a_sample_is_that_of_torchvision_seeded_by_hand():

    data, pictures = ByIndex(Pictures(), seed=3), Pictures()
    found = data[5, 17]
    torch.manual_seed(mix(3, 5, 17))
    random.seed(mix(3, 5, 17))
    np.random.seed(mix(3, 5, 17) % 2**32)
    expected = pictures[17]
    assert torch.equal(found[0], expected[0])
    assert found[1:] == expected[1:]


def test_a_wrapped_data_set_has_a_length_takes_bare_numbers_and_can_be_sent_to_a_process():
    data = loaders(Pictures(), batch_size=8).dataset
    assert len(data) == 40
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[3][0], data[0, 3][0])


def test_validation_draws_the_same_numbers_every_time():
    _, valid = loaders(Pictures(), Pictures(), batch_size=8)
    assert same(valid, list(valid))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_numbers_are_not_touched(workers):
    before = global_random()
    list(loaders(Pictures(8), batch_size=4, workers=workers))
    assert global_random() == before


def test_the_global_random_numbers_are_restored_when_a_sample_fails():
    class Broken(Pictures):
        def __getitem__(self, index):
            raise OSError(index)

    before = global_random()
    with pytest.raises(OSError):
        next(iter(loaders(Broken(), batch_size=4)))
    assert global_random() == before


def test_a_plain_data_loader_around_the_same_sampler_gives_the_same_batches():
    loader = loaders(Pictures(), batch_size=8)
    loader.set_epoch(4)
    copy = DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, num_workers=2)
    assert same(copy, list(copy))  # 两个子进程时 DataLoader 会向它要两次迭代器
    assert same(copy, loader)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: loaders([], batch_size=4), DataError, "实际是空的"),
        (lambda: loaders((images(0),), batch_size=4), DataError, "实际是空的"),
        (lambda: loaders((images(3), images(4)), batch_size=4), ShapeError, "第 0 维应一样长"),
        (lambda: loaders((np.ones(3), np.ones(3)), batch_size=4), ArgumentError, "from_numpy"),
        (lambda: loaders(Pictures(), batch_size=0), ArgumentError, "实际是 0"),
        (lambda: loaders([1], [1], batch_size=1, valid_batch_size=0), ArgumentError, "实际是 0"),
        (lambda: loaders(Pictures(3), batch_size=4, drop_last=True), DataError, "一批也不剩"),
        (
            lambda: loaders(Pictures(), batch_size=4, workers=-1),
            ArgumentError,
            "workers 应为不小于 0",
        ),
        (lambda: loaders(Stream(), batch_size=4), ArgumentError, r"loaders\(list\(…\), …\)"),
        (lambda: loaders(DataLoader([1]), batch_size=1), ArgumentError, "已经是加载器的"),
        (
            lambda: loaders(Pictures(), batch_size=4, transform=RandomFlip()),
            ArgumentError,
            "实际的数据集是 Pictures.*写在数据集里",
        ),
        (lambda: loaders((images(),), batch_size=4, transform=3), ArgumentError, "实际是 3"),
        (lambda: loaders(images(), images(), batch_size=4), ArgumentError, "放进同一个元组"),
    ],
)
def test_what_cannot_work_is_explained_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_start_beyond_the_last_batch_and_too_many_ranks_are_explained(monkeypatch):
    loader = loaders(Pictures(), batch_size=8)
    with pytest.raises(ArgumentError, match="0 到 5（批数）之间，实际是 6"):
        loader.iter_from(6)
    monkeypatch.setattr(sampling, "world_size", lambda: 9)
    with pytest.raises(ArgumentError, match="不小于进程数 9，实际是 8"):
        iter(loader)
