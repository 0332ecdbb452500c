from pathlib import Path

import pytest
import torch

from companion.checkpoint import is_sharded, newest_good
from companion.distributed import launch
from tests.companion.train.ranks_fit import KINDS, RUNS, SETTINGS, VALID, train, weights

SCRIPT = Path(__file__).with_name("ranks_fit.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """两个进程练出来的：``folder``，和按 ``(种类, 设置)`` 读结果的函数。"""
    folder = tmp_path_factory.mktemp("fit")
    launch(SCRIPT, args=[folder], timeout=100)
    return folder, lambda kind, name: torch.load(folder / f"{kind}-{name}.pt")


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_learn_what_one_process_learns_from_the_whole_batch(kind, name, results):
    result = results[1](kind, name)
    model, records = train(kind, SETTINGS[name])
    expected = weights(model)
    assert result["weights"].keys() == expected.keys()
    for parameter, value in expected.items():
        error = (result["weights"][parameter] - value).norm() / value.norm()
        assert error <= 1e-6, parameter
    first, second = result["records"]
    assert str(first) == str(second)
    for ours, theirs in zip(first, records, strict=True):
        assert ours.keys() == theirs.keys()
        for column, value in theirs.items():
            exact = "loss" not in column
            tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-6, "atol": 0}
            torch.testing.assert_close(ours[column], value, **tolerance)


def test_every_validation_sample_is_seen_by_exactly_one_rank(results):
    first, second = results[1]("ddp", "plain")["seen"]
    assert sorted(first + second) == list(range(VALID))
    assert {len(first), len(second)} == {VALID // 2, VALID - VALID // 2}


@pytest.mark.parametrize("kind", KINDS)
def test_load_best_brings_back_the_weights_that_were_judged(kind, results):
    again, judged = results[1](kind, "accumulate")["best"]
    assert again == judged


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_saves_of_fsdp_are_sharded(kind, results):
    for name in RUNS:
        save = newest_good(results[0] / f"{kind}-{name}")
        assert save.info["world"] == 2 and is_sharded(save.path) == (kind == "fsdp")
