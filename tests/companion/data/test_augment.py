import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from companion.data import Compose, Normalize, RandomCrop, RandomErase, RandomFlip
from companion.data._augment import as_compose
from companion.errors import ArgumentError, ShapeError

ALMOST_ONE = 1 - 2**-24  # float32 里小于 1 的最大的数


def pictures(shape=(16, 3, 6, 9), dtype=torch.uint8, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, dtype=torch.uint8, generator=g).to(dtype)


def uniform(rows, batch=16, seed=1):
    return torch.rand(rows, batch, generator=torch.Generator().manual_seed(seed))


def crop_one(image, padding, fill, top, left):
    """一张图的裁剪，用切片写。"""
    _, height, width = image.shape
    padded = F.pad(image, [padding] * 4, value=fill)
    return padded[:, top : top + height, left : left + width]


def erase_one(image, transform, u):
    """一张图的涂抹，照论文的算法 1 用切片写。"""
    chance, area, ratio, top, left = u
    _, height, width = image.shape
    (small, large), (flat, thin) = transform.scale, transform.ratio
    area = (area * (large - small) + small) * (height * width)
    ratio = ratio * (thin - flat) + flat
    tall = min(max(int((area * ratio).sqrt().round()), 1), height)
    wide = min(max(int((area / ratio).sqrt().round()), 1), width)
    y, x = int(top * (height - tall + 1)), int(left * (width - wide + 1))
    result = image.clone()
    if chance < transform.p:
        result[:, y : y + tall, x : x + wide] = transform.value
    return result


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_a_flip_turns_exactly_the_images_whose_number_is_below_p(dtype):
    images, u = pictures(dtype=dtype), uniform(1)
    expected = [i.flip(-1) if v < 0.3 else i for i, v in zip(images, u[0], strict=True)]
    assert 0 < int((u < 0.3).sum()) < 16
    assert torch.equal(RandomFlip(0.3)(images, u), torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("fill", [0, 7])
def test_a_crop_equals_padding_and_slicing_one_image_at_a_time(dtype, fill):
    images, u = pictures(dtype=dtype), uniform(2)
    tops, lefts = (u * 7).long().tolist()
    places = zip(images, tops, lefts, strict=True)
    expected = torch.stack([crop_one(image, 3, fill, top, left) for image, top, left in places])
    assert torch.equal(RandomCrop(3, fill)(images, u), expected)
    assert len(set(zip(tops, lefts, strict=True))) > 8


def test_a_crop_reaches_every_place_and_no_other():
    image = torch.arange(1, 13).view(1, 1, 3, 4)
    u = torch.cartesian_prod(*[torch.tensor([0.0, 0.34, ALMOST_ONE])] * 2).T
    found = RandomCrop(1)(image.expand(9, 1, 3, 4), u)
    expected = [crop_one(image[0], 1, 0, top, left) for top in range(3) for left in range(3)]
    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("padding", [1, 2, 4, 9])
def test_the_largest_random_number_still_lies_inside_the_image(padding):
    images = pictures((2, 1, 5, 5))
    last = RandomCrop(padding)(images, torch.full((2, 2), ALMOST_ONE))
    assert torch.equal(last[0], crop_one(images[0], padding, 0, 2 * padding, 2 * padding))
    u = torch.tensor([0.0, *[ALMOST_ONE] * 4]).view(5, 1).expand(5, 2)
    corner = RandomErase(1.0, scale=(0.04, 0.04), ratio=(1, 1), value=256)(images.short(), u)
    assert (corner == 256).nonzero().tolist() == [[0, 0, 4, 4], [1, 0, 4, 4]]


def test_a_crop_does_not_depend_on_the_layout_in_memory():
    images, u = pictures(), uniform(2)
    channels_last = images.to(memory_format=torch.channels_last)
    every_other = pictures((32, 3, 6, 9))[::2]
    assert torch.equal(RandomCrop(2)(channels_last, u), RandomCrop(2)(images, u))
    assert torch.equal(RandomCrop(2)(every_other, u), RandomCrop(2)(every_other.contiguous(), u))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_an_erased_rectangle_equals_slicing_one_image_at_a_time(dtype):
    images, u = pictures((64, 3, 12, 9), dtype), uniform(5, 64)
    transform = RandomErase(0.7, value=3)
    pairs = zip(images, u.T, strict=True)
    expected = torch.stack([erase_one(image, transform, one) for image, one in pairs])
    found = transform(images, u)
    assert torch.equal(found, expected)
    changed = (found != images).flatten(1).any(1)
    assert torch.equal(changed, u[0] < 0.7)


@pytest.mark.parametrize(("mean", "std"), [([0.4, 0.5, 0.6], [0.2, 0.3, 0.1]), ([0.5], [0.25])])
def test_normalize_agrees_with_torchvision(mean, std):
    images = pictures()
    theirs = v2.Normalize(mean * (3 // len(mean)), std * (3 // len(std)))
    floats = v2.functional.to_dtype(images, torch.float32, scale=True)
    before = floats.clone()
    ours = Normalize(mean, std)
    torch.testing.assert_close(ours(images), theirs(floats))
    torch.testing.assert_close(ours(floats), theirs(floats))
    torch.testing.assert_close(ours(floats.double()), theirs(floats.double()))
    assert torch.equal(floats, before)


def test_one_number_normalizes_every_channel():
    images = pictures()
    assert torch.equal(Normalize(0.5, 0.25)(images), Normalize([0.5] * 3, [0.25] * 3)(images))


def test_compose_hands_each_transform_its_own_numbers_in_order():
    images, u = pictures(), uniform(3)
    both = Compose(RandomCrop(2), Normalize(0.5, 0.5), RandomFlip())
    step_by_step = RandomFlip()(Normalize(0.5, 0.5)(RandomCrop(2)(images, u[:2])), u[2:])
    assert both.draws == 3
    assert torch.equal(both(images, u), step_by_step)


def test_a_compose_may_stand_in_a_compose():
    images, u = pictures(), uniform(3)
    nested = Compose(Compose(RandomCrop(2), RandomFlip()), Normalize(0.5, 0.5))
    flat = Compose(RandomCrop(2), RandomFlip(), Normalize(0.5, 0.5))
    assert torch.equal(nested(images, u), flat(images, u))


def test_only_the_fixed_transforms_stay_for_validation():
    images = pictures()
    inner = Compose(RandomFlip(1.0), Normalize(0.5, 0.5))
    fixed = Compose(RandomCrop(2), inner, torch.neg).fixed()
    assert fixed.draws == 0
    assert torch.equal(fixed(images, torch.empty(0, 16)), -Normalize(0.5, 0.5)(images))


def test_a_reader_writes_a_transform_with_two_attributes():
    class Brightness:
        draws = 1

        def __call__(self, x_BCHW, u_KB):
            return x_BCHW * (0.8 + 0.4 * u_KB[0].view(-1, 1, 1, 1))

    images, u = pictures(dtype=torch.float32), uniform(1)
    expected = torch.stack([i * (0.8 + 0.4 * v) for i, v in zip(images, u[0], strict=True)])
    assert torch.equal(as_compose([Brightness()])(images, u), expected)


def test_nothing_given_changes_nothing():
    images = pictures()
    assert as_compose(None)(images, torch.empty(0, 16)) is images
    assert as_compose([]).draws == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomFlip(1.5), "0 到 1 之间，实际是 1.5"),
        (lambda: RandomErase(-1), "0 到 1 之间，实际是 -1"),
        (lambda: RandomErase(scale=(0.3, 0.1)), "从小到大"),
        (lambda: RandomCrop(0), "不小于 1 的整数，实际是 0"),
        (lambda: Normalize([0.5, 0.5], [0.5]), "个数应相同"),
        (lambda: Normalize(0.5, 0.0), "std 应大于 0"),
        (lambda: Compose(RandomFlip), r"请加括号：RandomFlip\(…\)"),
        (lambda: as_compose(["flip"]), "变换应能调用.*'flip'"),
    ],
)
def test_a_wrong_argument_is_explained(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize("transform", [RandomFlip(), RandomCrop(1), RandomErase()])
def test_images_without_channels_are_explained(transform):
    with pytest.raises(ShapeError, match=r"images\[:, None\]"):
        transform(torch.zeros(16, 8, 8), uniform(transform.draws))


def test_a_wrong_number_of_channels_is_explained():
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\)，实际是 \(2, 1, 4, 4\)"):
        Normalize([0.5] * 3, [0.5] * 3)(torch.zeros(2, 1, 4, 4))
