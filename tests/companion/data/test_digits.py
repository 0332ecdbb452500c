import numpy as np
import pytest
import torch
from sklearn import datasets

from companion.data import digits_split, load_digits
from companion.errors import ArgumentError


def test_the_packaged_digits_equal_those_of_scikit_learn():
    ours, theirs = load_digits(), datasets.load_digits()
    assert ours.images.dtype == torch.uint8
    assert ours.labels.dtype == torch.int64
    assert np.array_equal(ours.images.numpy(), theirs.images)
    assert np.array_equal(ours.labels.numpy(), theirs.target)


def test_changing_the_loaded_digits_does_not_change_the_next_load():
    load_digits().images.zero_()
    assert load_digits().images.any()


def test_the_writers_split_keeps_the_last_rows_in_order_for_testing():
    images, labels = load_digits()
    (inputs, targets), (test_inputs, test_targets) = digits_split("writers", test=360)
    assert inputs.shape == (1437, 1, 8, 8)
    assert test_inputs.shape == (360, 1, 8, 8)
    assert torch.equal(torch.cat([targets, test_targets]), labels)
    assert torch.equal(test_inputs, images[-360:, None] / 16)


def test_the_shuffled_split_holds_each_image_exactly_once():
    (inputs, _), (test_inputs, _) = digits_split(seed=1)
    ours = torch.cat([inputs, test_inputs]).flatten(1).mul(16).to(torch.uint8)
    everything = load_digits().images.flatten(1)
    assert sorted(map(bytes, ours.numpy())) == sorted(map(bytes, everything.numpy()))


def test_labels_stay_with_their_images_when_shuffled():
    images, labels = load_digits()
    known = {bytes(i.numpy().tobytes()): int(t) for i, t in zip(images, labels, strict=True)}
    for inputs, targets in digits_split(seed=2):
        stored = inputs.mul(16).to(torch.uint8).squeeze(1)
        found = [known[image.numpy().tobytes()] for image in stored]
        assert found == targets.tolist()


def test_the_seed_alone_decides_the_shuffled_split():
    state = torch.get_rng_state()
    one, again, other = digits_split(seed=5), digits_split(seed=5), digits_split(seed=6)
    assert torch.equal(one[1][1], again[1][1])
    assert not torch.equal(one[1][1], other[1][1])
    assert torch.equal(torch.get_rng_state(), state)


def test_inputs_are_floats_from_zero_to_one():
    (inputs, _), _ = digits_split()
    assert inputs.dtype == torch.float32
    assert (inputs.min(), inputs.max()) == (0, 1)


def test_a_split_that_does_not_exist_is_explained():
    with pytest.raises(ArgumentError, match="'shuffled'、'writers' 之一"):
        digits_split("random")
    with pytest.raises(ArgumentError, match="1 到 1796 之间，实际是 1797"):
        digits_split(test=1797)
