"""第 1 章《张量》的检查器。每个都用几组不同的输入试，只试一组会放过碰巧对的答案。"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion.book.exercises._common import (
    error_from,
    first_difference,
    may_be_nan,
    numbered,
    require_error,
    require_integers,
    require_number,
    require_numbers,
    require_tensor,
    same_storage,
)
from companion.book.exercises._draws import not_normal, unfair
from companion.book.exercises._watch import Watch, steps
from companion.book.exercises.ch01._neighbours import CLASSES, wrong_vote

Answer = Callable[..., Any]


def read_shape(answer: Any) -> str | None:
    if not isinstance(answer, tuple):
        return f"要一个元组，你给的是 {type(answer).__name__}。"
    if len(answer) != 3:
        return f"你写了 {len(answer)} 维。开头连着几个方括号？"
    if answer != (2, 3, 1):
        return "维数对了，长度不对：从最外层开始，一层一层数并排的个数。"
    return None


def dice(answer: Answer) -> str | None:
    for n in (7, 100_000):
        rolls = answer(n)
        require_integers(rolls, (n,))
        if rolls.min() < 1 or rolls.max() > 6:
            return f"掷出了 {rolls.min()} 到 {rolls.max()}，骰子没有这样的点数。"
    if torch.equal(answer(n), rolls):
        return "两次掷出来一模一样，这不是骰子。"
    return unfair(rolls.long())


def safe_difference(answer: Answer) -> str | None:
    one_row = ([[5, 200]], [[13, 100]]), ([[0, 255]], [[255, 0]])
    two_rows = [[7, 8, 9], [30, 0, 9]], [[9, 8, 7], [2, 40, 5]]
    for left, right in (*one_row, two_rows):
        a, b = (torch.tensor(rows, dtype=torch.uint8) for rows in (left, right))
        result = answer(a, b)
        require_tensor(result, tuple(a.shape), torch.float32)
        for one, two, got in zip(*(t.flatten().tolist() for t in (a, b, result)), strict=True):
            if got == (one - two) % 256 != one - two:
                return f"{one} - {two} 得到 {got:g}：该是负数的地方绕回去了。"
            if got == two - one != one - two:
                return f"{one} - {two} 得到 {got:g}：正负号反了，或者被去掉了。"
            if got != one - two:
                return f"{one} - {two} 得到 {got:g}，应得 {one - two}：负到 -255、正到 255 都要对。"
    return None


def count_bytes(answer: Any) -> str | None:
    require_number(answer, int)
    numel = 60_000 * 28 * 28
    known = {
        numel: "这是元素个数，还不是字节数。",
        numel * 32: "这是多少位（bit）。8 位是 1 字节。",
        numel * 8: "你按每个数 8 字节算了，那是 float64。",
    }
    return None if answer == numel * 4 else known.get(answer, "数不对：元素个数乘每个数的字节数。")


def center_crop(answer: Answer) -> str | None:
    sizes = ((1, 8, 8), (3, 8, 8), (2, 8, 10), (2, 10, 8), (3, 4, 4), (1, 12, 6), (1, 6, 12))
    others = numbered(8, 2, 8).transpose(0, 1), numbered(2, 8, 14).byte()
    for images in (*(numbered(*size) for size in sizes), *others):
        size = tuple(images.shape)
        top, left = size[1] // 2 - 2, size[2] // 2 - 2
        result, truth = answer(images), images[:, top : top + 4, left : left + 4]
        if isinstance(result, Tensor) and result.shape != truth.shape:
            return f"{size} 的图应得 {tuple(truth.shape)}，你的是 {tuple(result.shape)}。"
        require_tensor(result, tuple(truth.shape), images.dtype)
        if torch.equal(result, truth.mT):
            return "是正中间，可是行和列对调了。"
        if not torch.equal(result, truth):
            where = first_difference(result, truth)
            values = f"取到了 {result[where]:g} 号格，应是 {truth[where]:g} 号格"
            return f"{size} 的图，结果的 {list(where)} {values}：居中的从第几格开始？"
        if not same_storage(result, images):
            return "数都对，可这是一份副本。列表和掩码会抄，切片才是视图。"
    return None


def pick_per_row(answer: Answer) -> str | None:
    square = -numbered(3, 3).double(), torch.tensor([1, 2, 0])  # 先试方的：认错行和列也不抛异常
    wide = numbered(3, 4), torch.tensor([2, 0, 3])
    same = numbered(4, 2).long().square(), torch.tensor([1, 1, 0, 1])
    for s, k in (square, wide, same):
        result, truth = answer(s, k), s.gather(1, k[:, None])[:, 0]
        if s is square[0] and isinstance(result, Tensor):
            if torch.equal(result, s[k]):
                return "取出了第 labels[i] 行的整行：labels 是列号，放在了行号的位置上。"
            if torch.equal(result, s[k, torch.arange(3)]):
                return "行号和列号的位置反了：行号在前，列号在后。"
        if isinstance(result, Tensor) and result.shape == (len(k), len(k)):
            return "得到了每一行和每个列号的全部组合，要的只是一一配对的那些。"
        require_tensor(result, (len(k),), s.dtype)
        if torch.equal(result, s[:, k[0]]):
            return "每一行取的都是同一列。第 i 行要取第 labels[i] 个。"
        if not torch.equal(result, truth):
            return "取到的数不对：行号和列号要按顺序配成对。"
    few, many = (steps(answer, numbered(n, 5), torch.arange(n) % 5) for n in (3, 30))
    if many > few:
        return "数都对，可是行越多，要走的步数越多：用了循环。下标里可以放整个张量。"
    return None


def contiguous_strides(answer: Answer) -> str | None:
    for shape in ((3, 4), (2, 3, 4), (5,), (2, 1, 3, 6), (4, 3, 2, 2, 5)):
        result, truth = answer(shape), torch.empty(shape).stride()
        if not isinstance(result, tuple):
            return f"要一个元组，你给的是 {type(result).__name__}。"
        if len(result) != len(shape):
            return f"形状 {shape} 有 {len(shape)} 维，你给了 {len(result)} 个步幅：一维一个。"
        if wrong := [value for value in result if type(value) is not int]:
            return f"步幅是走几个数，应是整数，你给的是 {wrong[0]!r}。"
        if result == tuple(reversed(truth)) and result != truth:
            return f"形状 {shape} 上，数都有了，顺序反了：最后一维的步幅才是 1。"
        if result == shape:
            return "你返回的是形状本身。步幅是走一步要跨过几个数。"
        if result == tuple(4 * step for step in truth):
            return f"形状 {shape} 上，你数的是字节：步幅数的是数，一个数算 1。"
        if result != truth:
            return f"形状 {shape} 上不对：第 k 维的步幅，等于它右边各维长度的乘积。"
    return None


def patches(answer: Answer) -> str | None:
    squares = numbered(8, 8), -numbered(8, 8).flip(0), numbered(8, 16)[:, ::2]
    for image in (*squares, numbered(4, 8), -numbered(6, 4), numbered(2, 10).byte()):
        height, width = image.shape
        rows, columns = height // 2, width // 2
        if height != width and error_from(answer, image) is not None:
            return f"8×8 的图对，{height}×{width} 的算不出来：块数写死了吗？从 image.shape 算。"
        result, blocks = answer(image), image.view(rows, 2, columns, 2)
        truth = blocks.transpose(1, 2)
        require_tensor(result, tuple(truth.shape), image.dtype)
        known = {
            "形状对，内容不对：第一个小块里的四格，在原图的同一行上。": image.reshape(truth.shape),
            "行和列对调了：result[r, c] 应是第 r 行第 c 个小块。": blocks.permute(2, 0, 3, 1),
            "小块换了行列：result[r, c] 应是第 r 行第 c 个小块。": blocks.permute(2, 0, 1, 3),
            "小块的位置对，可是每个小块里面，行和列对调了。": blocks.permute(0, 2, 3, 1),
        }
        for text, mistake in known.items():
            if torch.equal(result, mistake):
                return text
        if not torch.equal(result, truth):
            r, c, *_ = first_difference(result, truth)
            got, right = result[r, c].tolist(), truth[r, c].tolist()
            return f"第 {r} 行第 {c} 个小块应是 {right}，你的是 {got}。"
        if not same_storage(result, image):
            return "数都对，可这是一份副本，题目要视图。"
    return None


@may_be_nan
def class_means(answer: Answer) -> str | None:
    x = torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0], [10.0, 0.5, -2.0], [7.0, 7.0, 9.0]])
    for labels, k in (([1, 0, 1, 0], 2), ([0, 0, 1, 2], 3), ([0, 0, 2, 0], 5)):
        y = torch.tensor(labels)
        result = answer(x, y, k)
        if isinstance(result, Tensor) and result.shape == (3, k) and k == 2:
            return "行和列反了：一行是一个类，一列是一个特征。"
        if isinstance(result, Tensor) and result.ndim == 2 and result.shape[0] < k == 5:
            return f"num_classes={k}，你只给了 {len(result)} 行：一张图也没有的类也占一行。"
        require_tensor(result, (k, 3), torch.float32)
        seen = y.unique()  # 一张图也没有的类，平均没有定义，那一行是什么都行
        sums = torch.stack([x[y == c].sum(0) for c in seen])
        if torch.allclose(result[seen], sums):
            return "这是每类的和，还没有除以各类自己的张数。"
        if not torch.allclose(result[seen], sums / torch.bincount(y)[seen][:, None]):
            return "数不对：只对同一类的行求平均，并且消掉的是样本那一维。"
    return None


def squared_error(answer: Answer) -> str | None:
    a, b = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 8.0])
    c, d = torch.tensor([2.0, -2.0, 0.5, 1.0]), torch.tensor([1.0, 0.0, 0.5, 3.0])
    pairs = ((a, b), (c[:, None], d), (b, a[:, None] / 2), (d[:, None], 3 * c[:, None]))
    for p, t in pairs:
        shapes = f"{tuple(p.shape)} 和 {tuple(t.shape)}"
        if isinstance(error_from(answer, p, t), ValueError):
            return f"形状 {shapes} 的个数相同，不该抛 ValueError：比的是个数，不是形状。"
        result, difference = answer(p, t), p.flatten() - t.flatten()
        if isinstance(result, float):
            return "你返回的是 Python 的数，要零维张量：从它还要能往回求导，不要 .item()。"
        if isinstance(result, Tensor) and result.ndim != 0:
            return f"形状 {shapes} 时应返回零维张量，你的形状是 {tuple(result.shape)}。"
        require_tensor(result, (), torch.float32)
        if torch.isclose(result, difference.square().sum()):
            return "这是平方和，还没有取平均。"
        if torch.isclose(result, (p.flatten()[:, None] - t.flatten()).square().mean()):
            return f"形状 {shapes} 时得到 {result:.4g}：中途广播成了 ({len(p)}, {len(p)})。"
        if not torch.isclose(result, difference.square().mean()):
            return f"形状 {shapes} 时得到 {result:.4g}，不对：逐个相减，平方，再取平均。"
    for n, k in ((3, 1), (1, 3), (4, 2)):
        what = f"{n} 个预测对 {k} 个答案"
        require_error(what, ValueError, answer, torch.ones(n), torch.ones(k, 1))
    return None


def standardize_rows(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((4, 4), (2, 5)):
        t = 3 * torch.randn(shape, generator=generator) + torch.arange(shape[0])[:, None]
        result = answer(t)
        require_tensor(result, shape, torch.float32)
        centered = t - t.mean(1, keepdim=True)
        if torch.allclose(result, centered / t.std(1, keepdim=True), atol=1e-5):
            continue
        if torch.allclose(result, centered / t.std(1, correction=0, keepdim=True), atol=1e-5):
            return "标准差除的是 n，题目要除以 n-1。"
        if torch.allclose(result, (t - t.mean(0)) / t.std(0), atol=1e-5):
            return "你标准化的是每一列，题目要每一行。"
        mean, std = result.mean(1), result.std(1)
        if mean.abs().max() > 1e-4:
            worst = mean[mean.abs().argmax()]
            return (
                f"形状 {shape} 上，有一行的平均是 {worst:.2g}，应是 0：减的是这一行自己的平均吗？"
            )
        worst = std[(std - 1).abs().argmax()]
        if abs(worst - 1) < 1e-4:
            return "每行的平均和标准差都对，数不对：位置和正负号都要和原来的一致。"
        return f"形状 {shape} 上，平均都是 0 了，有一行的标准差是 {worst:.3g}，应是 1。"
    return None


def pairwise(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for n, k in ((3, 5), (4, 4)):
        a, b = (torch.randn(rows, 2, generator=generator) for rows in (n, k))
        a[1] = a[0]
        with Watch() as seen:
            result = answer(a, b)
        truth = torch.cdist(a, b).square()
        require_tensor(result, (n, k), torch.float32)
        if torch.allclose(result, truth.sqrt(), atol=1e-4):
            return "这是距离，题目要平方距离，不用开方。"
        if torch.allclose(result, b.square().sum(1) - 2 * a @ b.T, atol=1e-4):
            return "少了一项：只比大小时可以扔掉的那一项，这里要加回来。"
        if not torch.allclose(result, truth, atol=1e-4):
            i, j = (~torch.isclose(result, truth, atol=1e-4)).nonzero()[0].tolist()
            where = f"a 有 {n} 行、b 有 {k} 行时，第 {i} 行第 {j} 列得到 {result[i, j]:.3g}"
            return f"{where}，应是 {truth[i, j]:.3g}：三项都有吗，平方和各对到了行还是列？"
        if seen.ndim > 2:
            return "数都对，可是中途造了三维的结果：数据一大，内存就不够了。"
        if seen.left_torch:
            return "数都对，可是中途出了 torch（NumPy 或列表）：用张量的运算，不造三维的结果。"
    return None


def shares_memory(answer: Answer) -> str | None:
    t = torch.arange(1.0, 601.0)
    pairs = {
        "t 和 t[1:]": (t, t[1:], True),
        "t[500:] 和 t": (t[500:], t, True),
        "t 和 t.view(20, 30).T": (t, t.view(20, 30).T, True),
        "t[:300] 和 t[300:]": (t[:300], t[300:], True),
        "t[::2] 和 t[1::2]": (t[::2], t[1::2], True),
        "t 和 t.detach()": (t, t.detach(), True),
        "t 和 t.clone()": (t, t.clone(), False),
        "t 和 t.clone()[1:]": (t, t.clone()[1:], False),
        "t[1:] 和 t.clone()[1:]": (t[1:], t.clone()[1:], False),
        "t 和 t[[0, 1]]": (t, t[[0, 1]], False),
        "t 和 t.clone().view(20, 30).T": (t, t.clone().view(20, 30).T, False),
    }
    for name, (one, two, shared) in pairs.items():
        got = answer(one, two)
        require_number(got, bool)
        if got is not shared:
            return f"{name} 应得 {shared}：问的是整块存储，不是起点、内容，也不是有没有公共的数。"
    return None


def safe_tensor(answer: Answer) -> str | None:
    numbers = np.array([[0.1, -2.5, 199.9], [3.0, 100.0, 255.0]])
    small = numbers.astype(np.float32), np.abs(numbers).astype(np.uint8), numbers.astype(np.float16)
    shapes = numbers[0].astype(np.float32), numbers.T.copy().T, numbers.reshape(3, 1, 2).copy()
    for array in (numbers, (1001 * numbers).astype(np.int32), *small, *shapes):
        truth = torch.from_numpy(array.astype(np.float32))
        result = answer(array)
        require_tensor(result, array.shape)
        if result.dtype != torch.float32:
            return f"{array.dtype} 的数组得到了 {result.dtype}，应为 float32。"
        if not torch.equal(result, truth):
            i = int((result != truth).flatten().int().argmax())
            change = f"里有 {array.flat[i]:g}，张量里成了 {result.flatten()[i]:g}"
            return f"{array.dtype} 的数组{change}：应当直接换成 float32，中途不经过别的。"
        array[...] = 99
        if not torch.equal(result, truth):
            return f"{array.dtype} 的数组改了以后，张量也跟着变了。"
    return None


def noise_like(answer: Answer) -> str | None:
    narrow = (torch.float16, (4, 100)), (torch.bfloat16, (400,))
    for dtype, shape in (*narrow, (torch.float32, (2, 4, 50)), (torch.float64, (4, 100))):
        t = torch.arange(-200, 200, dtype=dtype).view(shape)
        result = answer(t, 0.0)
        require_tensor(result, shape)
        if result.dtype != dtype:
            return f"t 是 {dtype}，结果成了 {result.dtype}。"
        if same_storage(result, t):
            return "返回的就是 t，或者和它共用内存：应返回新的。"
        if not torch.equal(result, t):
            return "scale=0 时没有噪声，应当正好是 t，你的不是。"
    elsewhere = torch.empty(3, 2, device="meta")
    error = error_from(answer, elsewhere, 1.0)
    if error is not None and "device" in str(error):  # 别的错误是 meta 上算不了，不怪读者
        return "t 在别的设备上时，噪声还留在 CPU，两者加不到一起。"
    if error is None and answer(elsewhere, 1.0).device != elsewhere.device:
        return "t 在别的设备上时，结果回到了 CPU：噪声要和 t 造在同一个设备上。"
    if torch.equal(answer(t, 1.0), answer(t, 1.0)):
        return "两次抽到的噪声一模一样，每次都应新抽。"
    t = torch.linspace(-3, 3, 100_000, dtype=torch.float64).view(200, 500)
    first, second = ((answer(t, scale) - t) / scale for scale in (0.5, 2.0))
    return not_normal(first, 0.5) or not_normal(second, 2.0)


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
    values = require_numbers(answer, "五", "两个得分、两个平方距离、认作谁")
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
    for n, known, k in ((401, 50, 3), (6, 20, 1), (9, 30, 2)):
        x, known_x = (torch.randn(rows, 8, generator=generator) for rows in (n, known))
        known_y = torch.randint(0, CLASSES, (known,), generator=generator)
        with Watch() as seen:
            result = answer(x, known_x, known_y, k)
        if isinstance(result, Tensor) and result.shape in ((200,), (400,)):
            return f"{n} 张图只答了 {len(result)} 张：最后不满 200 行的那一块也要算。"
        require_tensor(result, (n,))
        if result.dtype != torch.int64:
            return f"返回的是数字的编号，dtype 应为 int64，你的是 {result.dtype}。"
        if wrong := wrong_vote(result, x, known_x, known_y, k):
            return wrong
        if any(len(shape) > 2 and {known, 8} <= set(shape) for shape in seen.shapes):
            return "数都对，可是中途造了 (图, 训练图, 格子) 的三维结果。"
        if any(len(shape) > 1 and shape[0] * shape[1] > 200 * known for shape in seen.shapes):
            return "数都对，可是 401 张图一次算完了，题目说一次最多 200 行。"
    return None
