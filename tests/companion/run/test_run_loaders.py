"""加载器的种种写法：共用的发生器、自己的采样器、就地打乱、数据集自带的发生器、不重启的子进程。"""

import functools
import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from companion.data import loaders
from companion.repro import random_state, seed_everything
from companion.run import Run
from companion.run._held import reachable
from companion.run._probe import why_inexact
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


class Bucket:
    """各批记在 ``b`` 里，每轮 ``reorder`` 一次。"""

    def __init__(self, reorder, b=None):
        self.b = [[i, i + 1] for i in range(0, N, 2)] if b is None else b
        self.reorder = reorder

    def __len__(self):
        return N // 2

    def __iter__(self):
        order = self.reorder(self)
        return iter([list(map(int, batch)) for batch in order])


def shuffle_in_place(bucket):
    random.shuffle(bucket.b)
    return bucket.b


def shuffle_within(bucket):
    for batch in bucket.b:
        random.shuffle(batch)
    return bucket.b


def shuffle_array(bucket):
    np.random.shuffle(bucket.b)
    return bucket.b


def overwrite_tensor(bucket):
    bucket.b[:] = bucket.b[torch.randperm(N // 2)]
    return bucket.b


def shuffle_in_a_dict(bucket):
    random.shuffle(bucket.b["短"])
    return bucket.b["短"]


def replace(bucket):
    bucket.b = random.sample(bucket.b, len(bucket.b))
    return bucket.b


def replace_by_new(bucket):
    bucket.b = np.random.permutation(N).reshape(-1, 2)
    return bucket.b


def shuffle_a_copy(bucket):
    order = list(bucket.b)
    random.shuffle(order)
    return order


def fill_once(bucket):
    bucket.cache = bucket.__dict__.get("cache", [])
    if not bucket.cache:
        bucket.cache.extend(bucket.b)
    return shuffle_a_copy(bucket)


PAIRS = np.arange(N).reshape(-1, 2)
IN_PLACE = {
    "a list": lambda: Bucket(shuffle_in_place),
    "lists in a list": lambda: Bucket(shuffle_within),
    "a list in a dict": lambda: Bucket(shuffle_in_a_dict, {"短": PAIRS.tolist()}),
    "an array": lambda: Bucket(shuffle_array, PAIRS.copy()),
    "a tensor": lambda: Bucket(overwrite_tensor, torch.tensor(PAIRS)),
}
REPLACED = {
    "a new list": lambda: Bucket(replace),
    "a new array": lambda: Bucket(replace_by_new),
    "a copy": lambda: Bucket(shuffle_a_copy),
    "a cache": lambda: Bucket(fill_once),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_sampler_that_shuffles_in_place_is_named_after_its_first_epoch(tmp_path, capsys, name):
    run = Run(tmp_path)
    loader = DataLoader(range(N), batch_sampler=IN_PLACE[name]())
    for _ in run.epochs(1):
        list(run.batches(loader))
    said = capsys.readouterr().out
    assert said == (
        "接着练（从一轮开头也一样），结果不保证与不中断时相同：采样器 Bucket 的次序是就地改的，"
        "新进程里又从没有改过的开始。请改它的副本，如 order = list(self.batches)，再打乱 order。\n"
    )
    assert run.inexact in said


@pytest.mark.parametrize("name", REPLACED)
def test_a_sampler_that_replaces_its_order_is_silent(tmp_path, name):
    run = Run(tmp_path)
    loader = DataLoader(range(N), batch_sampler=REPLACED[name]())
    for _ in run.epochs(3):
        list(run.batches(loader))
    assert run.inexact is None


def test_a_sampler_shuffled_by_the_reader_between_two_epochs_is_seen(tmp_path):
    run, sampler = Run(tmp_path), Bucket(lambda bucket: bucket.b)
    loader = DataLoader(range(N), batch_sampler=sampler)
    for _ in run.epochs(2):
        random.shuffle(sampler.b)
        for _ in run.batches(loader):
            break
    assert "采样器 Bucket 的次序是就地改的" in run.inexact


def test_a_list_given_as_a_sampler_is_looked_at_too(tmp_path):
    run, order = Run(tmp_path), list(range(1000, 1000 + N))
    loader = DataLoader({i: i for i in order}, 4, sampler=order)
    for _ in run.epochs(2):
        random.Random(run.epoch).shuffle(order)
        list(run.batches(loader))
    assert "采样器 list 的次序是就地改的" in run.inexact


def test_a_list_of_batches_shuffled_in_place_is_named_in_the_second_epoch(tmp_path, capsys):
    run, batches = Run(tmp_path), [torch.tensor([i]) for i in range(6)]
    for epoch in run.epochs(2):
        random.Random(epoch).shuffle(batches)
        for _ in run.batches(batches):
            assert (run.inexact is None) == (epoch == 1)
    assert capsys.readouterr().out == (
        "接着练（从一轮开头也一样），结果不保证与不中断时相同：交给 run.batches 的列表就地打乱过，"
        "新进程里又从没有打乱的开始。请打乱副本：run.batches(random.sample(batches, "
        "len(batches)))。\n"
    )


def sampled(run, epoch, batches):
    return plain(run, epoch, random.sample(batches, len(batches)))


def appended(run, epoch, batches):
    batches.append(torch.tensor([epoch]))
    return plain(run, 1, batches)


def rebuilt(run, epoch, batches):
    batches[:] = [torch.tensor([i]) for i in torch.randperm(6).tolist()]
    return plain(run, epoch, batches)


@pytest.mark.parametrize("body", [plain, sampled, appended, rebuilt])
def test_a_list_of_batches_that_is_not_shuffled_in_place_is_silent(tmp_path, capsys, body):
    epochs_of(tmp_path, [4], lambda: [[torch.tensor([i]) for i in range(6)]], body)
    assert capsys.readouterr().out == ""


def test_what_the_hint_about_a_list_advises_is_exact(tmp_path):
    assert_exact(tmp_path, lambda: [[torch.tensor([i]) for i in range(6)]], sampled)


# —— 数据集自带的发生器


class Sometimes(Dataset):
    """``held`` 里的发生器，只在 ``when(self, index)`` 时抽出的数才看得出。"""

    def __init__(self, held, draw):
        self.held, self.draw = held, draw

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return index + self.draw(self, index)


def seldom(dataset, index):
    return float(dataset.held.random() < 0.02)


def minority(dataset, index):
    return dataset.held.normal() if index % 8 == 5 else 0.0


def seldom_torch(dataset, index):
    return float(torch.rand((), generator=dataset.held["augment"][0]) < 0.02)


def reseeded(dataset, index):
    dataset.held.manual_seed(100 + index)
    return torch.rand((), generator=dataset.held).item()


class Flip:
    def __init__(self):
        self.rng = random.Random(0)

    def __call__(self, number):
        return -number if self.rng.random() < 0.02 else number


def flipped(dataset, index):
    for transform in dataset.held:
        index = transform(index)
    return float(index)


def quiet():
    return torch.Generator().manual_seed(1)


OWN = {
    "python's, seldom": lambda: Sometimes(random.Random(0), seldom),
    "numpy's, a minority": lambda: Sometimes(np.random.default_rng(7), minority),
    "numpy's old one": lambda: Sometimes(np.random.RandomState(7), minority),
    "torch's, in a dict": lambda: Sometimes({"augment": (quiet(),)}, seldom_torch),
    "in a transform": lambda: Sometimes([Flip()], flipped),
    "in a subset": lambda: Subset(Sometimes([Flip()], flipped), range(2, 40)),
    "in one of several": lambda: ConcatDataset([range(9), Sometimes(random.Random(0), seldom)]),
    "in a partial": lambda: Sometimes(
        0, functools.partial(lambda rng, *_: float(rng.random() < 0.02), random.Random(0))
    ),
    "in a method": lambda: Sometimes(random.Random(0).random, lambda d, i: float(d.held() < 0.02)),
}
FINE = {
    "reseeded for every sample": lambda: Sometimes(quiet(), reseeded),
    "never drawn from": lambda: Sometimes(quiet(), lambda *_: 0.0),
    "drawn from at the start": lambda: Sometimes(random.Random(0).random(), lambda d, _: d.held),
    "torch's global one": lambda: Sometimes(
        torch.default_generator, lambda d, _: torch.rand((), generator=d.held).item()
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_a_generator_of_the_datasets_own_is_seen_even_if_it_seldom_matters(name):
    for make in (lambda d: DataLoader(d, 4, shuffle=True), lambda d: loaders(d, batch_size=4)):
        found = why_inexact(make(OWN[name]()))
        assert "数据集自己的发生器" in found.reason
        assert found.always


def test_with_workers_it_is_seen_in_the_worker():
    dataset = OWN["numpy's, a minority"]()
    assert "自己的发生器" in why_inexact(DataLoader(dataset, 4, num_workers=1)).reason
    dataset = FINE["reseeded for every sample"]()
    assert why_inexact(DataLoader(dataset, 4, num_workers=1)) is None


def test_a_collate_function_with_a_generator_of_its_own_is_seen():
    rng = random.Random(0)

    def mixed(samples):
        return samples[::-1] if rng.random() < 0.02 else samples

    assert "自己的发生器" in why_inexact(DataLoader(range(9), 3, collate_fn=mixed)).reason


@pytest.mark.parametrize("name", FINE)
def test_a_generator_that_does_not_decide_the_samples_is_silent(name):
    assert why_inexact(DataLoader(FINE[name](), 4, shuffle=True)) is None


def test_looking_moves_neither_the_datasets_generator_nor_the_global_ones():
    seed_everything(0)
    rng, before = random.Random(0), random_state()
    why_inexact(DataLoader(Sometimes(rng, seldom), 4))
    assert rng.getstate() == random.Random(0).getstate()
    assert random_state()["python"] == before["python"]
    assert torch.equal(random_state()["torch"], before["torch"])


def test_looking_does_not_walk_through_a_large_dataset():
    dataset = [[i] for i in range(10**5)]
    assert len(list(reachable([dataset, {"again": dataset}], objects=True))) < 200
    broad = [[[[i, j, k] for i in range(20)] for j in range(20)] for k in range(20)]
    assert len(list(reachable([broad], objects=True))) <= 2000


def test_a_dataset_that_holds_itself_is_walked_once():
    dataset = Sometimes(random.Random(0), lambda *_: 0.0)
    dataset.self = [dataset]
    assert why_inexact(DataLoader(dataset, 4)) is None


# —— 不重启的子进程


def staying(**options):
    return DataLoader(range(4), 2, num_workers=1, persistent_workers=True, **options)


def test_workers_that_stay_are_named(tmp_path, capsys):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        list(run.batches(staying(shuffle=True)))
    assert capsys.readouterr().out == (
        "接着练（从一轮开头也一样），结果不保证与不中断时相同：persistent_workers=True 的加载器"
        "在一个进程里只抽一次子进程的种子，新进程里又抽一次，之后的随机数就错开了。"
        "请去掉 persistent_workers=True，或用 companion.data 的 loaders()。\n"
    )


def test_workers_that_stay_do_make_a_difference_and_those_of_loaders_do_not(tmp_path, capsys):
    def go(folder, make):
        return epochs_of(tmp_path / f"{folder} 1", [2], make, plain) == epochs_of(
            tmp_path / f"{folder} 2", [1, 2], make, plain
        )

    assert not go("torch", lambda: [staying(shuffle=True)])
    capsys.readouterr()
    assert go("ours", lambda: [loaders(range(4), batch_size=2, workers=1)])
    assert "不保证" not in capsys.readouterr().out


@pytest.mark.parametrize("valid", ["stays", "starts anew", "ours", None])
def test_fit_names_a_validation_loader_whose_workers_stay(tmp_path, capsys, valid):
    data = TensorDataset(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    made = {
        "stays": lambda: DataLoader(data, 4, num_workers=1, persistent_workers=True),
        "starts anew": lambda: DataLoader(data, 4),
        "ours": lambda: loaders(list(data), batch_size=4, workers=1),
        None: lambda: None,
    }
    model = nn.Linear(2, 2)
    optimizer, run = torch.optim.SGD(model.parameters(), lr=0.1), Run(tmp_path)
    how = {"loss": F.cross_entropy, "optimizer": optimizer, "progress": False}
    fit(model, [data[:]], made[valid](), run=run, epochs=1, **how)
    assert ("persistent_workers=True" in capsys.readouterr().out) == (valid == "stays")
    assert (run.inexact is not None) == (valid == "stays")
