"""第 3 章的四张图里的计算，在 JavaScript 引擎里跑，和 torch 逐一对照。"""

import itertools
import json
import re

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from companion.book import convolution, microscope, neighbours
from companion.errors import ArgumentError, ShapeError
from tests.companion.book.engine import call, load

# —— 卷积 ——


def drawn_picture(seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 17, (8, 8), generator=generator, dtype=torch.float64) / 16
    return image, torch.randn(3, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [False, True])
def test_convolution_scans_what_torch_scans(padding, stride, flip, shift):
    engine = load("convolution")
    for seed in range(3):
        image, kernel = drawn_picture(seed)
        x = F.pad(image, (1, -1)) if shift else image
        w = kernel.rot90(2) if flip else kernel
        rows = call(engine, "W.moved", image.tolist()) if shift else image.tolist()
        weights = kernel.flatten().tolist()
        weights = call(engine, "W.turned", weights) if flip else weights
        out = call(engine, "W.convolve", rows, weights, padding, stride)
        truth = F.conv2d(x[None, None], w[None, None], padding=padding, stride=stride)[0, 0]
        assert torch.tensor(out, dtype=torch.float64).shape == truth.shape
        assert torch.allclose(torch.tensor(out, dtype=torch.float64), truth, atol=1e-12)


def test_the_nine_products_of_a_window_sum_to_its_output():
    engine = load("convolution")
    image, kernel = drawn_picture(0)
    weights = kernel.flatten().tolist()
    for padding, stride, row, col in ((0, 1, 5, 2), (1, 1, 0, 7), (1, 2, 3, 0), (0, 2, 2, 1)):
        nine = call(engine, "W.products", image.tolist(), weights, padding, stride, row, col)
        big = F.pad(image, [padding] * 4)[row * stride :, col * stride :][:3, :3]
        assert [one["pixel"] for one in nine] == big.flatten().tolist()
        assert [one["w"] for one in nine] == weights
        truth = F.conv2d(image[None, None], kernel[None, None], padding=padding, stride=stride)
        total = sum(one["product"] for one in nine)
        assert total == pytest.approx(truth[0, 0, row, col].item())


@pytest.mark.parametrize("padding", [0, 1])
def test_a_moved_picture_moves_its_scan_except_at_the_edge(padding):
    engine = load("convolution")
    image, kernel = drawn_picture(1)
    rows, weights = image.tolist(), kernel.flatten().tolist()
    before = call(engine, "W.convolve", rows, weights, padding, 1)
    after = call(engine, "W.convolve", call(engine, "W.moved", rows), weights, padding, 1)
    kept = torch.tensor(call(engine, "W.followed", before, after))
    x, w = image[None, None], kernel[None, None]
    scan, moved = (F.conv2d(t, w, padding=padding)[0, 0] for t in (x, F.pad(x, (1, -1))))
    same = torch.isclose(moved[:, 1:], scan[:, :-1])
    assert not kept[:, 0].any() and torch.equal(kept[:, 1:], same)
    assert kept[:, 1 : 8 - 2 * padding].all()


def test_the_kernels_of_the_convolution_figure_do_what_they_are_called():
    kernels = call(load("convolution"), "(() => W.kernels)")
    left_dark = torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1]).expand(8, 8)
    found = {
        name: F.conv2d(left_dark[None, None], torch.tensor(w).float().view(1, 1, 3, 3))[0, 0]
        for name, w in kernels.items()
    }
    assert found["竖边"].max() == 3 and (found["横边"] == 0).all()
    assert found["模糊"].min() == 0 and found["模糊"].max() == pytest.approx(1)


def test_convolution_carries_its_pictures_and_kernels_to_four_digits():
    image, kernel = drawn_picture(0)
    body = convolution(image[None], kernel[None]).body
    numbers = json.loads(re.search(r'data-numbers="([^"]+)"', body)[1].replace("&quot;", '"'))
    assert numbers["images"] == [image.tolist()]
    assert numbers["kernels"] == [pytest.approx(kernel.flatten().tolist(), abs=5e-5)]
    assert convolution(image[None]).body.count("kernels&quot;:[]") == 1


@pytest.mark.parametrize(
    ("images", "kernels", "problem"),
    [
        (torch.zeros(2, 1, 8, 8), None, r"\(2, 1, 8, 8\).*\[:, 0\]"),
        (torch.zeros(8, 8), None, r"\(n, 8, 8\)"),
        (torch.zeros(2, 8, 8), torch.zeros(4, 1, 3, 3), r"\(4, 1, 3, 3\)"),
        (torch.zeros(2, 8, 8), torch.zeros(4, 5, 5), r"\(4, 5, 5\)"),
        (torch.zeros(0, 8, 8), None, "至少要一张"),
    ],
)
def test_convolution_refuses_other_shapes(images, kernels, problem):
    with pytest.raises(ShapeError, match=problem):
        convolution(images, kernels)


def test_convolution_refuses_numbers_that_a_page_cannot_hold():
    with pytest.raises(ArgumentError, match="NaN"):
        convolution(torch.full((1, 8, 8), float("nan")))


# —— 邻居 ——

BATCHES = [
    [1, 2, 3, 4, 5, 9],
    [0, 0, 12, 12, 0.5, 3],
    [1, 12, 12, 12, 12, 12],
    [7, 6.5, 7, 6.5, 7, 7.5],
    [3, 3, 3, 3, 3, 3],
]


def test_neighbours_normalise_and_remember_as_batch_norm_does():
    engine = load("neighbours")
    layer = torch.nn.BatchNorm1d(1, dtype=torch.float64)
    running = call(engine, "(() => W.fresh)")
    for values in BATCHES:
        x = torch.tensor(values, dtype=torch.float64)[:, None]
        batch = call(engine, "W.statistics", values)
        assert call(engine, "W.normalise", values, batch) == pytest.approx(
            layer.train()(x).flatten().tolist(), abs=1e-9
        )
        running = call(engine, "W.remember", running, values)
        assert running["mean"] == pytest.approx(layer.running_mean.item())
        assert running["variance"] == pytest.approx(layer.running_var.item())
        assert call(engine, "W.normalise", values, running) == pytest.approx(
            layer.eval()(x).flatten().tolist(), abs=1e-9
        )


def test_the_example_of_neighbours_is_what_batch_norm_gives():
    layer = torch.nn.BatchNorm1d(1, affine=False)
    mine = [layer(torch.tensor([1.0, 2, 3, 4, 5, last])[:, None])[0].item() for last in (9, 12)]
    for value in mine:
        assert f"{value:.2f}".replace("-", "−") in neighbours().text
    assert call(load("neighbours"), "(() => W.start)") == [1, 2, 3, 4, 5, 9]


# —— 形状流水线 ——

STAGES = [
    {"kind": "conv", "out": 4, "k": 3, "s": 1, "p": 1},
    {"kind": "conv", "out": 6, "k": 5, "s": 2, "p": 0},
    {"kind": "pool", "k": 2},
    {"kind": "pool", "k": 3},
    {"kind": "flatten"},
    {"kind": "linear", "in": 8, "out": 10},
    {"kind": "linear", "in": 16, "out": 8},
]


def torch_stage(stage, shape):
    """这一层在 torch 里的样子；卷积进来几个通道由形状定，不是图就随便写一个。"""
    match stage["kind"]:
        case "conv":
            channels = shape[1] if len(shape) == 4 else 1
            return torch.nn.Conv2d(
                channels, stage["out"], stage["k"], stride=stage["s"], padding=stage["p"]
            )
        case "pool":
            return torch.nn.MaxPool2d(stage["k"])
        case "flatten":
            return torch.nn.Flatten()
    return torch.nn.Linear(stage["in"], stage["out"])


def torch_walk(image, stages):
    """torch 走出来的每一层：形状、参数、一张图的乘法；走不通时的那句话。"""
    batch, rows = torch.zeros(5, *image), []
    for stage in stages:
        layer = torch_stage(stage, batch.shape)
        try:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                batch = layer(batch)
        except RuntimeError as error:
            return rows, str(error)
        params = sum(p.numel() for p in layer.parameters())
        rows.append((list(batch.shape), params, counter.get_total_flops() / 2 / 5))
    return rows, ""


@pytest.mark.parametrize("image", [(1, 8, 8), (2, 9, 16), (3, 4, 5)])
def test_a_pipeline_agrees_with_torch_on_every_chain_of_up_to_three_stages(image):
    engine = load("pipeline")
    for length in range(4):
        for stages in itertools.product(STAGES, repeat=length):
            walked = call(engine, "W.walk", image, stages)
            rows, message = torch_walk(image, stages)
            assert walked["error"] == message, stages
            good = [row for row in walked["rows"] if "error" not in row]
            shown = [(row["shape"], row["params"], row["mults"]) for row in good]
            assert shown == rows, stages


def test_a_pipeline_writes_the_code_that_builds_the_same_layers():
    engine = load("pipeline")
    image, layers = call(engine, "(() => W.presets.LeNet)")
    codes = [row["code"] for row in call(engine, "W.walk", image, layers)["rows"]]
    net = torch.nn.Sequential(*(eval(code, {"nn": torch.nn}) for code in codes))
    assert net(torch.zeros(5, *image)).shape == (5, 10)
    assert sum(p.numel() for p in net.parameters()) == 61_706


@pytest.mark.parametrize(
    ("name", "layers_walked"),
    [("文件里的网络", 6), ("LeNet", 8), ("忘了展平", 0), ("多池化一次", 5), ("缩过了头", 4)],
)
def test_each_ready_made_pipeline_goes_as_far_as_torch_goes(name, layers_walked):
    image, layers = call(load("pipeline"), f"(() => W.presets[{json.dumps(name)}])")
    rows, message = torch_walk(image, layers)
    assert (len(rows), bool(message)) == (layers_walked, layers_walked < len(layers))


# —— 显微镜 ——

DEEP_ACTS = {
    "ReLU": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "不弯": lambda v: v,
}
UNITS, INPUTS = 32, 8


def park_miller(seed):
    """和脚本里一样的发生器：十二个均匀数之和减 6。"""
    state = seed
    while True:
        total = -6.0
        for _ in range(12):
            state = state * 16807 % 2147483647
            total += state / 2147483647
        yield total


def deep_numbers(seed, depth):
    draw = park_miller(seed)

    def matrix(rows):
        values = [next(draw) for _ in range(rows * UNITS)]
        return torch.tensor(values, dtype=torch.float64).view(rows, UNITS)

    inputs, arriving = matrix(INPUTS), matrix(INPUTS)
    return inputs, arriving, [matrix(UNITS) for _ in range(depth)]


def deep_truth(seed, gain, act, residual, norm, depth):
    """torch 走一遍、退一遍：每层的大小，每层收到的推力。"""
    inputs, arriving, weights = deep_numbers(seed, depth)
    f, h, outs = DEEP_ACTS[act], inputs.requires_grad_(), []

    def tidy(v):
        return F.layer_norm(v, (UNITS,)) if norm else v

    for w in weights:
        w = w * gain / UNITS**0.5
        h = h + f(tidy(h) @ w.T) if residual else f(tidy(h @ w.T))
        outs.append(h)
    pushes = torch.autograd.grad(h, outs, arriving)
    return [[t.square().mean().sqrt().item() for t in ts] for ts in (outs, pushes)]


def test_the_generator_of_the_microscope_is_nearly_a_standard_normal():
    draw = park_miller(call(load("microscope"), "(() => W.seed)"))
    values = torch.tensor([next(draw) for _ in range(20_000)])
    assert abs(values.mean()) < 0.03 and abs(values.std() - 1) < 0.02


@pytest.mark.parametrize("act", DEEP_ACTS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_the_microscope_sees_forward_and_back_what_torch_computes(act, residual, norm):
    engine = load("microscope")
    assert call(engine, "(() => W.acts)") == list(DEEP_ACTS)
    seed = call(engine, "(() => W.seed)")
    for gain, depth in ((3**-0.5, 30), (2**0.5, 6), (2, 1)):
        options = {"gain": gain, "act": act, "residual": residual, "norm": norm, "depth": depth}
        found = call(engine, "W.run", options)
        outs, pushes = deep_truth(seed, **options)
        assert [one["size"] for one in found] == pytest.approx(outs, rel=1e-7)
        assert [one["push"] for one in found] == pytest.approx(pushes, rel=1e-6)


def test_the_example_of_the_microscope_is_what_it_shows():
    engine, text = load("microscope"), microscope().text
    for gain, form in ((3**-0.5, "{:.0e}"), (2**0.5, "{:.2g}")):
        options = {"gain": gain, "act": "ReLU", "residual": False, "norm": False, "depth": 30}
        found = call(engine, "W.run", options)
        for value in (found[-1]["size"], found[0]["push"]):
            assert form.format(value).replace("e-0", "e-") in text


@pytest.mark.parametrize(
    ("last", "first", "said"),
    [
        (1, 1, "没有失控"),
        (1e-9, 1e-9, "两头都快没有了"),
        (0.5, 1e-20, "推力到不了第 1 层"),
        (1e-5, 1, "越走越小"),
        (1e5, 1, "大得不成样子"),
        (1e-9, 1e9, "大得不成样子"),
    ],
)
def test_the_microscope_says_which_way_is_lost(last, first, said):
    assert said in call(load("microscope"), "W.verdict", last, first)
