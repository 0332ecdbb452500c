"""在真正的浏览器里用键盘操作组件：页面上的数与 torch 算的一样，选过的记得住，无障碍零违规。

页面是测试自己写的一个 HTML 文件，不需要先建站，也不联网。
"""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page

from companion.book import (
    bet,
    broadcasting,
    convolution,
    indexing,
    microscope,
    neighbours,
    pipeline,
    quiz,
    strides,
)

from .conftest import figure, shown

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="没有 chromium，开不了浏览器")
NARROW = {"width": 320, "height": 640}


def press(control: Locator, *keys: str) -> None:
    """只用键盘：把焦点移过去，再按键。"""
    control.focus()
    for key in keys:
        control.page.keyboard.press(key)


# —— 广播 ——

SHAPES = [
    ((3, 1), (4,)),
    ((2, 3), (3,)),
    ((5, 1), (5,)),
    ((3, 4), (3,)),
    ((2, 1, 3), (4, 1)),
    ((), (2, 2)),
    ((2,), (3, 4, 5)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_broadcasting_shows_the_shape_values_or_message_of_torch(show, a, b):
    node = figure(show(broadcasting()), "broadcasting")
    for name, shape in (("a", a), ("b", b)):
        for k in range(1, 4):  # 从最后一维往前设；键入数字就选中那一项
            size = str(shape[-k]) if k <= len(shape) else "无"
            select = node.get_by_label(f"{name} 的第 −{k} 维")
            if select.is_enabled():
                press(select, "Home", *(["ArrowDown"] * int(size) if size != "无" else []))
    x = 10 * torch.arange(torch.Size(a).numel()).reshape(a)
    y = torch.arange(torch.Size(b).numel()).reshape(b)
    state = shown(node)
    try:
        result = x + y
    except RuntimeError as error:
        assert (state["result"], state["error"]) == ("", str(error))
        assert str(error) in node.get_by_role("status").inner_text()
    else:
        assert (state["result"], state["error"]) == (str(tuple(result.shape)), "")
        assert f"结果的形状是 {tuple(result.shape)}" in node.get_by_role("status").inner_text()
        cells = node.locator(".cw-sum .cw-cell").all_inner_texts()
        assert cells == [str(value) for value in result.flatten().tolist()]


# —— 步幅 ——

CHAINS = [
    [],
    [".T"],
    [".T", "[1:]"],
    ["[:, ::2]"],
    ["[:, :1]", ".expand(-1, 4)"],
    [".T", ".reshape(2, 6)"],
    [".T", "[:, ::2]", ".contiguous()"],
]


@pytest.mark.parametrize("chain", CHAINS, ids="".join)
def test_strides_show_what_torch_says_about_the_same_view(show, chain):
    node = figure(show(strides()), "strides")
    for operation in chain:
        press(node.get_by_role("button", name=operation, exact=True), "Enter")
    press(node.get_by_label("i", exact=True), "ArrowUp")
    press(node.get_by_label("j", exact=True), "ArrowUp")
    t = torch.arange(12).reshape(3, 4)
    y = eval("t" + "".join(chain), {"t": t})
    i, j = 1, min(1, y.shape[1] - 1)
    cell = y[i, j].storage_offset()
    expected = {
        "expr": "t" + "".join(chain),
        "shape": str(tuple(y.shape)),
        "stride": str(tuple(y.stride())),
        "offset": str(y.storage_offset()),
        "contiguous": str(y.is_contiguous()).lower(),
        "index": f"{i},{j}",
        "cell": str(cell),
        "value": str(y[i, j].item()),
    }
    state = shown(node)
    assert {key: state[key] for key in expected} == expected
    assert f"= {cell}，内存第 {cell} 个数是 {y[i, j].item()}" in node.inner_text()
    assert node.locator(".cw-cell.on").all_inner_texts() == [str(y[i, j].item())] * 2


def test_strides_repeat_the_message_of_torch_when_a_step_is_impossible(show):
    node = figure(show(strides()), "strides")
    press(node.get_by_role("button", name=".T", exact=True), "Enter")
    press(node.get_by_role("button", name=".expand(-1, 4)"), "Space")
    with pytest.raises(RuntimeError) as error:
        torch.arange(12).reshape(3, 4).T.expand(-1, 4)
    assert shown(node)["error"] == str(error.value)
    assert shown(node)["expr"] == "t.T"


# —— 索引 ——

TYPED = ["1", ":, 2", "::2, 1:4", "-1, [0, 5]", "[0, 2], [1, 3]", "None, 2", "t > 10", "4", "1, 2"]


@pytest.mark.parametrize("text", TYPED)
def test_indexing_selects_what_torch_selects(show, text):
    node = figure(show(indexing()), "indexing")
    press(node.get_by_label("t 的下标"), "Control+A")
    node.page.keyboard.type(text)
    t = torch.arange(24).reshape(4, 6)
    state = shown(node)
    try:
        y = eval(f"t[{text}]", {"t": t})
    except IndexError as error:
        assert state["error"] == str(error)
        assert node.locator(".cw-cell.on").count() == 0
        return
    shared = y.untyped_storage().data_ptr() == t.untyped_storage().data_ptr()
    assert (state["shape"], state["kind"]) == (str(tuple(y.shape)), "view" if shared else "copy")
    assert json.loads(state["values"]) == y.flatten().tolist()
    picked = sorted(set(y.flatten().tolist()))
    assert node.locator(".cw-cell.on").all_inner_texts() == [str(value) for value in picked]
    assert eval(node.locator("pre").inner_text()) == y.tolist()
    assert ("视图" if shared else "副本") in node.get_by_role("status").inner_text()


def test_indexing_presets_work_by_keyboard(show):
    node = figure(show(indexing()), "indexing")
    press(node.get_by_role("button", name=":, 2"), "Space")
    assert (shown(node)["expr"], shown(node)["shape"]) == (":, 2", "(4,)")


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


# —— 先猜 ——


def test_bet_answers_at_once_with_the_reason_of_the_chosen_option(show):
    node = figure(show(bet("ch99.bytes")), "bet")
    assert not node.locator("details").is_visible()
    press(node.get_by_role("button", name="48 MB"), "Enter")
    assert node.get_by_role("status").text_content() == "✗ 没押中。 那是复制一份。".replace(
        " 那", "那"
    )
    assert shown(node)["state"] == "wrong"
    node.get_by_role("button", name="0").click()
    assert "✓ 这个对。" in node.get_by_role("status").inner_text()
    assert shown(node)["state"] == "wrong"
    press(node.locator("summary"), "Enter")
    assert "一半也不用搬。" in node.locator("details").inner_text()


@pytest.mark.parametrize(
    ("typed", "state", "reply"),
    [
        ("（3，4）", "right", "右对齐再拉长。"),
        ("torch.Size([3, 4])", "right", "右对齐再拉长。"),
        ("(4,3)", "wrong", "两维的次序反了。"),
        ("7", "wrong", "还不对，从右往左一维一维对。"),
    ],
)
def test_typed_bet_compares_the_answer_and_gives_its_reason(show, typed, state, reply):
    node = figure(show(bet("ch99.shape")), "bet")
    node.get_by_role("textbox").focus()
    node.page.keyboard.insert_text(typed)
    node.page.keyboard.press("Enter")
    assert shown(node)["state"] == state
    assert reply in node.get_by_role("status").inner_text()


def test_bet_remembers_the_first_answer_until_asked_to_start_again(show):
    page = show(bet("ch99.bytes"), bet("ch99.bytes"))
    first = figure(page, "bet").first
    first.get_by_role("button", name="24 MB").click()
    page.reload()
    for i in range(2):
        node = figure(page, "bet").nth(i)
        assert node.locator('[aria-pressed="true"]').inner_text().startswith("24 MB")
        assert "一半也不用搬。" in node.get_by_role("status").inner_text()
    press(first.get_by_role("button", name="重来"), "Enter")
    assert shown(first)["state"] == "open"
    page.reload()
    assert shown(first)["state"] == "open"


def test_bet_works_where_the_browser_refuses_to_store_anything(show):
    page = show(bet("ch99.bytes"))
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw 1; }})")
    page.reload()
    figure(page, "bet").get_by_role("button", name="0", exact=True).click()
    assert shown(figure(page, "bet"))["state"] == "right"


def test_without_scripts_the_question_the_options_and_the_folded_answer_remain(show):
    page = show(bet("ch99.bytes"), broadcasting(), java_script_enabled=False)
    assert page.get_by_text("48 MB", exact=True).first.is_visible()
    assert not page.get_by_text("那是复制一份。").is_visible()
    page.locator("summary").click()
    assert page.get_by_text("那是复制一份。").is_visible()
    assert page.get_by_text("结果是 (3, 4)").is_visible()


def test_ten_bets_count_the_gain_between_the_first_and_the_last_time(show):
    page = show(quiz("ch99.two", when="before"), quiz("ch99.two", when="after"))
    before, after = figure(page, "quiz").nth(0), figure(page, "quiz").nth(1)
    before.get_by_role("button", name="48 MB").click()
    assert shown(before)["score"] == "已答 1 / 2"
    before.get_by_role("button", name="24 MB").click()
    before.get_by_role("textbox").fill("(3,4)")
    before.page.keyboard.press("Enter")
    assert shown(before)["score"] == "2 题都押好了，答案在章末。"
    assert not set("✓✗") & set(before.inner_text())
    page.reload()
    press(after.get_by_role("button", name="0", exact=True), "Enter")
    after.get_by_role("textbox").fill("(3, 4)")
    after.page.keyboard.press("Enter")
    assert shown(after)["score"] == "开头答对 1 / 2，现在答对 2 / 2"
    after.get_by_role("button", name="全部重来").click()
    assert shown(after)["score"] == "已答 0 / 2"
    assert shown(before)["score"] == "2 题都押好了，答案在章末。"


def test_quiz_says_how_many_were_not_answered_at_the_beginning(show):
    node = figure(show(quiz("ch99.two", when="after")), "quiz")
    node.get_by_role("button", name="48 MB").click()
    node.get_by_role("textbox").fill("(3, 4)")
    node.page.keyboard.press("Enter")
    assert shown(node)["score"] == "开头答对 0 / 2，现在答对 1 / 2（开头有 2 题没有作答）"


def test_plain_quiz_counts_right_answers(show):
    node = figure(show(quiz("ch99.two")), "quiz")
    node.get_by_role("button", name="0", exact=True).click()
    node.get_by_role("textbox").fill("9")
    node.page.keyboard.press("Enter")
    assert shown(node)["score"] == "答对 1 / 2"


# —— 每个组件都要过的关 ——


def everything():
    flat = (broadcasting(), strides(), indexing(), pipeline())
    figures = (*flat, convolution(PICTURES, OWN), neighbours(), microscope())
    return *figures, bet("ch99.bytes"), bet("ch99.shape"), quiz("ch99.two", when="after")


def answer_all(page: Page) -> None:
    for node in page.locator(".cw-option:first-child").all():
        node.click()
    for node in page.get_by_role("textbox", name="你的答案").all():
        node.fill("(3, 4)")
        node.press("Enter")
    page.get_by_role("button", name="(3, 4) + (3,)", exact=True).click()
    page.get_by_role("button", name=".expand(-1, 4)").click()
    for node in page.locator("summary:visible").all():
        node.click()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("answered", [False, True])
def test_axe_finds_nothing_to_object_to(show, theme, answered):
    page = show(*everything(), theme=theme)
    if answered:
        answer_all(page)
    page.add_style_tag(content="* { transition: none !important }")
    violations = Axe().run(page).response["violations"]
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in violations] == []


@pytest.mark.parametrize("answered", [False, True])
def test_nothing_is_wider_than_a_narrow_phone(show, answered):
    page = show(*everything(), viewport=NARROW)
    if answered:
        answer_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


@pytest.mark.parametrize(
    ("theme", "system", "dark"),
    [
        ("auto", "dark", True),
        ("auto", "light", False),
        ("light", "dark", False),
        ("dark", "light", True),
    ],
)
def test_theme_of_the_page_wins_over_the_theme_of_the_system(show, theme, system, dark):
    page = show(broadcasting(), theme=theme, color_scheme=system)
    color = figure(page, "broadcasting").evaluate("node => getComputedStyle(node).backgroundColor")
    assert (color == "rgb(26, 31, 37)") == dark


def test_scripts_loaded_in_any_order_and_twice_bind_each_widget_once(show):
    page = show(strides())
    scripts = page.locator("script").all_text_contents()
    page.goto("about:blank")
    page.set_content("<main><div data-widget='strides'><p class='cw-title'>步幅</p></div></main>")
    for script in [*reversed(scripts), *scripts]:
        page.evaluate(script)
    assert figure(page, "strides").get_by_role("button", name=".T").count() == 1
