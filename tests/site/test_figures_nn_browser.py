"""第 3 章的四张图，在浏览器里用键盘、指针操作：页面上读到的数与 torch 算的一样。"""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from playwright.sync_api import Locator

from companion.book import convolution, microscope, neighbours, pipeline

from .conftest import figure, press, shown

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="没有 chromium，开不了浏览器")
NARROW = {"width": 320, "height": 640}

# —— 卷积 ——

PICTURES = torch.arange(128).reshape(2, 8, 8) % 17 / 16
OWN = torch.tensor([[[0.5, -1, 0.25], [0, 2, -0.5], [1, 0, -0.75]]])
WALKS = [
    ({}, []),
    ({"补零": "0"}, ["ArrowLeft", "ArrowDown"]),
    ({"步幅": "2"}, ["ArrowUp", "ArrowRight", "ArrowRight"]),
    ({"模板": "文件第 1 个", "图": "1"}, ["ArrowDown"] * 9),
    ({"模板": "文件第 1 个", "翻转": True}, ["ArrowRight"]),
    ({"模板": "横边", "图右移一格": True}, ["ArrowLeft"] * 9),
    ({"模板": "模糊", "补零": "0", "步幅": "2", "图右移一格": True}, []),
]


def set_up(node: Locator, choices: dict[str, str | bool]) -> None:
    for label, value in choices.items():
        if value is True:
            node.get_by_label(label, exact=False).check()
        else:
            node.get_by_label(label, exact=True).select_option(value)


@pytest.mark.parametrize(("choices", "keys"), WALKS)
def test_convolution_shows_what_torch_scans_and_the_sum_of_the_nine(show, choices, keys):
    node = figure(show(convolution(PICTURES, OWN)), "convolution")
    set_up(node, choices)
    press(node.locator(".cw-board").first, *keys)
    state = shown(node)
    image = PICTURES[int(state["which"])]
    image = F.pad(image, (1, -1)) if "图右移一格" in choices else image
    kernel = torch.tensor(json.loads(state["kernel"])).float().view(1, 1, 3, 3)
    if choices.get("模板") == "文件第 1 个":
        assert torch.equal(kernel[0], OWN.rot90(2, (1, 2)) if "翻转" in choices else OWN)
    padding, stride = int(choices.get("补零", 1)), int(choices.get("步幅", 1))
    truth = F.conv2d(image[None, None], kernel, padding=padding, stride=stride)[0, 0]
    assert torch.allclose(torch.tensor(json.loads(state["output"])), truth, atol=1e-5)
    row, col = int(state["row"]), int(state["col"])
    assert float(state["sum"]) == pytest.approx(truth[row, col].item(), abs=1e-5)
    said = node.get_by_role("status").inner_text().split(" = ")[1].replace("−", "-")
    assert float(said) == pytest.approx(truth[row, col].item(), abs=6e-4)
    assert node.locator(".cw-nine > span").count() == 9
    assert node.locator(".cw-board").nth(1).locator("span").count() == truth.numel()


def test_convolution_takes_a_kernel_written_by_hand_and_keeps_the_old_when_it_is_no_number(show):
    node = figure(show(convolution(PICTURES)), "convolution")
    cell = node.get_by_label("模板第 2 行第 2 个")
    cell.fill("5")
    cell.press("Enter")
    assert json.loads(shown(node)["kernel"]) == [-1, 0, 1, -1, 5, 1, -1, 0, 1]
    assert node.get_by_label("模板", exact=True).input_value() == "自己写"
    cell.fill("")
    cell.press("Enter")
    assert json.loads(shown(node)["kernel"])[4] == 5 and cell.input_value() == "5"


def test_convolution_follows_a_finger_and_the_buttons(show):
    page = show(convolution(PICTURES), viewport=NARROW, has_touch=True)
    node = figure(page, "convolution")
    board = node.locator(".cw-board").nth(1)
    box = board.bounding_box()
    board.tap(position={"x": box["width"] * 0.95, "y": box["height"] * 0.05})
    assert (shown(node)["row"], shown(node)["col"]) == ("0", "7")
    node.get_by_role("button", name="窗口往下走").tap()
    node.get_by_role("button", name="窗口往左走").tap()
    assert (shown(node)["row"], shown(node)["col"]) == ("1", "6")


# —— 邻居 ——

SCENES = [
    [],
    [(1, ["ArrowRight"] * 3)],
    [(5, ["End"]), "走一批"],
    [(5, ["End"]), "走一批", "走一批", "考 eval()"],
    ["走一批", "考 eval()", (2, ["Home"]), (3, ["PageUp"]), "走一批"],
    [(1, ["Home"]), (2, ["Home"]), (3, ["Home"]), "走一批", "走一批", "走一批"],
]


@pytest.mark.parametrize("scene", SCENES)
def test_neighbours_change_you_in_training_only_as_batch_norm_says(show, scene):
    node = figure(show(neighbours()), "neighbours")
    layer = torch.nn.BatchNorm1d(1, affine=False, dtype=torch.float64)
    means = [0.0]
    for move in scene:
        if isinstance(move, tuple):
            press(node.get_by_label(f"第 {move[0]} 个邻居"), *move[1])
            continue
        press(node.get_by_role("button", name=move, exact=True), "Enter")
        if move == "走一批":
            layer(torch.tensor(json.loads(shown(node)["values"]), dtype=torch.float64)[:, None])
            means += [layer.running_mean.item()] * layer.training
        else:
            layer.eval()
    state = shown(node)
    values = torch.tensor(json.loads(state["values"]), dtype=torch.float64)
    assert values[0] == 1
    assert json.loads(state["history"]) == pytest.approx(means)
    assert float(state["variance"]) == pytest.approx(layer.running_var.item())
    mine = layer(values[:, None])[0].item()
    assert float(state["mine"]) == pytest.approx(mine, abs=1e-9)
    said = node.get_by_role("status").inner_text().split(" = ")[1].split("。")[0]
    assert float(said.replace("−", "-")) == pytest.approx(mine, abs=6e-3)
    assert ("你都不变" in node.get_by_role("status").inner_text()) == (not layer.training)


def test_a_neighbour_is_dragged_with_the_pointer_and_you_are_not(show):
    node = figure(show(neighbours()), "neighbours")
    track = node.locator(".cw-track-line").first.bounding_box()
    mouse, middle = node.page.mouse, track["y"] + track["height"] / 2
    for start, end in ((9, 6), (1, 11)):
        mouse.move(track["x"] + track["width"] * start / 12, middle)
        mouse.down()
        mouse.move(track["x"] + track["width"] * end / 12, middle, steps=3)
        mouse.up()
    assert json.loads(shown(node)["values"]) == [1, 2, 3, 4, 5, 6]


# —— 形状流水线 ——


def test_a_pipeline_is_edited_by_keyboard_and_repeats_the_message_of_torch(show):
    node = figure(show(pipeline()), "pipeline")
    assert json.loads(shown(node)["shapes"])[-1] == [5, 10]
    press(node.get_by_label("第 6 层全连接的进"), "Control+A", "2", "5", "6", "Enter")
    with pytest.raises(RuntimeError) as error:
        torch.nn.Linear(256, 10)(torch.zeros(5, 512))
    assert shown(node)["error"] == str(error.value)
    assert str(error.value) in node.get_by_role("status").inner_text()
    assert node.evaluate("node => document.activeElement.dataset.key") == "5 in"
    press(node.get_by_label("第 4 层卷积的出"), "Control+A", "1", "6", "Enter")
    assert (shown(node)["error"], json.loads(shown(node)["shapes"])[-1]) == ("", [5, 10])


def test_a_pipeline_moves_cuts_and_adds_stages(show):
    node = figure(show(pipeline()), "pipeline")
    press(node.get_by_role("button", name="第 5 层展平上移"), "Enter")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Conv2d(1, 32, 3))
    with pytest.raises(RuntimeError) as error:
        net(torch.zeros(5, 32, 4, 4))
    assert shown(node)["error"] == str(error.value)
    for _ in range(3):
        press(node.get_by_role("button", name="删掉第 4 层"), "Enter")
    press(node.get_by_role("button", name="加池化"), "Space")
    assert json.loads(shown(node)["shapes"])[-1] == [5, 32, 2, 2]


def test_a_pipeline_ignores_what_is_not_a_size(show):
    node = figure(show(pipeline()), "pipeline")
    before = shown(node)["shapes"]
    for keys in (["0"], ["-", "3"], ["Delete"], ["9", "9", "9"]):
        press(node.get_by_label("第 1 层卷积的窗口"), "Control+A", *keys, "Enter")
        assert shown(node)["shapes"] == before
        assert node.get_by_label("第 1 层卷积的窗口").input_value() == "3"


# —— 显微镜 ——

SIGHTS = [
    [],
    ["He"],
    ["Glorot", "归一化"],
    ["归一化", "残差"],
    ["He", "残差"],
    ["sigmoid"],
    ["tanh", "残差", ("层数", 50)],
    ["不弯", ("g", 2.0), ("层数", 1)],
]


def seen_by_torch(state: dict[str, str]) -> tuple[float, float]:
    """照页面上的设置，torch 走一遍、退一遍：最后一层的大小，第 1 层收到的推力。"""
    seed, draws = 20260, []
    for _ in range(16 * 32 + int(state["depth"]) * 1024):
        total = -6.0
        for _ in range(12):
            seed = seed * 16807 % 2147483647
            total += seed / 2147483647
        draws.append(total)
    numbers = torch.tensor(draws, dtype=torch.float64)
    h, arriving = numbers[:512].view(2, 8, 32)
    act = {"不弯": lambda v: v}.get(state["act"]) or getattr(torch, state["act"].lower())
    norm, residual = state["norm"] == "true", state["residual"] == "true"
    tidy = (lambda v: F.layer_norm(v, (32,))) if norm else (lambda v: v)
    outs = []
    for w in numbers[512:].view(-1, 32, 32) * (float(state["gain"]) / 32**0.5):
        h = h.requires_grad_()
        h = h + act(tidy(h) @ w.T) if residual else act(tidy(h @ w.T))
        outs.append(h)
    (first,) = torch.autograd.grad(h, outs[:1], arriving)
    return h.square().mean().sqrt().item(), first.square().mean().sqrt().item()


@pytest.mark.parametrize("moves", SIGHTS)
def test_the_microscope_shows_the_sizes_that_torch_computes(show, moves):
    node = figure(show(microscope()), "microscope")
    for move in moves:
        if isinstance(move, tuple):
            node.get_by_label(move[0], exact=True).fill(str(move[1]))
        elif move in ("归一化", "残差"):
            node.get_by_label(move).check()
        elif move in ("He", "Glorot"):
            press(node.get_by_role("button", name=move), "Enter")
        else:
            node.get_by_label("激活").select_option(move)
    state = shown(node)
    last, first = seen_by_torch(state)
    assert float(state["size"]) == pytest.approx(last, rel=1e-6)
    assert float(state["push"]) == pytest.approx(first, rel=1e-6)
    strokes = node.locator("polyline").evaluate_all(
        "all => all.map(e => getComputedStyle(e).stroke)"
    )
    assert len(set(strokes)) == 2 and "none" not in strokes
    told = [float(text) for text in node.locator("dd").all_inner_texts()]
    assert told == pytest.approx([last, first], rel=0.5)
    assert node.get_by_role("status").inner_text()


def test_the_microscope_is_worked_with_the_keys(show):
    node = figure(show(microscope()), "microscope")
    press(node.get_by_label("层数"), "Home", "ArrowRight")
    assert shown(node)["depth"] == "2"
    press(node.get_by_label("残差"), "Space")
    press(node.get_by_label("g", exact=True), "End")
    assert (shown(node)["residual"], shown(node)["gain"]) == ("true", "2")
    assert "第 2 层" in node.inner_text()
