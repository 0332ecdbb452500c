"""在真正的浏览器里用键盘操作组件：页面上的数与 torch 算的一样，选过的记得住，无障碍零违规。

页面是测试自己写的一个 HTML 文件，不需要先建站，也不联网。
"""

import json
import os
from pathlib import Path

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from companion.book import (
    bet,
    bowl,
    broadcasting,
    deception,
    indexing,
    ledger,
    quiz,
    secants,
    strides,
)

from .conftest import figure, press, shown

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="没有 chromium，开不了浏览器")
NARROW = {"width": 320, "height": 640}


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
    pictures = deception(torch.full((2, 64), 8.0), torch.tensor([3, 5]), torch.eye(10, 64))
    line = bowl(torch.linspace(0, 1, 5), torch.arange(5.0))
    figures = (broadcasting(), strides(), indexing(), secants(), ledger(), pictures, line)
    return *figures, bet("ch99.bytes"), bet("ch99.shape"), quiz("ch99.two", when="after")


def answer_all(page: Page) -> None:
    for node in page.locator(".cw-option:first-child").all():
        node.click()
    for node in page.get_by_role("textbox", name="你的答案").all():
        node.fill("(3, 4)")
        node.press("Enter")
    page.get_by_role("button", name="(3, 4) + (3,)", exact=True).click()
    page.get_by_role("button", name=".expand(-1, 4)").click()
    page.get_by_role("button", name="走到底").click()
    page.get_by_role("button", name="走十步").click()
    page.get_by_label("每格最多动多少").fill("3")
    page.get_by_label("学习率，是上限的几倍").fill("1.2")
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
