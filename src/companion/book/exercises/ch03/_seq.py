"""☆ 一行一行读、谁看谁，这两节的检查器。标准答案由 torch 的现成函数当场算出。"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.book.exercises._common import (
    may_be_nan,
    require_error,
    require_numbers,
    require_tensor,
)
from companion.book.exercises.ch03._exact import by_hand, called, require_exact

Answer = Callable[..., Any]


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


# —— 一行一行读 ——


def last_valid(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for steps, width, lengths in ((5, 3, [3, 5, 1, 2]), (3, 3, [2, 3, 1]), (4, 2, [2])):
        n = torch.tensor(lengths)
        out = torch.randn(len(n), steps, width, generator=generator)
        out.requires_grad_(len(n) == 4)
        got = called(answer, out, n)
        if isinstance(got, Tensor) and got.shape == (len(n), len(n), width) and len(n) > 1:
            return "out[:, lengths - 1] 是每条都把各个长度取一遍：第 0 维也给下标 0 到 B-1。"
        require_tensor(got, (len(n), width), torch.float32)
        if not torch.equal(got, _last(out, n)):
            return _wrong_step(got, out, n)
        if out.requires_grad and not got.requires_grad:
            return "数对了，可是断开了账本，斜率传不回去。"
        require_exact(answer, _last, {"out": out}, n)
    return None


def _last(out: Tensor, lengths: Tensor) -> Tensor:
    return torch.stack([one[k - 1] for one, k in zip(out, lengths, strict=True)])


def _wrong_step(got: Tensor, out: Tensor, n: Tensor) -> str:
    every, last = torch.arange(len(n)), out.shape[1] - 1
    if torch.equal(got, out[:, -1]):
        return "取的都是最后一步，短的那几条取到了补的：各条按自己的长度取。"
    if torch.equal(got, out[every, n.clamp(max=last)]):
        return "晚了一步：长度是 3，最后有效的是第 2 步，从 0 数。"
    if torch.equal(got, out[every, (n - 2).clamp(min=0)]):
        return "早了一步：长度是 3，最后有效的是第 2 步，从 0 数。"
    if torch.equal(got, out[every, n.sort(descending=True).values - 1]):
        return "像是先把长度排了序：各条和自己的长度要对上。"
    if any(torch.equal(got, out[:, k]) for k in range(last)):
        return "每条取的是同一步：各条按自己的长度取。"
    return f"不对：长度 {n.tolist()}，第 b 条应取第 lengths[b] - 1 步。"


def gru_step(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for batch, width, hidden in ((2, 3, 4), (1, 2, 1), (5, 4, 4)):
        shapes = (
            (batch, width),
            (batch, hidden),
            (3 * hidden, width),
            (3 * hidden, hidden),
            (3 * hidden,),
            (3 * hidden,),
        )
        given = [torch.randn(shape, generator=generator) for shape in shapes]
        with by_hand("用了现成的 GRU：照式子写，两个门自己算。", "gru", "rnn", "lstm"):
            got = answer(*given)
        require_tensor(got, (batch, hidden), torch.float32)
        if not _alike(got, torch.gru_cell(*given)):
            return _wrong_gru(got, *given)
        leaves = dict(zip(("x", "h", "W", "U", "b", "b2"), given, strict=True))
        require_exact(answer, torch.gru_cell, leaves)
    return None


def _wrong_gru(
    got: Tensor, x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor
) -> str:
    for text, result in _gru_variants(x, h, W, U, b, c):
        if _alike(got, result):
            return text
    return "不对：三份的次序是 r、z、n；r、z 过 σ，n 过 tanh，最后 (1 - z)·n + z·h。"


def _gru_variants(
    x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor
) -> Iterator[tuple[str, Tensor]]:
    zero, size = torch.zeros_like(b), h.shape[1]
    (ar, az, an), (ur, uz, un) = (x @ W.T + b).chunk(3, 1), (h @ U.T + c).chunk(3, 1)
    r, z = (ar + ur).sigmoid(), (az + uz).sigmoid()
    n = (an + r * un).tanh()
    reset = (r * h) @ U[2 * size :].T + c[2 * size :]
    bare = r * (un - c[2 * size :]) + c[2 * size :]
    yield "z 用反了：(1 - z) 乘新的 n，z 乘旧的 h。", z * n + (1 - z) * h
    yield "r 和 z 调换了：前一份是 r，后一份是 z。", _mixed(z, r, an, un, h)
    yield "没有用 r：n 里旧的那份要乘 r。", _mixed(1, z, an, un, h)
    yield "r 乘在 h 上了：这里先乘 U、加偏置，再乘 r。", (1 - z) * (an + reset).tanh() + z * h
    yield "r 只乘了 Uh，没有乘第二份偏置：先加偏置，再乘 r。", (1 - z) * (an + bare).tanh() + z * h
    yield "n 该过 tanh，你过的是 σ。", (1 - z) * (an + r * un).sigmoid() + z * h
    yield "旧的 h 没有掺进来：还要加 z·h。", (1 - z) * n
    yield "这是 n，还没有和旧的 h 掺起来。", n
    yield "b2 没有用上。", torch.gru_cell(x, h, W, U, b, zero)
    yield "b 没有用上。", torch.gru_cell(x, h, W, U, zero, c)


def _mixed(r: Tensor | int, z: Tensor, an: Tensor, un: Tensor, h: Tensor) -> Tensor:
    return (1 - z) * (an + r * un).tanh() + z * h


def gates_paper(answer: Any) -> str | None:
    count, product, bias = require_numbers(answer, "三", "参数个数、连乘、偏置")
    if count != 18944:
        known = {4736: "这是一份，一共四份。", 18688: "少了一份偏置：每份有两个。"}
        known[18432] = "没有数偏置：每份有两个，各 64 个数。"
        return f"参数个数不对。{known.get(round(count), '四份，每份是 W、U 和两个偏置加起来。')}"
    if not _rounded(product, 2**-10):
        steps = {2**-9: "这是走 9 步。", 2**-11: "这是走 11 步。", 5: "是连乘，不是连加。"}
        found = [text for value, text in steps.items() if _rounded(product, value)]
        return f"连乘不对。{found[0] if found else '十个二分之一乘起来。'}"
    if abs(bias - math.log(4)) <= 0.0063:  # 两位小数，加上舍入
        return None
    slips = {
        math.log(0.8): "ln 里不是 f，是 f 比 1 - f。",
        -math.log(4): "符号反了：f 大于一半，偏置大于 0。",
        4: "还差一步，取自然对数。",
        math.log10(4): "要自然对数。",
        1 / (1 + math.exp(-0.8)): "这是 σ(0.8)，要反过来解 σ(b) = 0.8。",
    }
    found = [text for value, text in slips.items() if abs(bias - value) < 0.006]
    return f"偏置不对。{found[0] if found else '解 1/(1 + e⁻ᵇ) = 0.8。'}"


def _rounded(value: float, truth: float) -> bool:
    """写到两三位有效数字的小数也算。"""
    return math.isclose(value, truth, rel_tol=1e-2)


# —— 谁看谁 ——


@may_be_nan  # 判词自己说
def attention(answer: Answer) -> str | None:
    looks = list(_looks())
    for q, k, v, may in (*looks, *_far_looks()):
        far = v.shape == (3, 3)
        given = (q, k, v) if may is None else (q, k, v, may)
        with by_hand(
            "用了现成的注意力：不用 F.scaled_dot_product_attention，照公式写。", "attention"
        ):
            got = answer(*given)
        require_tensor(got, (*q.shape[:-1], v.shape[-1]), q.dtype)
        if not _alike(got, _attended(*given)):
            return _wrong_far(got, may) if far else _wrong_look(got, q, k, v, may)
    for q, k, v, may in looks[:3]:
        rest = () if may is None else (may,)
        require_exact(answer, _attended, {"q": q, "k": k, "v": v}, *rest)
    return None


def _attended(q: Tensor, k: Tensor, v: Tensor, may: Tensor | None = None) -> Tensor:
    mask = may if may is None else may.expand(*q.shape[:-1], k.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _far_looks() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """得分有几百，还有几百万；d 是 4，√d 正好是 2，谁先除都不差舍入。"""
    v = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 5.0, 0.5], [7.0, -8.0, 9.0]])
    k = torch.eye(4)[:3]
    near = torch.tensor([[400.0, 398, -400, 0], [-400, -398, -399, 0], [396, 400, 398, 0]])
    wide = torch.tensor([[1.0, 0.5, -1, 0], [-1, -1.5, -2, 0], [0.5, 0.25, -1, 0]])
    low = torch.tensor([[True, True, False], [False, True, True], [True, False, True]])
    high = torch.tensor([[False, True, True], [True, True, False], [True, True, True]])
    for q in (near, 400 * wide, 2e6 * wide):  # 除以 2 就是 ±200
        yield q, k, v, None
        yield q.flip(0), k, v, high
        yield -q, k, v, low


REST = "不许看的，权重要恰好是 0，−1e4 这样的数不够：换成负无穷。其余的加起来是 1。"


def _wrong_far(got: Tensor, may: Tensor | None) -> str:
    nan = bool(got.isnan().any())
    if may is None:
        what = "出了 nan" if nan else "不对"
        return f"得分有 ±200 时{what}：exp(200) 装不下，先减去每行最大的，或者用 softmax。"
    if not nan:
        return f"给了 may，得分有几百、几百万时不对。{REST}"
    return "给了 may 时出了 nan：不许看的得分很高，剩下的全成了 0，抹掉要在 softmax 之前。"


def _looks() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    yield draw(3, 4), draw(5, 4), draw(5, 2), None
    yield draw(2, 4, 4), draw(2, 4, 4), draw(2, 4, 4), None
    may = torch.ones(4, 6).tril(1).bool()
    yield draw(2, 3, 4, 8), draw(2, 3, 6, 8), draw(2, 3, 6, 5), may
    some = torch.tensor([[[[True, False, True]]], [[[False, True, False]]]])
    far = draw(2, 2, 3, 4)
    far[0, :, 1] = far[1, :, 0] = 1e6  # 不许看的内容很大，权重只要不是 0 就露馅
    yield draw(2, 2, 1, 2), draw(2, 2, 3, 2) * 5, far, some
    yield draw(2, 3).double(), draw(2, 3).double(), draw(2, 1).double(), may[:2, :2]


def _wrong_look(got: Tensor, q: Tensor, k: Tensor, v: Tensor, may: Tensor | None) -> str:
    raw, d = q @ k.mT, q.shape[-1]
    if may is not None:
        return _wrong_mask(got, raw / d**0.5, v, may)
    variants = {
        "没有除以 √d。": raw.softmax(-1) @ v,
        "除多了：除以 √d，不是 d。": (raw / d).softmax(-1) @ v,
        "乘了 √d：应当除。": (raw * d**0.5).softmax(-1) @ v,
        "√ 里是 d，每片的长度，不是片数。": (raw / k.shape[-2] ** 0.5).softmax(-1) @ v,
        "softmax 取错了维：每一行加起来是 1，dim=-1。": (raw / d**0.5).softmax(-2) @ v,
        "没有过 softmax。": raw / d**0.5 @ v,
    }
    found = [text for text, result in variants.items() if _alike(got, result)]
    return f"没给 may 时不对。{found[0] if found else '照式子：softmax(QKᵀ/√d)V。'}"


def _wrong_mask(got: Tensor, scores: Tensor, v: Tensor, may: Tensor) -> str:
    full = scores.softmax(-1)
    inverse = scores.masked_fill(may, -torch.inf).softmax(-1) @ v
    variants = {
        "没有用上 may。": full @ v,
        "may 用反了：True 是可以看。": inverse,
        "softmax 之后才抹成 0，剩下的加起来不是 1：之前就换成负无穷。": full * may @ v,
        "不许看的得分换成了 0，权重不是 0：换成负无穷。": (scores * may).softmax(-1) @ v,
    }
    found = [text for text, result in variants.items() if _alike(got, result)]
    return f"给了 may 时不对。{found[0] if found else REST}"


def causal_mask(answer: Answer) -> str | None:
    for lengths, n in (([3, 1, 4], 4), ([2, 5], 5), ([1, 3, 2], 3), ([4], 6)):
        given = torch.tensor(lengths)
        got = answer(given, n)
        require_tensor(got, (len(lengths), n, n), torch.bool)
        i, j = torch.arange(n)[:, None], torch.arange(n)
        real = j < given[:, None, None]
        truth = (j <= i) & real
        if not torch.equal(got, truth):
            return _wrong_rule(got, truth, real, given)
    return None


def _wrong_rule(got: Tensor, truth: Tensor, real: Tensor, lengths: Tensor) -> str:
    n = got.shape[-1]
    i, j = torch.arange(n)[:, None], torch.arange(n)
    before = (j <= i).expand_as(got)
    variants = {
        "True 和 False 反了：True 是可以看。": ~truth,
        "自己也可以看：j 等于 i 也是 True，不然第 0 行谁也看不了。": (j < i) & real,
        "方向反了：j 不能在 i 后面，你留的是后面的。": (j >= i) & real,
        "只管了次序，补的也放进来了。": before,
        "只管了补的，后面的也放进来了。": real.expand_as(got),
        "长短管错了维：该管第 j 列，看的是谁；你管的是第 i 行。": before & real.mT,
        "长短多算了一个：长度是 3，真的是第 0、1、2 个。": before & (j <= lengths[:, None, None]),
        "长短少算了一个：长度是 3，真的是第 0、1、2 个。": before
        & (j < lengths[:, None, None] - 1),
        "两个条件要同时满足，用 &，不是 |。": before | real,
    }
    for text, result in variants.items():
        if torch.equal(got, result):
            return text
    b, row, column = (got != truth).nonzero()[0].tolist()
    right = bool(truth[b, row, column])
    return f"长度 {lengths.tolist()}，n = {n}：第 {b} 句第 {row} 行第 {column} 列应是 {right}。"


def split_heads(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for (batch, n, width), h in (((2, 3, 8), 2), ((1, 4, 6), 3), ((3, 4, 4), 4), ((2, 2, 5), 1)):
        t = torch.randn(batch, n, width, generator=generator)
        got = answer(t, h)
        if isinstance(got, Tensor) and got.shape == (batch, n, h, width // h) and n != h:
            return "拆开了，还差把“头”换到“片”的前面：再交换两个维。"
        require_tensor(got, (batch, h, n, width // h), t.dtype)
        truth = torch.stack(t.chunk(h, -1), 1)
        if not torch.equal(got, truth):
            return _wrong_heads(got, t, h)
        require_exact(answer, lambda t, h: torch.stack(t.chunk(h, -1), 1), {"t": t}, h)
    for width, h in ((8, 3), (2, 4)):
        t = torch.randn(2, 3, width, generator=generator)
        require_error(f"{width} 个数分成 {h} 头，除不尽", ValueError, answer, t, h)
    return None


def _wrong_heads(got: Tensor, t: Tensor, h: int) -> str:
    if torch.equal(got, t.reshape(got.shape)):
        return "形状对，数混了：直接 view 成 (B, h, n, …)，一头里拼进了不同的片。"
    if torch.equal(got, t.unflatten(-1, (-1, h)).permute(0, 3, 1, 2)):
        return "一头该是连着的一段，你是隔着 h 个取一个：拆成 (h, D/h)，不是 (D/h, h)。"
    if torch.equal(got, torch.stack(t.chunk(h, -1)[::-1], 1)):
        return "头的次序反了：第 j 头是第 j 段。"
    return "不对：第 j 头第 i 片，应是 t 第 i 片的第 j 段。"
