"""三张可操作的图：广播、步幅、索引。脚本没有运行时，显示一段说明和一个例子。"""

from companion.book.widgets._html import Widget, inline


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


def _figure(name: str, title: str, example: str) -> Widget:
    body = (
        f'<div class="cw cw-figure" data-widget="{name}" role="group"'
        f' aria-label="可操作的图：{title}" data-lm-suppress-shortcuts="true">\n'
        f'<p class="cw-title">{title}</p>\n'
        f"<p>{inline(example)}</p>\n</div>"
    )
    return Widget(name, body, f"可操作的图 · {title}\n{example}")
