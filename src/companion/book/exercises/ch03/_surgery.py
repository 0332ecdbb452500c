"""☆ 手术台一节的检查器：并进卷积，照着单子重排。"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from companion.book._arguments import photograph
from companion.book.exercises._common import (
    mutates,
    require_tensor,
    same_storage,
)
from companion.book.exercises.ch03._exact import require_exact

Answer = Callable[..., Any]
Photo = dict[str, tuple[Any, str]]


# —— 把批归一化并进卷积 ——


@mutates(0, 1)  # 改没改，自己看，好劝他抄一份
def fold(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for conv, norm, sides in _pairs(generator):
        x = torch.randn(3, conv.in_channels, *sides, generator=generator).to(conv.weight)
        with torch.no_grad():
            truth = norm(conv(x))
        before = photograph({"conv ": conv, "norm ": norm})
        folded = answer(conv, norm)
        if wrong := _folded_in_place(conv, norm, before) or _not_a_new_conv(folded, conv, norm):
            return wrong
        with torch.no_grad():
            try:
                got = folded(x)
            except RuntimeError as error:
                return f"新的卷积算不了原来的输入：{str(error).splitlines()[0]}"
        if got.shape != truth.shape:
            return (
                f"输出的形状应为 {tuple(truth.shape)}，你的是 {tuple(got.shape)}："
                "步幅、补边、空洞要和原来的一样。"
            )
        require_tensor(got, tuple(truth.shape), truth.dtype)
        if not torch.allclose(got, truth, atol=1e-4, rtol=1e-4):
            return _wrong_fold(folded, conv, norm)
        bare = conv._conv_forward(x, folded.weight, folded.bias)
        if not torch.allclose(bare, truth, atol=1e-4, rtol=1e-4):
            return f"单看新的 weight 和 bias，算出来不对：{_wrong_fold(folded, conv, norm)}"
        if truth.dtype == torch.float64 and not torch.allclose(got, truth, atol=1e-11, rtol=1e-11):
            return "conv 是 float64 时只准到第七位：半路转成过 float32，dtype 跟着 conv 走。"
    return None


def _pairs(generator: torch.Generator) -> list[tuple[nn.Conv2d, nn.BatchNorm2d, tuple[int, int]]]:
    """几对卷积和批归一化，各有各的脾气；eps 大，漏了看得出来。"""
    convs = [
        (nn.Conv2d(3, 4, 3, padding=1), (6, 5)),
        (nn.Conv2d(2, 6, 3, stride=2, bias=False), (7, 9)),
        (nn.Conv2d(4, 4, (1, 3), padding=(0, 2), dilation=2, groups=2), (5, 5)),
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (6, 5)),
        (nn.Conv2d(3, 5, (3, 1), padding="same", bias=False, dtype=torch.float64), (4, 5)),
    ]
    found = []
    for conv, sides in convs:
        norm = nn.BatchNorm2d(conv.out_channels, eps=0.2, dtype=conv.weight.dtype)
        mean, var, *_ = _four(norm)
        with torch.no_grad():
            for tensor in (*conv.parameters(), *norm.parameters(), mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator).to(tensor) * 1.1 + 0.3)
            var.copy_(torch.rand(norm.num_features, generator=generator).to(var) * 3 + 0.1)
        found.append((conv.eval(), norm.eval(), sides))
    return found


def _four(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """均值、方差、γ、β。"""
    four: Any = norm.running_mean, norm.running_var, norm.weight, norm.bias
    mean, var, gamma, beta = four
    return mean, var, gamma, beta


def _folded_in_place(conv: nn.Conv2d, norm: nn.BatchNorm2d, before: Photo) -> str | None:
    after = photograph({"conv ": conv, "norm ": norm})
    if list(after) != list(before):
        return "传进来的 conv 或 norm 多了、少了张量：先 new = copy.deepcopy(conv)，只改 new。"
    for what, (old, _) in before.items():
        new = after[what][0]
        same = torch.equal(old, new) if isinstance(old, Tensor) else old == new
        if not same:
            return f"{what}变了，传进来的不许改：先 new = copy.deepcopy(conv)，只改 new。"
    return None


def _not_a_new_conv(folded: Any, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str | None:
    if not isinstance(folded, nn.Conv2d):
        return f"要返回一个 nn.Conv2d，你返回的是 {type(folded).__name__}。"
    if folded is conv:
        return "返回的就是原来那个 conv：另造一个，或者先 copy.deepcopy。"
    if folded.bias is None:
        return "新的卷积没有偏置：就算原来没有，减掉的均值和 β 也要有地方放。"
    if same_storage(folded.weight, conv.weight):
        return "新旧两个卷积共用一块内存，改一个另一个也变：先抄一份。"
    if same_storage(folded.bias, norm.bias):
        return "新的偏置和 norm.bias 共用一块内存，改一个另一个也变：先抄一份。"
    return _not_alike(folded, conv)


def _not_alike(folded: nn.Conv2d, conv: nn.Conv2d) -> str | None:
    """登记、dtype、分组、形状、补边，和原来的一样吗。"""
    for name in ("weight", "bias"):
        if not isinstance(getattr(folded, name), nn.Parameter):
            return f"新的 {name} 是普通的张量，没有登记，state_dict() 里没有它：包上 nn.Parameter。"
        if getattr(folded, name).dtype != conv.weight.dtype:
            return f"新的 {name} 的 dtype 和 conv 的不一样：造的时候写 dtype=conv.weight.dtype。"
    if folded.groups != conv.groups:
        return f"groups 应为 {conv.groups}，你的是 {folded.groups}：原来怎么分组，还怎么分。"
    if folded.weight.shape != conv.weight.shape:
        return "weight 的形状和原来的不一样：并进去只改数，不改形状。"
    if folded.padding_mode != conv.padding_mode:
        mode = conv.padding_mode
        return f"padding_mode 应为 {mode!r}，你的是 {folded.padding_mode!r}：补什么要和原来一样。"
    return None


def _wrong_fold(folded: nn.Conv2d, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
    mean, var, gamma, beta = _four(norm)
    k, own = gamma / (var + norm.eps).sqrt(), torch.zeros_like(beta)
    own = own if conv.bias is None else conv.bias
    if torch.allclose(folded.weight, conv.weight, atol=1e-5):
        return "weight 没有变：每个输出通道的核要乘上自己的 k。"
    scales = {
        "漏了 eps：用 norm.eps。": gamma / var.sqrt(),
        "eps 加在根号外面了。": gamma / (var.sqrt() + norm.eps),
        "eps 不一定是 1e-5：用 norm.eps。": gamma / (var + 1e-5).sqrt(),
        "方差忘了开根号。": gamma / (var + norm.eps),
        "漏了 γ，也就是 norm.weight。": 1 / (var + norm.eps).sqrt(),
        "该除以标准差，你乘上了。": gamma * (var + norm.eps).sqrt(),
    }
    for text, scale in scales.items():
        if torch.allclose(folded.weight, conv.weight * scale[:, None, None, None], atol=1e-5):
            return text
    if not torch.allclose(folded.weight, conv.weight * k[:, None, None, None], atol=1e-4):
        return "weight 不对：k 是一个输出通道一个数，乘在 weight 的第 0 维上。"
    biases = {
        "漏了 β，也就是 norm.bias。": k * (own - mean),
        "没有减掉 running_mean。": k * own + beta,
        "减掉的均值也要乘 k。": k * own - mean + beta,
        "卷积自己的偏置也要乘 k。": own - k * mean + beta,
        "卷积自己的偏置丢了。": beta - k * mean,
        "偏置还是原来的。": own,
        "β 不该乘 k：它是归一化之后才加的。": k * (own - mean + beta),
    }
    for text, bias in biases.items():
        if folded.bias is not None and torch.allclose(folded.bias, bias, atol=1e-5):
            return f"weight 对了，偏置不对：{text}"
    return "weight 对了，偏置不对：k 乘（原来的偏置减均值），再加 β。"


# —— 照着单子重排、多抄 ——


def widen(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for picked, hidden, n_in, n_out in (
        ([0, 1, 2, 3, 3, 1, 3], 4, 3, 2),
        ([2, 0, 1], 3, 5, 3),
        ([2, 2, 1, 0, 2, 2], 3, 3, 3),
        ([0, 0], 1, 2, 1),
    ):
        w1 = torch.randn(hidden, n_in, generator=generator)
        b1 = torch.randn(hidden, generator=generator)
        w2 = torch.randn(n_out, hidden, generator=generator)
        pick = torch.tensor(picked)
        got = answer(w1, b1, w2, pick)
        if not isinstance(got, tuple | list) or len(got) != 3:
            return "要返回三个张量：新的 w1、b1、w2。"
        truths = dict(zip(("w1", "b1", "w2"), _widened(w1, b1, w2, pick), strict=True))
        for (name, truth), tensor in zip(truths.items(), got, strict=True):
            if isinstance(tensor, Tensor) and tensor.shape != truth.shape:
                shapes = f"{tuple(truth.shape)}，你的是 {tuple(tensor.shape)}"
                hint = "w2 是一列一个单元。" if name == "w2" else ""
                return f"新的 {name} 的形状应为 {shapes}。{hint}"
            require_tensor(tensor, tuple(truth.shape), torch.float32)
            if not torch.allclose(tensor, truth, atol=1e-6):
                return _wrong_widen(name, tensor, w2, pick)
        require_exact(answer, _widened, {"w1": w1, "b1": b1, "w2": w2}, pick)
    return None


def _widened(w1: Tensor, b1: Tensor, w2: Tensor, pick: Tensor) -> tuple[Tensor, ...]:
    return w1[pick], b1[pick], w2[:, pick] / torch.bincount(pick)[pick]


def _wrong_widen(name: str, tensor: Tensor, w2: Tensor, pick: Tensor) -> str:
    if name != "w2":
        return f"新的 {name} 不对：第 i 个单元照抄旧的第 pick[i] 个，一点不改。"
    known = {
        "抄了几份，就有几份一起投票：每份要除以份数。": w2[:, pick],
        "不是每个单元都抄了两份：各除各的份数。": w2[:, pick] / 2,
        "除的是总的倍数，不是这个单元自己的份数。": w2[:, pick] * w2.shape[1] / len(pick),
        "该除以份数，你乘上了。": w2[:, pick] * torch.bincount(pick)[pick],
    }
    for text, value in known.items():
        if torch.allclose(tensor, value, atol=1e-6):
            return f"新的 w2 不对：{text}"
    return "新的 w2 不对：第 i 列是旧的第 pick[i] 列，除以它一共抄了几份。"
