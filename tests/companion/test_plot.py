"""图：不弹警告、字号够大、文件够小，形状不对时说中文；没人看见、缺了字，都说一声。"""

import io
import os
import struct
import subprocess
import sys
from base64 import b64decode

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from companion import plot
from companion.errors import ShapeError
from companion.plot import bars, confusion, curves, heatmap, image_grid, use_chinese_font

FontBuilder = pytest.importorskip("fontTools.fontBuilder").FontBuilder
TTGlyphPen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")
FONT = "Companion Sans SC"
DIGITS = torch.arange(10 * 64).reshape(10, 8, 8) % 17

DRAWINGS = {
    "curves": lambda: curves({"训练": [1.0, 0.5], "验证": ([0, 2], [2.0, 1.0])}, "周期", "损失"),
    "log": lambda: curves({"损失": torch.tensor([1.0, 0.1, 0.01])}, "周期", "损失", log_y=True),
    "heatmap": lambda: heatmap(
        DIGITS[0], annotate=True, xlabel="列", ylabel="行", bar_label="灰度"
    ),
    "signed": lambda: heatmap(torch.tensor([[-1.0, 2.0]]), annotate=True),
    "grid": lambda: image_grid(DIGITS, titles=[f"真 {i}" for i in range(10)]),
    "colour": lambda: image_grid(torch.rand(3, 3, 8, 8), columns=2),
    "bars": lambda: bars(["循环", "广播"], [1200.0, 3.2], "毫秒", log=True),
    "confusion": lambda: confusion(torch.eye(10) * 30 + 1, range(10)),
}


@pytest.fixture(autouse=True)
def fresh_style(monkeypatch):
    monkeypatch.setattr(plot, "INSTALLED", ())  # 这台机器上装了什么字体，不影响测试
    monkeypatch.setattr(plot, "_told", set())
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
        pyplot.close("all")


def figure():
    (number,) = pyplot.get_fignums()
    return pyplot.figure(number)


@pytest.mark.parametrize("name", DRAWINGS)
def test_each_drawing_returns_none_and_leaves_one_small_picture(name):
    assert DRAWINGS[name]() is None
    buffer = io.BytesIO()
    figure().savefig(buffer, bbox_inches="tight")
    assert 1_000 < len(buffer.getvalue()) < 40_000


@pytest.mark.parametrize("name", DRAWINGS)
def test_each_drawing_is_written_in_the_shipped_font_at_readable_size(name):
    DRAWINGS[name]()
    figure().canvas.draw()
    texts = [t for t in figure().findobj(matplotlib.text.Text) if t.get_text()]
    assert all(text.get_fontfamily() == [FONT, "DejaVu Sans"] for text in texts)
    assert all(text.get_fontsize() >= 11 for text in texts)
    assert figure().get_size_inches()[0] <= 6
    assert figure().get_facecolor() == (1, 1, 1, 1)


def test_chinese_font_is_a_list_so_that_other_glyphs_fall_back_one_by_one():
    use_chinese_font()
    use_chinese_font()
    assert matplotlib.rcParams["font.family"] == [FONT, "DejaVu Sans"]
    fonts = matplotlib.font_manager.fontManager.ttflist
    assert sum(font.name == FONT for font in fonts) == 1


def test_palette_stays_apart_for_colour_blind_readers():
    use_chinese_font()
    colors = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    rgb = np.array([matplotlib.colors.to_rgb(color) for color in colors])
    protan = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
    deutan = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    for seen in (rgb @ protan.T, rgb @ deutan.T):
        gaps = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        assert gaps[np.triu_indices(len(colors), 1)].min() > 0.12


def test_curves_draws_what_it_was_given():
    curves({"y": torch.tensor([3.0, 1.0], requires_grad=True), "xy": ([5, 6], [7, 8])}, "x", "y")
    lines = [line.get_xydata().tolist() for line in figure().axes[0].lines]
    assert lines == [[[0, 3], [1, 1]], [[5, 7], [6, 8]]]


def test_named_series_can_be_drawn_as_dots():
    curves({"数据": [1, 2], "直线": [1, 2]}, "x", "y", dots=["数据"])
    assert [(line.get_marker(), line.get_linestyle()) for line in figure().axes[0].lines] == [
        ("o", "None"),
        ("None", "--"),
    ]


def test_steps_are_marked_with_whole_numbers():
    curves({"损失": list(range(20))}, "周期", "损失")
    ticks = figure().axes[0].get_xticks()
    assert ticks.tolist() == ticks.round().tolist()


def test_heatmap_puts_white_at_zero_when_there_are_negative_numbers():
    heatmap(torch.tensor([[-1.0, 3.0]]))
    assert figure().axes[0].images[0].get_clim() == (-3, 3)


def test_confusion_writes_counts_and_leaves_zero_cells_blank():
    confusion(torch.tensor([[3, 0], [1, 2]]), ["猫", "狗"])
    assert [text.get_text() for text in figure().axes[0].texts] == ["3", "", "1", "2"]


def test_confusion_colours_each_cell_by_its_share_of_the_row():
    confusion(torch.tensor([[3, 0], [1, 2]]), ["猫", "狗"])
    shares = figure().axes[0].images[0].get_array()
    assert shares.tolist() == [[1, 0], [1 / 3, 2 / 3]]  # 按列就是 [[3/4, 0], [1/4, 1]]


def test_bars_run_from_top_to_bottom_with_their_numbers():
    bars(["慢", "快"], [12.34567, 1.0], "毫秒")
    axes = figure().axes[0]
    assert [text.get_text() for text in axes.texts] == ["12.35 毫秒", "1 毫秒"]
    assert axes.yaxis_inverted()


def test_image_grid_takes_the_three_usual_shapes():
    for images in (torch.rand(4, 8, 8), torch.rand(4, 1, 8, 8), torch.rand(4, 3, 8, 8)):
        image_grid(images, columns=3)
        drawn = [axes for axes in figure().axes if axes.images]
        assert len(drawn) == 4
        pyplot.close("all")


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: curves({}, "x", "y"), "至少要有一条曲线"),
        (lambda: curves({"损失": torch.ones(2, 2)}, "x", "y"), r"损失 的 y 应是 1 维.*\(2, 2\)"),
        (lambda: curves({"a": ([1], [1, 2])}, "x", "y"), "一样长，实际是 1 和 2"),
        (lambda: heatmap(torch.ones(3)), r"matrix 应是 2 维.*\(3,\)"),
        (lambda: heatmap(torch.ones(0, 3)), r"非空的数，实际形状是 \(0, 3\)"),
        (lambda: image_grid(torch.ones(8, 8)), r"images 的形状应为.*实际是 \(8, 8\)；一张图请先"),
        (lambda: image_grid(torch.ones(2, 2, 8, 8)), r"实际是 \(2, 2, 8, 8\)"),
        (lambda: image_grid(torch.ones(0, 8, 8)), "实际是 0 张"),
        (lambda: image_grid(torch.ones(2, 8, 8), titles=["一"]), "titles 应有 2 个.*实际是 1 个"),
        (lambda: bars(["a"], [1, 2]), "values 应有 1 个.*实际是 2 个"),
        (lambda: confusion(torch.ones(2, 3), range(2)), r"应为 \(2, 2\)，实际是 \(2, 3\)"),
    ],
)
def test_wrong_shape_is_refused_in_chinese_before_anything_is_drawn(draw, message):
    with pytest.raises(ShapeError, match=message):
        draw()
    assert pyplot.get_fignums() == []


# —— 字体里没有的字


@pytest.fixture
def small_font(tmp_path):
    """一种只有「龘」的中文字体，像是系统里装着的。"""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "dragons"])
    builder.setupCharacterMap({ord("龘"): "dragons"})
    pen = TTGlyphPen(None)
    for i, point in enumerate([(0, 0), (0, 900), (900, 900)]):
        pen.lineTo(point) if i else pen.moveTo(point)
    pen.closePath()
    builder.setupGlyf({".notdef": pen.glyph(), "dragons": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "dragons": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900)
    builder.setupNameTable({"familyName": "SimHei", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "small.ttf")
    manager = matplotlib.font_manager.fontManager
    before = list(manager.ttflist)
    manager.addfont(tmp_path / "small.ttf")
    yield
    manager.ttflist[:] = before


def save_all():
    for number in pyplot.get_fignums():
        pyplot.figure(number).savefig(io.BytesIO(), bbox_inches="tight")


def test_characters_without_a_glyph_are_named_once_in_one_chinese_line(capsys):
    curves({"龘𠮷": [1, 2], "深圳": [2, 1]}, "靐", "损失")
    save_all()
    (line,) = capsys.readouterr().err.splitlines()
    assert "画成了方框：靐 龘 𠮷。请换个写法" in line
    save_all()
    heatmap(DIGITS[0], xlabel="龘齉")
    save_all()
    (line,) = capsys.readouterr().err.splitlines()
    assert "：齉。" in line


def test_a_figure_of_the_users_own_is_told_of_too(capsys):
    use_chinese_font()
    pyplot.title("龘")
    save_all()
    assert "：龘。" in capsys.readouterr().err


def test_an_installed_chinese_font_supplies_what_ours_lacks(small_font, monkeypatch, capsys):
    monkeypatch.setattr(plot, "INSTALLED", ("Not Here", "SimHei", "DejaVu Serif"))
    curves({"龘": [1, 2], "深圳": [2, 1]}, "轮", "损失")
    assert matplotlib.rcParams["font.family"] == [FONT, "DejaVu Sans", "SimHei"]
    save_all()
    assert capsys.readouterr().err == ""


def test_a_figure_in_another_font_is_left_to_matplotlib(capsys):
    use_chinese_font()
    pyplot.title("深", fontfamily="DejaVu Sans")
    with pytest.warns(UserWarning, match="Glyph 28145 .* missing from font"):
        save_all()
    assert capsys.readouterr().err == ""


# —— 没有人看见的图


@pytest.fixture
def at_exit(monkeypatch):
    """在脚本里：返回的函数就是退出。"""
    registered = []
    monkeypatch.setattr(plot.atexit, "register", registered.append)
    plot._remind.cache_clear()
    plot._unseen.clear()
    for name in ("pytest", "sphinx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda: [remind() for remind in registered]
    plot._remind.cache_clear()


def test_figures_that_nobody_has_seen_are_told_of_once_at_exit(at_exit, capsys):
    for draw in DRAWINGS.values():
        draw()
    assert capsys.readouterr() == ("", "")
    at_exit()
    out, err = capsys.readouterr()
    assert out == ""
    assert err == '图画好了，还没有存：这里开不了窗口（后端是 Agg），请写 plt.savefig("图.png")。\n'


def test_a_backend_with_windows_is_told_to_show(at_exit, capsys, monkeypatch):
    DRAWINGS["curves"]()
    monkeypatch.setattr(pyplot, "get_backend", lambda: "qtagg")
    at_exit()
    assert "还没有显示：请在最后写 plt.show()" in capsys.readouterr().err


@pytest.mark.parametrize(
    "look", [save_all, lambda: figure().canvas.draw(), lambda: pyplot.close("all")]
)
def test_a_figure_saved_shown_or_closed_is_not_told_of(look, at_exit, capsys):
    DRAWINGS["curves"]()
    look()
    at_exit()
    assert capsys.readouterr() == ("", "")


def test_whoever_types_line_by_line_is_told_at_once_and_once(at_exit, capsys, monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    DRAWINGS["curves"]()
    assert capsys.readouterr().err.count("图画好了") == 1
    DRAWINGS["bars"]()
    at_exit()
    assert capsys.readouterr().err == ""


def test_where_figures_show_themselves_nothing_is_said(at_exit, capsys):
    matplotlib.interactive(True)  # 笔记本的后端都会打开它
    DRAWINGS["curves"]()
    at_exit()
    assert capsys.readouterr() == ("", "")


def test_under_pytest_nothing_is_said(at_exit, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", pytest)
    DRAWINGS["curves"]()
    at_exit()
    assert capsys.readouterr() == ("", "")


def test_a_script_says_it_as_its_last_line(tmp_path):
    code = "from companion.plot import curves; curves({'a': [1]}, 'x', 'y'); print('完')"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
    env["MPLBACKEND"] = "agg"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "完\n"
    assert done.stderr.startswith("图画好了") and done.stderr.count("\n") == 1


def test_in_a_notebook_figures_have_twice_the_pixels_and_the_same_size():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        DRAWINGS["curves"]()
        draw = shell.display_formatter.formatters["image/png"].lookup_by_type(Figure)
        png, shown = draw(pyplot.gcf())
        pixels = struct.unpack(">II", b64decode(png)[16:24])
        assert [n // 2 for n in pixels] == [shown["width"], shown["height"]]
        assert 400 < shown["width"] < 600
    finally:
        InteractiveShell.clear_instance()
