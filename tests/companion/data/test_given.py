"""给 ``loaders`` 的数据和数：或者读对，或者一句话说清，没有悄悄读错的。"""

from collections import UserDict

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)

from companion.data import IndexLoader, RandomFlip, TensorLoader, load_digits, loaders
from companion.errors import ArgumentError, DataError

X, Y = torch.randn(40, 6), torch.arange(40)
PAIRS = list(zip(X, Y, strict=True))
WHOLE = TensorDataset(X, Y)


class Table:
    """像 pandas 的表：``[…]`` 取的是列。"""

    iloc = None

    def __len__(self):
        return 40

    def __getitem__(self, name):
        raise KeyError(name)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))

    def __len__(self):
        return 5


class NoLength(Dataset):
    def __getitem__(self, index):
        return X[index]


class NoSamples(Dataset):
    def __len__(self):
        return 40


def labels(batches):
    return torch.cat([batch[-1] for batch in batches]).tolist()


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        WHOLE,
        PAIRS,
        [[x, y] for x, y in PAIRS],
        ConcatDataset([Subset(WHOLE, range(10)), Subset(WHOLE, range(10, 40))]),
        Subset(Subset(WHOLE, range(39, -1, -1)), torch.arange(40)),
        Subset(WHOLE, np.arange(-40, 0)),
        Subset(PAIRS, range(-40, 0)),
        Subset(NoLength(), range(40)),
        StackDataset(X, Y),
    ],
)
def test_each_sample_of_these_is_read_once(data):
    batches = list(loaders(data, batch_size=7))
    assert len(batches) == 6
    if not isinstance(data, Subset) or not isinstance(data.dataset, NoLength):
        assert sorted(labels(batches)) == list(range(40))


def test_a_subset_keeps_its_repeats_and_counts_negative_numbers_from_the_end():
    for data in (Subset(WHOLE, [-1, 3, 3]), Subset(Subset(WHOLE, [3, -1]), [0, 0, 1])):
        loader = loaders(data, batch_size=4)
        assert isinstance(loader, TensorLoader)
        assert sorted(labels(loader)) == [3, 3, 39]


def test_a_named_tuple_of_tensors_is_a_tuple_of_tensors():
    assert len(loaders(load_digits(), batch_size=100)) == 18


def test_whole_numbers_of_numpy_and_any_seed_will_do():
    plain = labels(loaders((X, Y), batch_size=8, seed=3))
    assert labels(loaders((X, Y), batch_size=np.int64(8), seed=np.uint8(3))) == plain
    orders = [labels(loaders((X, Y), batch_size=8, seed=s)) for s in (-1, 0, 1, 2**70)]
    assert len({tuple(order) for order in orders}) == 4
    loader = loaders(PAIRS, batch_size=np.int16(8), workers=np.int32(0))
    assert (len(loader), loader.num_workers) == (5, 0)


def test_only_the_seed_of_loaders_decides_the_order():
    torch.manual_seed(1)
    first = labels(loaders((X, Y), batch_size=8))
    torch.manual_seed(2)
    assert labels(loaders((X, Y), batch_size=8)) == first


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([X, Y], "列表应是样本的列表.*实际的 2 项.*元组.*torch.stack"),
        ([X], "列表应是样本的列表"),
        (list(X), "列表应是样本的列表"),
        ([X.numpy(), Y.numpy()], "列表应是样本的列表"),
        ([X, Y.tolist()], "列表应是样本的列表"),
        ([Y.tolist(), X], "列表应是样本的列表"),
        (random_split(WHOLE, [30, 10]), "训练集应是一个数据集"),
        ((X.numpy(), Y.numpy()), "元组里应全是张量.*ndarray.*torch.from_numpy"),
        ((X.tolist(), Y.tolist()), "元组里应全是张量.*list"),
        ((X, Y.tolist()), "元组里应全是张量"),
        (tuple(PAIRS), "元组里应全是张量.*tuple、tuple、tuple。"),
        ((WHOLE, WHOLE), "元组里应全是张量"),
        ((), "元组里应全是张量"),
        ({"x": X, "y": Y}, "数据集应能按编号 0、1、2… 取样本，实际的 dict"),
        (UserDict(x=X), "数据集应能按编号 0、1、2… 取样本，实际的 UserDict"),
        (X, "训练集和验证集应各是一个元组，实际给的是张量"),
        (X.numpy(), "训练集和验证集应各是一个元组，实际给的是 NumPy 数组"),
        (Table(), "数据集应能按编号取样本，实际的表格 Table"),
        ("data/train", "数据集应是张量的元组"),
        (b"data", "数据集应是张量的元组"),
        (None, r"数据集应有 len\(\)"),
        (DataLoader(WHOLE, 8), r"数据集应有 len\(\).*已经是加载器的"),
        (TensorLoader(X, batch_size=4), r"数据集应有 len\(\)"),
        (loaders(PAIRS, batch_size=4), r"数据集应有 len\(\)"),
        ((pair for pair in PAIRS), r"数据集应有 len\(\)"),
        (NoLength(), r"数据集应有 len\(\)"),
        (NoSamples(), r"数据集应有 len\(\)"),
        (TensorDataset, r"数据集应有 len\(\)"),
        (Stream(), "数据集应能按编号取样本，实际的 Stream 是 IterableDataset"),
        (Subset(Stream(), [0]), "数据集应能按编号取样本，实际的 Stream 是 IterableDataset"),
        (ChainDataset([Stream()]), "数据集应能按编号取样本"),
        (Subset(WHOLE, Y > 3), "Subset 应逐个给出整数编号，.*掩码"),
        (Subset(PAIRS, (Y > 3).tolist()), "Subset 应逐个给出整数编号"),
        (Subset(WHOLE, [0.5]), "Subset 应逐个给出整数编号"),
    ],
)
def test_data_that_would_be_misread_are_refused(data, message):
    for given in ((data,), (WHOLE, data)):
        if given[-1] is not None or len(given) == 1:
            with pytest.raises(ArgumentError, match=message):
                loaders(*given, batch_size=8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Subset(WHOLE, [40]), "Subset 的编号应在 -40 到 39 之间.*实际有 40"),
        (Subset(PAIRS, [-41]), "Subset 的编号.*实际有 -41"),
        (Subset(Subset(WHOLE, [1, 2]), [2]), "Subset 的编号应在 -2 到 1 之间"),
        ([], "数据集应至少有一个样本"),
        (Subset(WHOLE, []), "数据集应至少有一个样本"),
        ((X, Y.to("meta")), "各张量应在同一设备上"),
        ((X.to_sparse(), Y), "张量应是稠密的，实际有 torch.sparse_coo"),
    ],
)
def test_data_that_cannot_be_read_are_refused(data, message):
    for given in ((data,), (WHOLE, data)):
        with pytest.raises(DataError, match=message):
            loaders(*given, batch_size=8)


NUMBERS = [8.0, True, None, "8", np.float32(8), np.True_, torch.tensor(True), [8]]


@pytest.mark.parametrize("bad", NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["batch_size", "valid_batch_size", "seed", "workers"])
def test_what_is_no_whole_number_is_refused(name, bad):
    if name == "valid_batch_size" and bad is None:
        return  # 与 batch_size 相同
    for data in ((X, Y), PAIRS):
        with pytest.raises(ArgumentError, match=f"{name} 应为.*整数，实际是 "):
            loaders(data, data, **{"batch_size": 8, name: bad})


@pytest.mark.parametrize(
    ("name", "bad"), [("batch_size", 0), ("valid_batch_size", -1), ("workers", -1)]
)
def test_what_is_too_small_is_refused(name, bad):
    with pytest.raises(ArgumentError, match=f"{name} 应为不小于 . 的整数，实际是 {bad}"):
        loaders((X, Y), (X, Y), **{"batch_size": 8, name: bad})


def test_other_bad_settings_are_refused():
    with pytest.raises(ArgumentError, match="drop_last 应为 True、False"):
        loaders((X, Y), batch_size=8, drop_last="no")
    for data in ((X, Y), PAIRS):
        loader = loaders(data, batch_size=8)
        with pytest.raises(ArgumentError, match="epoch 应为整数"):
            loader.set_epoch(1.5)
        with pytest.raises(ArgumentError, match="start 应为整数"):
            loader.iter_from(1.5)
    for draw in (lambda x: x + np.random.rand(), lambda x: x * __import__("random").random()):
        with pytest.raises(ArgumentError, match="transform 的随机数应从外面给"):
            loaders((X, Y), batch_size=8, transform=draw)


def stacked(samples):
    """拼成一批，再加上噪声。"""
    return torch.stack([y for _, y in samples]), torch.rand(len(samples))


def test_collate_fn_joins_the_samples_of_training_and_validation():
    sequences = [torch.full((1 + k % 5,), k) for k in range(20)]
    train, valid = loaders(sequences, sequences, batch_size=20, collate_fn=pad_sequence)
    assert torch.equal(next(iter(valid)), pad_sequence(sequences))
    assert sorted(next(iter(train))[0].tolist()) == list(range(20))


@pytest.mark.parametrize("data", [(X, Y), WHOLE, Subset(WHOLE, range(40))])
def test_collate_fn_gets_samples_also_from_tensors_in_the_order_without_it(data):
    loader = loaders(data, batch_size=8, collate_fn=list)
    assert isinstance(loader, IndexLoader)
    found = [[y.item() for _, y in batch] for batch in loader]
    assert found == [y.tolist() for _, y in loaders(data, batch_size=8)]


def test_what_collate_fn_draws_depends_on_the_seed_and_the_epoch_alone():
    before = torch.get_rng_state()
    one, two = (loaders(PAIRS, batch_size=8, workers=k, collate_fn=stacked) for k in (0, 2))
    first = [noise for _, noise in one]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    found = [noise for _, noise in two]
    assert all(map(torch.equal, found, first))
    assert not torch.equal(first[0], first[1])
    two.set_epoch(0)
    assert all(map(torch.equal, [noise for _, noise in two.iter_from(2)], first[2:]))
    assert not torch.equal(next(iter(one))[1], first[0])


def test_what_cannot_collate_is_refused():
    with pytest.raises(ArgumentError, match="collate_fn 应能调用"):
        loaders(PAIRS, batch_size=8, collate_fn=3)
    with pytest.raises(ArgumentError, match="transform 对整批张量做"):
        images = torch.zeros(8, 1, 2, 2)
        loaders((images,), batch_size=8, collate_fn=list, transform=RandomFlip())
