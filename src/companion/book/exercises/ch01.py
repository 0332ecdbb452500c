"""第 1 章《张量》的检查器。每个都用几组不同的输入试，只试一组会放过碰巧对的答案。"""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from companion.book.exercises._common import largest_ndim, require_tensor, same_storage

Answer = Callable[..., Any]


def read_shape(answer: Any) -> str | None:
    if not isinstance(answer, (tuple, torch.Size)):
        return f"要一个元组，你给的是 {type(answer).__name__}。"
    if len(answer) != 3:
        return f"你写了 {len(answer)} 维。开头连着几个方括号？"
    if tuple(answer) != (2, 3, 1):
        return "维数对了，长度不对：从最外层开始，一层一层数并排的个数。"
    return None


def dice(answer: Answer) -> str | None:
    rolls = answer(3000)
    require_tensor(rolls, (3000,))
    if rolls.is_floating_point():
        return f"点数应是整数，你给的 dtype 是 {rolls.dtype}。"
    if rolls.min() < 1 or rolls.max() > 6:
        return f"掷出了 {rolls.min()} 到 {rolls.max()}，骰子没有这样的点数。"
    if len(missing := sorted(set(range(1, 7)) - set(rolls.tolist()))) > 0:
        return f"掷了 3000 次，从没出现过 {missing}。"
    if torch.equal(answer(3000), rolls):
        return "两次掷出来一模一样，这不是骰子。"
    return None


def safe_difference(answer: Answer) -> str | None:
    pairs = [([5, 200], [13, 100]), ([0, 255], [255, 0])]
    for left, right in pairs:
        a, b = (torch.tensor([v], dtype=torch.uint8) for v in (left, right))
        result = answer(a, b)
        require_tensor(result, (1, 2))
        if result.dtype != torch.float32:
            return f"结果的 dtype 应为 float32，实际是 {result.dtype}。"
        if (result >= 0).all():
            return f"{left[0]} - {right[0]} 得到 {result[0, 0]:g}：该是负数的地方绕回去了。"
        if not torch.equal(result, a.float() - b.float()):
            return f"{left[1]} - {right[1]} 得到 {result[0, 1]:g}，差得不对：超出 int8 的数也要对。"
    return None


def count_bytes(answer: Any) -> str | None:
    if isinstance(answer, bool) or not isinstance(answer, int):
        return f"要一个整数，你给的是 {type(answer).__name__}。"
    numel = 60_000 * 28 * 28
    known = {
        numel: "这是元素个数，还不是字节数。",
        numel * 32: "这是多少位（bit）。8 位是 1 字节。",
        numel * 8: "你按每个数 8 字节算了，那是 float64。",
    }
    return None if answer == numel * 4 else known.get(answer, "数不对：元素个数乘每个数的字节数。")


def center_crop(answer: Answer) -> str | None:
    for n in (1, 3):
        images = torch.arange(n * 64.0).view(n, 8, 8)
        result = answer(images)
        require_tensor(result, (n, 4, 4))
        if not torch.equal(result, images[:, 2:6, 2:6]):
            return f"不是正中间：左上角是原图的 {result[0, 0, 0]:g} 号格，每行 8 格。"
        if not same_storage(result, images):
            return "数都对，可这是一份副本。列表和掩码会抄，切片才是视图。"
    return None


def pick_per_row(answer: Answer) -> str | None:
    wide = torch.arange(12.0).view(3, 4), torch.tensor([2, 0, 3])
    square = torch.arange(9.0).view(3, 3), torch.tensor([1, 2, 0])
    for s, k in (wide, square):
        result = answer(s, k)
        if isinstance(result, Tensor) and result.shape == (len(k), len(k)):
            return "得到了每一行和每个列号的全部组合，要的只是一一配对的那些。"
        require_tensor(result, (len(k),))
        if torch.equal(result, s[:, k[0]]):
            return "每一行取的都是同一列。第 i 行要取第 labels[i] 个。"
        if not torch.equal(result, s.gather(1, k[:, None])[:, 0]):
            return "取到的数不对：行号和列号要按顺序配成对。"
    return None


def contiguous_strides(answer: Answer) -> str | None:
    for shape in ((3, 4), (2, 3, 4), (5,), (2, 1, 3, 6)):
        result, truth = answer(shape), torch.empty(shape).stride()
        if not isinstance(result, tuple):
            return f"要一个元组，你给的是 {type(result).__name__}。"
        if result == tuple(reversed(truth)) and result != truth:
            return f"形状 {shape} 上，数都有了，顺序反了：最后一维的步幅才是 1。"
        if result == shape:
            return "你返回的是形状本身。步幅是走一步要跨过几个数。"
        if result != truth:
            return f"形状 {shape} 上不对：第 k 维的步幅，等于它右边各维长度的乘积。"
    return None


def patches(answer: Answer) -> str | None:
    image = torch.arange(64.0).view(8, 8)
    result = answer(image)
    require_tensor(result, (4, 4, 2, 2))
    if torch.equal(result, image.reshape(4, 4, 2, 2)):
        return "形状对，内容不对：第一个小块成了 0, 1, 2, 3 号格，它们在同一行上。"
    if torch.equal(result, image.view(4, 2, 4, 2).permute(2, 0, 3, 1)):
        return "行和列对调了：result[r, c] 应是第 r 行第 c 个小块。"
    if not torch.equal(result, image.view(4, 2, 4, 2).transpose(1, 2)):
        return f"左上角的小块应含原图左上角的四格，你的是 {result[0, 0].flatten().tolist()}。"
    return None if same_storage(result, image) else "数都对，可这是一份副本，题目要视图。"


def class_means(answer: Answer) -> str | None:
    x = torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0], [10.0, 0.0, 2.0], [7.0, 7.0, 7.0]])
    for y, k in ((torch.tensor([1, 0, 1, 0]), 2), (torch.tensor([0, 0, 1, 2]), 3)):
        result = answer(x, y, k)
        if isinstance(result, Tensor) and result.shape == (3, k) and k == 2:
            return "行和列反了：一行是一个类，一列是一个特征。"
        require_tensor(result, (k, 3))
        truth = torch.stack([x[y == c].mean(0) for c in range(k)])
        if torch.allclose(result, torch.stack([x[y == c].sum(0) for c in range(k)])):
            return "这是每类的和，还没有除以各类自己的张数。"
        if not torch.allclose(result, truth):
            return "数不对：只对同一类的行求平均，并且消掉的是样本那一维。"
    return None


def squared_error(answer: Answer) -> str | None:
    a, b = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 7.0])
    for p, t in ((a, b), (a[:, None], b), (a, b[:, None]), (a[:, None], b[:, None])):
        shapes = f"{tuple(p.shape)} 和 {tuple(t.shape)}"
        result = torch.as_tensor(answer(p, t))
        if result.ndim != 0:
            return f"形状 {shapes} 时应返回一个数，你的形状是 {tuple(result.shape)}。"
        if torch.isclose(result, torch.tensor(10.0)):
            return "这是平方和，还没有取平均。"
        if not torch.isclose(result, torch.tensor(10.0 / 3)):
            return f"形状 {shapes} 时得到 {result:.4g}：中途多半广播成了 (3, 3)。"
    try:
        unwrap(answer)(torch.ones(3), torch.ones(1))
    except ValueError:
        return None
    except Exception as error:
        return f"3 个预测对 1 个标签时应抛 ValueError，你抛的是 {type(error).__name__}。"
    return "3 个预测对 1 个标签，应当抛 ValueError，你的函数却算出了数。"


def standardize_rows(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((4, 4), (2, 5)):
        t = 3 * torch.randn(shape, generator=generator) + torch.arange(shape[0])[:, None]
        result = answer(t)
        require_tensor(result, shape)
        centered = t - t.mean(1, keepdim=True)
        if torch.allclose(result, centered / t.std(1, keepdim=True), atol=1e-5):
            continue
        if torch.allclose(result, centered / t.std(1, correction=0, keepdim=True), atol=1e-5):
            return "标准差除的是 n，题目要除以 n-1。"
        if torch.allclose(result, (t - t.mean(0)) / t.std(0), atol=1e-5):
            return "你标准化的是每一列，题目要每一行。"
        return f"形状 {shape} 上，结果的行平均是 {result.mean(1)[0]:.2g}；看看平均数对到了哪一维。"
    return None


def pairwise(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for n, k in ((3, 5), (4, 4)):
        a, b = (torch.randn(rows, 2, generator=generator) for rows in (n, k))
        result, truth = answer(a, b), torch.cdist(a, b).square()
        require_tensor(result, (n, k))
        if torch.allclose(result, truth, atol=1e-4):
            continue
        if torch.allclose(result, truth.sqrt(), atol=1e-4):
            return "这是距离，题目要平方距离，不用开方。"
        if torch.allclose(result, b.square().sum(1) - 2 * a @ b.T, atol=1e-4):
            return "少了一项：只比大小时可以扔掉的那一项，这里要加回来。"
        return f"a 有 {n} 行、b 有 {k} 行时不对：看看两个平方和各自该对到行还是列。"
    if largest_ndim(answer, torch.ones(3, 2), torch.ones(5, 2)) > 2:
        return "数都对，可是中途造了三维的结果：数据一大，内存就不够了。"
    return None


def shares_memory(answer: Answer) -> str | None:
    t = torch.arange(6.0)
    pairs = {
        "t 和 t[1:]": (t[1:], True),
        "t 和 t.view(2, 3).T": (t.view(2, 3).T, True),
        "t 和 t.clone()": (t.clone(), False),
        "t 和 t[[0, 1]]": (t[[0, 1]], False),
    }
    for name, (other, shared) in pairs.items():
        if answer(t, other) is not shared:
            return f"{name} 应得 {shared}：要问的是内存，不是起点，也不是内容。"
    return None


def safe_tensor(answer: Answer) -> str | None:
    for dtype in (np.float64, np.int32, np.float32):
        array = np.arange(3).astype(dtype)
        result = answer(array)
        require_tensor(result, (3,))
        if result.dtype != torch.float32:
            return f"{np.dtype(dtype).name} 的数组得到了 {result.dtype}，应为 float32。"
        array[0] = 99
        if result[0] == 99:
            return f"{np.dtype(dtype).name} 的数组改了以后，张量也跟着变了。"
    return None


def noise_like(answer: Answer) -> str | None:
    t = torch.zeros(4000, dtype=torch.float64)
    result = answer(t, 0.5)
    require_tensor(result, (4000,))
    if not torch.equal(t, torch.zeros_like(t)):
        return "原来的 t 被改了，应返回新的。"
    if result.dtype != torch.float64:
        return f"t 是 float64，结果成了 {result.dtype}。"
    if abs(result.mean()) > 0.1:
        return f"噪声的平均是 {result.mean():.2f}，标准正态的平均是 0。"
    if not 0.45 < result.std() < 0.55:
        return f"scale=0.5 时标准差应在 0.5 附近，你的是 {result.std():.2f}。"
    try:
        unwrap(answer)(torch.empty(3, device="meta"), 1.0)
    except RuntimeError:
        return "t 在别的设备上时，噪声还留在 CPU，两者加不到一起。"
    return None


def broadcast_shapes(answer: Any) -> str | None:
    if not isinstance(answer, (list, tuple)) or len(answer) != 4:
        return '要一个四项的列表：每项是形状的元组，对不上的写 "报错"。'
    given = ["报错" if str(item) == "报错" else _as_shape(item) for item in answer]
    if wrong := [i for i, item in enumerate(given, 1) if item is None]:
        return f'第 {wrong[0]} 项既不是形状的元组，也不是 "报错"。'
    truth = [(5, 3, 4), (8, 7, 6, 5), (3, 3), "报错"]
    if given[2] in ((3,), (3, 1)):
        return "第 3 项：(3,) 补 1 成了一行，另一边是一列，右对齐之后两边都要拉长。"
    if isinstance(given[3], tuple):
        return "第 4 项：右对齐之后，3 碰到的是 2，两个都不是 1。"
    for i, (item, expected) in enumerate(zip(given, truth, strict=True), 1):
        if item == "报错" != expected:
            return f"第 {i} 项对得上：每一维都相等，或者有一个是 1。"
        if item != expected:
            return f"第 {i} 项不对：右对齐，左边缺的补 1，逐维取大的那个。"
    return None


def _as_shape(item: Any) -> tuple[int, ...] | None:
    whole = isinstance(item, (list, tuple)) and all(isinstance(n, int) for n in item)
    return tuple(item) if whole else None


def expand(answer: Any) -> str | None:
    try:
        values = tuple(float(value) for value in answer)
    except (TypeError, ValueError):
        return "要五个数：两个得分、两个平方距离、认作谁。"
    if len(values) != 5:
        return f"要五个数，你给了 {len(values)} 个。"
    scores, distances, label = values[:2], values[2:4], values[4]
    known = {
        (6.0, 6.0): "两个模板一样像了，少了什么？得分里还有一项只跟模板有关。",
        (1.0, -3.0): "得分里减的不是整个平方和：展开式除以 2 的时候，它也除了。",
        (8.5, 10.5): "b 的符号反了：模板越“重”，扣得越多。",
    }
    if scores in known:
        return known[scores]
    if distances == (3.5, 1.5) or scores == (1.0, 5.0):
        return "得分和距离放反了：前两个是得分，后两个是平方距离。"
    if max(abs(s - t) for s, t in zip(scores, (3.5, 1.5), strict=True)) > 1e-3:
        return "得分不对：x 和模板的点积，减去模板平方和的一半。"
    if max(abs(d - t) for d, t in zip(distances, (1.0, 5.0), strict=True)) > 1e-3:
        return "得分对了，平方距离不对：两个坐标的差各自平方，再相加，不开方。"
    return None if label == 0 else "数都对，认错了：得分大的、距离小的，是哪一个？"


def neighbours(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for n, known, k in ((6, 20, 1), (9, 30, 2), (401, 50, 3)):
        x, known_x = (torch.randn(rows, 8, generator=generator) for rows in (n, known))
        known_y = torch.randint(0, 3, (known,), generator=generator)
        result = answer(x, known_x, known_y, k)
        require_tensor(result, (n,))
        if result.dtype != torch.int64:
            return f"返回的是数字的编号，dtype 应为 int64，你的是 {result.dtype}。"
        order = torch.cdist(x.double(), known_x.double()).argsort(1)
        counts = _votes(known_y[order[:, :k]])
        if torch.equal(result, counts.argmax(1)):
            continue
        if torch.equal(result, known_y[order[:, 0]]):
            return f"k={k} 时你只听了最近那一张，另外几张没有投票。"
        if torch.equal(result, _votes(known_y[order[:, -k:]]).argmax(1)):
            return "你找来的是最远的几张：得分越大越近，距离越小越近。"
        if torch.equal(result, 2 - counts.flip(1).argmax(1)):
            return f"k={k} 时平票取了编号大的，题目要编号小的。"
        return f"{n} 张图、k={k} 时不对：用两三张图手算一遍，看看票投给了谁。"
    shapes = _shapes(answer, x, known_x, known_y, 3)
    if any(len(shape) > 2 and {50, 8} <= set(shape) for shape in shapes):
        return "数都对，可是中途造了 (图, 训练图, 格子) 的三维结果。"
    if any(len(shape) > 1 and shape[0] * shape[1] > 200 * 50 for shape in shapes):
        return "数都对，可是 401 张图一次算完了，题目说一次最多 200 行。"
    return None


def _votes(labels: Tensor) -> Tensor:
    """``(n, k)`` 的标签数成 ``(n, 3)`` 的票数。"""
    return (labels[:, :, None] == torch.arange(3)).sum(1)


def _shapes(function: Answer, *args: Any) -> set[tuple[int, ...]]:
    """``function(*args)`` 的途中，出现过的张量都是什么形状。"""
    seen: set[tuple[int, ...]] = set()

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            for part in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(part, Tensor):
                    seen.add(tuple(part.shape))
            return result

    with Watch():
        function(*args)
    return seen
