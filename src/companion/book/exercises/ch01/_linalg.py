"""第 1 章☆线性代数几节的检查器：外积、秩、特征值。"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from companion.book.exercises._common import (
    Wrong,
    first_difference,
    require_numbers,
    require_tensor,
)

Answer = Callable[..., Any]


def outer_terms(answer: Any) -> str | None:
    if not isinstance(answer, (list, tuple)) or len(answer) != 3:
        return "要三个 2×2 的矩阵：k=0 的一项、k=1 的一项、两项的和。"
    names = ("k=0 的一项", "k=1 的一项", "两项的和")
    given = [_matrix(name, item) for name, item in zip(names, answer, strict=True)]
    a, b = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[4.0, 1.0], [5.0, -1.0]])
    terms = _outer(a, b)
    truth = [*terms, a @ b]
    known = {
        "两项放反了：先写 k=0 的，A 的第 0 列乘 B 的第 0 行。": [*terms[::-1], a @ b],
        "你拿的是 A 的一行和 B 的一列：外积是 A 的一列乘 B 的一行。": _outer(a.T, b.T),
        "每一项都转置了：A 的列竖着放，管行；B 的行横着放，管列。": [t.T for t in terms],
        "你乘的是两个矩阵的列：右边要 B 的一行。": _outer(a, b.T),
        "你乘的是两个矩阵的行：左边要 A 的一列。": _outer(a.T, b),
    }
    for text, mistake in known.items():
        if _same(given, mistake):
            return text
    for name, item, expected in zip(names, given, truth, strict=True):
        if not _same([item], [expected]):
            wrong = list(first_difference(item, expected))
            how = (
                "两项逐格相加"
                if name == names[2]
                else "这一格是 A 那一列的一个数乘 B 那一行的一个数"
            )
            return f"{name}的 {wrong} 格不对：{how}。"
    return None


def _outer(a: Tensor, b: Tensor) -> list[Tensor]:
    """``a`` 的各列乘 ``b`` 的各行。"""
    return [a[:, k, None] * b[k] for k in range(2)]


def _matrix(name: str, item: Any) -> Tensor:
    """读者写的 2×2 矩阵；不是就判错。"""
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        matrix = torch.as_tensor(item, dtype=torch.float32)
        if matrix.shape == (2, 2):
            return matrix
    raise Wrong(f"{name}应是 2×2 的矩阵，写成 [[1, 2], [3, 4]] 的样子。")


def _same(given: list[Tensor], truth: list[Tensor]) -> bool:
    """从头数起的几个矩阵都相等。"""
    return all(torch.equal(one, two) for one, two in zip(given, truth, strict=False))


def keep_directions(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for n, d, r in ((6, 5, 2), (5, 5, 1), (4, 7, 2)):
        turn = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
        x = torch.randn(n, d, generator=generator) * 8 / 2.0 ** torch.arange(d) @ turn
        x = x + torch.arange(d)  # 平均不是 0
        result = answer(x, r)
        if isinstance(result, Tensor) and result.shape == (n, r) != (n, d):
            return f"这是每行的 {r} 个坐标，还没有回到 {d} 个数：再乘一次方向，加回平均。"
        require_tensor(result, (n, d), torch.float32)
        centre = x.mean(0)
        if torch.allclose(result, centre + _project(x - centre, r), atol=1e-3):
            continue
        return _wrong_directions(result, x, r)
    return None


def _wrong_directions(result: Tensor, x: Tensor, r: int) -> str:
    """算错的样子认得出来的，各有一句；认不出的，说哪一格差了多少。"""
    centre, own = x.mean(0), x.mean(1, keepdim=True)
    flat = x - centre
    u, _, vh = torch.linalg.svd(flat, full_matrices=False)
    known = {
        "结果就是 x，一个方向也没有扔掉。": x,
        "平均没有加回来。": _project(flat, r),
        "方向是从没减平均的 x 里找的：先减，再分解。": _project(x, r),
        "留的是最不要紧的几个方向：奇异值从大到小排，要前面的。": centre
        + flat @ vh[-r:].T @ vh[-r:],
        "方向对了，投影的却是没减平均的 x。": x @ vh[:r].T @ vh[:r],
        "减掉的平均又多加了一份：投影的是减过平均的。": centre + x @ vh[:r].T @ vh[:r],
        "减的是每一行自己的平均，该减的是各行的平均（一行 d 个数）。": own + _project(x - own, r),
        "奇异值没有乘进去，每个方向都成了一样长。": centre + u[:, :r] @ vh[:r],
        "这些是扔掉的方向，留下来的正好不在里面。": centre + flat - _project(flat, r),
    }
    if vh.shape[0] == vh.shape[1]:  # 方阵才分不出行和列
        wrong_way = vh[:, :r] @ vh[:, :r].T
        known["方向是 Vh 的行，你取的是列。"] = centre + flat @ wrong_way
    for text, mistake in known.items():
        if torch.allclose(result, mistake, atol=1e-3):
            return text
    truth = centre + _project(flat, r)
    i, j = divmod(int((result - truth).abs().argmax()), x.shape[1])
    got = f"第 {i} 行第 {j} 列得到 {result[i, j]:.3g}，应是 {truth[i, j]:.3g}"
    return f"{tuple(x.shape)} 的 x 留 {r} 个方向时，{got}。"


def _project(x: Tensor, r: int) -> Tensor:
    """``x`` 的各行只留前 `r` 个奇异方向。"""
    axes: Tensor = torch.linalg.svd(x.double(), full_matrices=False).Vh[:r]
    return (x.double() @ axes.T @ axes).float()


def rate_limit(answer: Any) -> str | None:
    values = require_numbers(answer, "五", "两个特征值、学习率的上限、两份误差各乘几")
    return _wrong_eigen(values[:2]) or _wrong_limit(values[2]) or _wrong_factors(values[3:])


def _wrong_eigen(eigen: tuple[float, ...]) -> str | None:
    if _near(eigen, (1, 6)):
        return "两个特征值放反了：先写 (2, 1) 的。"
    if eigen[0] == 12:
        return "12 是 Av 的一个坐标。特征值是 Av 等于 v 的几倍。"
    if not _near(eigen, (6, 1)):
        return "特征值不对：拿矩阵乘一下 (2, 1)，看结果是它的几倍；(1, -2) 也一样。"
    return None


def _wrong_limit(limit: float) -> str | None:
    known = {
        2.0: "你用了小的那个特征值：大的那一份会越跳越远。",
        1 / 6: "1/λ 是让那一份一步归零的学习率，上限还要大一倍。",
        2 / 7: "那是收敛最快的学习率，还没到上限。",
    }
    for mistake, text in known.items():
        if _near((limit,), (mistake,)):
            return text
    if not _near((limit,), (1 / 3,)):
        return "特征值对了，上限不对：|1 - ηλ| 要小于 1，先问大的那个 λ。"
    return None


def _wrong_factors(factors: tuple[float, ...]) -> str | None:
    if _near(factors, (0.2, 0.8)):
        return "1 - ηλ 是带符号的：有一份会跳到解的另一边。"
    if _near(factors, (0.8, -0.2)):
        return "最后两个放反了：先写 (2, 1) 那一份。"
    return None if _near(factors, (-0.2, 0.8)) else "最后两个数不对：η=0.2 时，1 - ηλ 是几？"


def _near(values: tuple[float, ...], truth: tuple[float, ...]) -> bool:
    """逐个相差不到 0.005：三分之一写成 0.33 也算。"""
    return all(abs(v - t) < 0.005 for v, t in zip(values, truth, strict=True))
