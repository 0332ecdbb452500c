"""本书的图：中文字体和几种固定画法；全库只有这里引入 matplotlib。

每个函数画一张图，返回 None：笔记本会在单元末尾自动显示它；脚本里请在最后写 ``plt.show()``，或者
``plt.savefig("图.png")``。图是白底，放在暗色页面上也读得清；颜色取自 Okabe–Ito 色表，色觉异常的人也
分得开。字号照手机屏幕定，图里的字不小于 11 磅。
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from companion._common import say
from companion.errors import ShapeError, check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "bars",
    "confusion",
    "curves",
    "heatmap",
    "history",
    "image_grid",
    "use_chinese_font",
]

Numbers = Tensor | NDArray[Any] | Sequence[float]
Array = NDArray[Any]

FONT = Path(__file__).parent / "book" / "_fonts" / "CompanionSansSC.otf"
FAMILY = "Companion Sans SC"
STYLE = FONT.with_name("book.mplstyle")
INSTALLED = (  # 系统里可能有的：Windows，macOS，Linux（各家打包的名字不一）
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Heiti SC", "Heiti TC", "Hiragino Sans GB"),
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
)
WINDOWLESS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}  # 开不了窗口的后端
LINES = ["-", "--", "-.", ":"]
WORDS = {"train": "训练", "valid": "验证", "loss": "损失", "accuracy": "准确率"}


def use_chinese_font() -> None:
    """之后画的图都能显示中文，字号、配色和白底也统一成本书的样子。

    字体随包带着，不用安装，也不联网。它没有的字，逐个去 DejaVu Sans 和系统里的中文字体中找；哪里都
    没有的，画图时说出是哪些字。
    """
    from matplotlib import font_manager, rcParams, style

    known = font_manager.fontManager.get_font_names()
    if FAMILY not in known:
        font_manager.fontManager.addfont(FONT)
    style.use(STYLE)
    rcParams["font.family"] += [name for name in INSTALLED if name in known][:1]
    _tell_of_boxes()
    _sharpen()


def _sharpen() -> None:
    """笔记本里的图按两倍的像素画，占的地方不变：手机和高分屏上才不糊。"""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        with suppress(ImportError):
            import_module("matplotlib_inline.backend_inline").set_matplotlib_formats("retina")


def curves(
    series: Mapping[str, Numbers | tuple[Numbers, Numbers]],
    xlabel: str,
    ylabel: str,
    *,
    log_y: bool = False,
    dots: Collection[str] = (),
) -> None:
    """画几条曲线，返回 None。

    Args:
        series: 图例名到数据；数据是 ``y``，形状 ``(N,)``，横轴从 0 数起；或一对 ``(x, y)``。
        xlabel: 横轴的名字，带单位。
        ylabel: 纵轴的名字，带单位。
        log_y: 纵轴是否取对数。
        dots: 哪些图例名只画点、不连线。

    Raises:
        ShapeError: 没有曲线、某条不是一维，或 x 与 y 不一样长。
    """
    if not series:
        raise ShapeError("至少要有一条曲线，实际是空的；请传入 {'名字': 数据}。")
    lines = {name: _line(name, data) for name, data in series.items()}
    ax = _subplots(1, 1)[0]
    for i, (name, (x, y)) in enumerate(lines.items()):
        ax.plot(x, y, "o" if name in dots else LINES[i % len(LINES)], label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log_y else "linear")
    if all(np.issubdtype(x.dtype, np.integer) for x, _ in lines.values()):
        ax.locator_params(axis="x", integer=True)
    ax.grid()
    if len(series) > 1:
        ax.legend()


def heatmap(
    matrix: Numbers,
    *,
    xlabel: str = "",
    ylabel: str = "",
    annotate: bool = False,
    bar_label: str = "",
) -> None:
    """把矩阵画成色块，返回 None。有负数时 0 是白色，正负各用一种颜色。

    Args:
        matrix: 形状 ``(H, W)`` 的数，任意 dtype。
        xlabel: 列的名字。
        ylabel: 行的名字。
        annotate: 是否在每格里写出数值（最多 4 位有效数字）。
        bar_label: 色条的名字，带单位；不给就不画色条。

    Raises:
        ShapeError: 不是二维，或一个数也没有。
    """
    grid = _array(matrix, "matrix", 2).astype(float)
    ax = _subplots(1, 1)[0]
    limit = np.abs(grid).max()
    signed = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    image = ax.imshow(grid, **signed if grid.min() < 0 else {"cmap": "Blues"})
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _ticks(ax, range(grid.shape[1]), range(grid.shape[0]))
    if annotate:
        _write_cells(ax, [[f"{v:.4g}" for v in row] for row in grid], image.to_rgba(grid))
    if bar_label:
        ax.figure.colorbar(image, ax=ax, label=bar_label)


def image_grid(
    images: Numbers, *, titles: Sequence[object] | None = None, columns: int = 5
) -> None:
    """把一批图像排成网格，返回 None。灰度图画成白底黑字：数值大的地方深。

    Args:
        images: 形状 ``(N, H, W)``、``(N, 1, H, W)`` 或 ``(N, 3, H, W)``；彩色图取值 0–1 或 uint8。
        titles: 每张图上方的字，N 个；可以不给。
        columns: 每行几张。

    Raises:
        ShapeError: 图像形状不对，一张也没有，或 titles 的个数不是 N。
    """
    batch = _image_batch(images)
    names = [""] * len(batch) if titles is None else [str(title) for title in titles]
    if len(names) != len(batch):
        raise ShapeError(f"titles 应有 {len(batch)} 个，一图一个；实际是 {len(names)} 个，请补齐。")
    columns = min(columns, len(batch))
    rows = ceil(len(batch) / columns)
    width = min(6.0, 1.3 * columns)
    height = rows * (width / columns + (0.3 if any(names) else 0.0))
    axes = _subplots(rows, columns, (width, height))
    for ax in axes:
        ax.axis("off")
    for ax, image, name in zip(axes, batch, names, strict=False):
        ax.imshow(image, cmap="gray_r")
        ax.set_title(name)


def history(records: Iterable[Mapping[str, Any]], *names: str) -> None:
    """画逐轮的曲线，返回 None。

    Args:
        records: ``fit`` 返回的 ``History``，或一轮一个字典的列表；横轴是其中的 ``epoch``，没有就
            从 1 数。
        names: 画哪几列；不给就画全部叫 ``…loss`` 的列。没有记、不是数的那几轮，跳过。

    Raises:
        ArgumentError: 没有这一列。
        ShapeError: 一列可画的数也没有。
    """
    rows = list(records)
    known = list(dict.fromkeys(name for row in rows for name in row))
    chosen = names or tuple(name for name in known if name.endswith("loss"))
    for name in chosen:
        check_choice("列名", name, known)
    series = {_chinese(name): _column(rows, name) for name in chosen}
    units = {_chinese(name.removeprefix("train_").removeprefix("valid_")) for name in chosen}
    curves(series, "轮次", units.pop() if len(units) == 1 else "取值")


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    points = [
        (row.get("epoch", i), row[name])
        for i, row in enumerate(rows, 1)
        if isinstance(row.get(name), int | float)
    ]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _chinese(name: str) -> str:
    """``"train_loss"`` → ``"训练损失"``；有一个词不认得，就原样返回。"""
    words = name.split("_")
    return "".join(WORDS[w] for w in words) if all(w in WORDS for w in words) else name


def bars(labels: Sequence[str], values: Numbers, unit: str = "", *, log: bool = False) -> None:
    """画横条图，每条末端写出数值和单位，返回 None。

    Args:
        labels: 每条的名字，N 个，从上往下排。
        values: 形状 ``(N,)`` 的数，不小于 0。
        unit: 单位，写在数值后面，也作横轴的名字。
        log: 横轴是否取对数；差几个数量级时用。

    Raises:
        ShapeError: labels 与 values 的个数不同，或是空的。
    """
    heights = _array(values, "values", 1)
    if len(labels) != len(heights):
        raise ShapeError(
            f"values 应有 {len(labels)} 个，一名一数；实际是 {len(heights)} 个，请对齐。"
        )
    ax = _subplots(1, 1, (5.4, 0.9 + 0.5 * len(labels)))[0]
    drawn = ax.barh(list(labels), heights, color="C0", height=0.6, log=log)
    ax.bar_label(drawn, [f"{v:.4g} {unit}".rstrip() for v in heights], padding=4)
    ax.invert_yaxis()
    ax.margins(x=0.25)
    ax.set_xlabel(unit)


def confusion(matrix: Numbers, labels: Sequence[object]) -> None:
    """画混淆矩阵：行是真实类别，列是预测类别，返回 None。颜色按行内比例，格里写个数。

    Args:
        matrix: 形状 ``(C, C)`` 的个数，第 i 行第 j 列是「真的是 i、判成 j」。
        labels: C 个类别名。

    Raises:
        ShapeError: 矩阵不是方的，或与 labels 的个数不符。
    """
    counts = _array(matrix, "matrix", 2)
    expected = (len(labels), len(labels))
    if counts.shape != expected:
        raise ShapeError(f"matrix 应为 {expected}，实际是 {counts.shape}；labels 要一类一个。")
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax = _subplots(1, 1, (5.4, 5.0))[0]
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ax.set(xlabel="预测类别", ylabel="真实类别")
    _ticks(ax, labels, labels)
    texts = [[f"{int(n)}" if n else "" for n in row] for row in counts]
    _write_cells(ax, texts, image.to_rgba(share))


def _subplots(rows: int, columns: int, size: tuple[float, float] | None = None) -> list[Axes]:
    """新开一张图，按行给出全部坐标系；没设过中文字体就先设好。"""
    import matplotlib
    from matplotlib import pyplot

    if FAMILY not in matplotlib.rcParams["font.family"]:
        use_chinese_font()
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
    if not (matplotlib.is_interactive() or {"pytest", "sphinx"} & sys.modules.keys()):
        _remind_to_look(figure)
    return list(axes.flat)


_unseen: WeakSet[Figure] = WeakSet()  # 画好了，还没有显示，也没有存


def _remind_to_look(figure: Figure) -> None:
    """脚本里的图不会自己出来：要是到退出时还没有人看，就说一句；一行行敲的，当场就说。"""
    _unseen.add(figure)
    figure.canvas.mpl_connect("draw_event", lambda event: _unseen.discard(event.canvas.figure))
    if hasattr(sys, "ps1"):
        _remind()
    atexit.register(_remind)


@cache
def _remind() -> None:
    from matplotlib import pyplot

    if not any(pyplot.fignum_exists(getattr(figure, "number", 0)) for figure in _unseen):
        return
    backend, save = pyplot.get_backend(), 'plt.savefig("图.png")'
    if backend.lower() in WINDOWLESS:
        say(f"图画好了，还没有存：这里开不了窗口（后端是 {backend}），请写 {save}。", sys.stderr)
    else:
        say(f"图画好了，还没有显示：请在最后写 plt.show()，或者 {save}。", sys.stderr)


@cache
def _tell_of_boxes() -> None:
    """字体里没有的字，matplotlib 逐个用英文警告；换成一行中文。它没有公开的办法，改名了就照旧。"""
    helpers: Any = import_module("matplotlib._text_helpers")
    warn = getattr(helpers, "warn_on_missing_glyph", None)

    def tell(code: int, fonts: str) -> None:
        if FAMILY in fonts:
            _tell_missing(chr(code))
        elif warn is not None:
            warn(code, fonts)

    helpers.warn_on_missing_glyph = tell


_told: set[str] = set()


def _tell_missing(char: str) -> None:
    """这个字，连同开着的各张图里别的没有的字，一行说完；说过的不再说。"""
    from matplotlib import _pylab_helpers, font_manager, rcParams, text

    if char in _told:
        return
    paths = [font_manager.findfont(name) for name in rcParams["font.family"]]
    known = set().union(*(font_manager.get_font(path).get_charmap() for path in paths))
    figures = [manager.canvas.figure for manager in _pylab_helpers.Gcf.get_all_fig_managers()]
    written = {c for f in figures for t in f.findobj(text.Text) for c in t.get_text()}
    missing = {char} | {c for c in written if c.isprintable() and ord(c) not in known} - _told
    _told.update(missing)
    say(
        f"图里的这些字，字体里没有，画成了方框：{' '.join(sorted(missing))}。请换个写法，"
        "或装一种中文字体（Windows 和 macOS 自带，Linux 装 Noto Sans CJK 或文泉驿），"
        "再删掉 matplotlib.get_cachedir() 里的字体缓存。",
        sys.stderr,
    )


def _numpy(values: Numbers) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _array(values: Numbers, name: str, ndim: int) -> Array:
    array = _numpy(values)
    if array.ndim != ndim or array.size == 0:
        raise ShapeError(f"{name} 应是 {ndim} 维、非空的数，实际形状是 {array.shape}；请先整理。")
    return array


def _line(name: str, data: Numbers | tuple[Numbers, Numbers]) -> tuple[Array, Array]:
    """一条曲线的 x 和 y；只给了 y 时，x 从 0 数起。"""
    x, y = data if isinstance(data, tuple) else (np.arange(len(data)), data)
    x, y = _array(x, f"{name} 的 x", 1), _array(y, f"{name} 的 y", 1)
    if len(x) != len(y):
        raise ShapeError(f"{name} 的 x 与 y 应一样长，实际是 {len(x)} 和 {len(y)}；请对齐后再画。")
    return x, y


def _image_batch(images: Numbers) -> Array:
    """整理成 `(N, H, W)` 或 `(N, H, W, 3)`，即 imshow 认识的样子。"""
    array = _numpy(images)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        array = array[:, 0] if array.shape[1] == 1 else array.transpose(0, 2, 3, 1)
    elif array.ndim != 3:
        expected = "(N, H, W)、(N, 1, H, W) 或 (N, 3, H, W)"
        raise ShapeError(f"images 的形状应为 {expected}，实际是 {array.shape}；一张图请先 [None]。")
    if len(array) == 0:
        raise ShapeError("images 里至少要有一张图，实际是 0 张；请检查筛选条件。")
    return array


def _ticks(ax: Axes, columns: Sequence[object], rows: Sequence[object]) -> None:
    ax.set_xticks(range(len(columns)), [str(c) for c in columns])
    ax.set_yticks(range(len(rows)), [str(r) for r in rows])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _write_cells(ax: Axes, texts: list[list[str]], rgba: Array) -> None:
    """在每格中央写字：底色深就用白字，底色浅就用黑字。"""
    luminance = rgba[..., :3] @ np.array([0.299, 0.587, 0.114])
    for (i, j), light in np.ndenumerate(luminance):
        ax.text(
            j, i, texts[i][j], ha="center", va="center", color="black" if light > 0.5 else "white"
        )
