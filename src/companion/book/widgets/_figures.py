"""可操作的图：广播、步幅、索引、斜率、账本、骗、碗。脚本没有运行时，显示一段说明和一个例子。"""

import json
from html import escape

import torch
from torch import Tensor

from companion.book.widgets._html import Widget, inline
from companion.errors import ArgumentError, ShapeError

MOST_POINTS = 200  # 再多，图上就糊成一片


def broadcasting() -> Widget:
    """一张图：改 a 和 b 的形状，看两者怎样右对齐、谁被拉长、结果的形状，或卡在哪一维。"""
    return _figure(
        "broadcasting",
        "广播：右对齐，是 1 的拉长",
        "例如 `(3, 1)` 加 `(4,)`：右对齐，缺的维补 1，是 1 的维拉长，结果是 `(3, 4)`。"
        "`(3, 4)` 加 `(3,)` 对不上：最后一维 4 和 3 不相等，也都不是 1。",
    )


def strides() -> Widget:
    """一张图：对 12 个数做转置、切片、展开，看形状、步幅和内存位置怎样变。"""
    return _figure(
        "strides",
        "步幅：同一块内存，换一张说明书",
        "`t = torch.arange(12).reshape(3, 4)` 的步幅是 `(4, 1)`；`t.T` 的形状是 `(4, 3)`、"
        "步幅是 `(1, 4)`，内存一个数也没动。第 (i, j) 个数在内存的第「起点 + i × 步幅[0] + "
        "j × 步幅[1]」格。",
    )


def indexing() -> Widget:
    """一张图：写一个下标，看选中哪些格、结果的形状，是视图还是副本。"""
    return _figure(
        "indexing",
        "索引：写下标，看选中了谁",
        "`t = torch.arange(24).reshape(4, 6)`。`t[::2, 1:4]` 选中第 0、2 行的第 1、2、3 列，形状 "
        "`(2, 3)`，是视图；`t[[0, 2]]`（方括号里一个列表）选中同样两行的全部列，是副本。",
    )


def secants() -> Widget:
    """一张图：挑一个函数、一个点和步子 h，看 float32 和 float64 量出的斜率各差多少。"""
    return _figure(
        "secants",
        "斜率：步子多小才准",
        "例如 `x³ − x` 在 1.3 处的斜率是 4.07。h 从 1 往小里缩，float32 的误差先降后升，到 1e-7 就"
        "不能信了；float64 也先降后升，谷底低得多，在 1e-5 附近。",
    )


def ledger() -> Widget:
    """一张图：几个小账本，往回一步一步走，看斜率怎样分、怎样加；两个开关能把它走错。"""
    return _figure(
        "ledger",
        "账本：往回走",
        "例如 `d = ab + a`，a 是 2，b 是 3：d 分给 c 和 a 各 1，c = ab 分给 a 3、分给 b 2，"
        "a 一共收到 4。",
    )


def deception(pictures: Tensor, labels: Tensor, templates: Tensor) -> Widget:
    """一张图：拿你的图和你的模板，每格动一点，看认作谁、有几成把握。

    Args:
        pictures: 形状 ``(n, 64)``，0 到 16。
        labels: 形状 ``(n,)`` 的整数，每张图写的是几。
        templates: 形状 ``(k, 64)``；答案是最近的那个。

    Raises:
        ShapeError: 三个的形状不是上面说的。
    """
    shapes = [tuple(t.shape) for t in (pictures, labels, templates)]
    n, k = len(labels) if labels.ndim else 0, len(templates) if templates.ndim else 0
    if shapes != [(n, 64), (n,), (k, 64)] or not n or not k:
        raise ShapeError(
            "deception 要 (n, 64) 的图、(n,) 的答案、(k, 64) 的模板，"
            f"实际是 {shapes[0]}、{shapes[1]}、{shapes[2]}。图和模板用 .flatten(1) 摊平。"
        )
    numbers = {
        "pictures": pictures.detach().int().tolist(),
        "answers": labels.tolist(),
        "templates": [[round(v, 2) for v in row] for row in templates.detach().tolist()],
    }
    return _figure(
        "deception",
        "骗：每格动一点",
        "例如每格照着梯度的正负号动 2（一共 16 级），多数图就会认错；同样大小，抛硬币决定加减，"
        "几乎不伤。",
        numbers=json.dumps(numbers, separators=(",", ":")),
    )


def bowl(x: Tensor, y: Tensor) -> Widget:
    """一张图：拿直线 ax + b 去凑你的点，平方误差是 (a, b) 上的一只碗；换学习率，看怎么走下去。

    Args:
        x: 形状 ``(n,)``，2 到 200 个数，不全相同。
        y: 形状 ``(n,)``。

    Raises:
        ShapeError: 不是一样长的两排数，或者点太少、太多。
        ArgumentError: 有 nan 或 inf，或者 x 全相同。
    """
    if x.shape != y.shape or x.ndim != 1 or not 2 <= len(x) <= MOST_POINTS:
        raise ShapeError(
            f"bowl 要两个 (n,) 的张量，n 是 2 到 {MOST_POINTS}，"
            f"实际是 {tuple(x.shape)}、{tuple(y.shape)}。多出来的维用 .flatten() 去掉。"
        )
    points = torch.stack([x, y], 1).detach().double().cpu()
    if not points.isfinite().all():
        raise ArgumentError("bowl 的点应都是有限的数，实际有 nan 或 inf；先去掉它们。")
    design = torch.stack([points[:, 0], torch.ones(len(x), dtype=torch.float64)], 1)
    hessian = 2 * design.T @ design / len(x)
    bends = torch.linalg.eigvalsh(hessian)
    if bends[0] <= 1e-12 * bends[1]:
        raise ArgumentError("bowl 的 x 应散开，不然斜率和截距分不开；实际几乎都一样，换一组点。")
    bottom = torch.linalg.lstsq(design, points[:, 1:]).solution.flatten()
    numbers = {
        "hessian": [_short(row, 10) for row in hessian.tolist()],  # 末几位各台机器不一定相同
        "bottom": _short(bottom.tolist(), 10),
        "least": _short([(design @ bottom - points[:, 1]).square().mean().item()], 10)[0],
        "points": [_short(point, 5) for point in points.tolist()],
    }
    return _figure(
        "bowl",
        "碗：学习率最大能开多大",
        f"这只碗最急的方向弯 {bends[1]:.4g}，学习率的上限是 2 除以它，{2 / bends[1]:.4g}："
        "小一点，一步步靠近谷底；大一点，越跳越远。",
        numbers=json.dumps(numbers, separators=(",", ":")),
    )


def _short(values: list[float], digits: int) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values]


def _figure(name: str, title: str, example: str, numbers: str = "") -> Widget:
    data = f' data-numbers="{escape(numbers)}"' if numbers else ""
    body = (
        f'<div class="cw cw-figure" data-widget="{name}" role="group"{data}'
        f' aria-label="可操作的图：{title}" data-lm-suppress-shortcuts="true">\n'
        f'<p class="cw-title">{title}</p>\n'
        f"<p>{inline(example)}</p>\n</div>"
    )
    return Widget(name, body, f"可操作的图 · {title}\n{example}")
