"""☆ 手术台一节的检查器。"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from companion.book.exercises._common import (
    Wrong,
    mutates,
    require_error,
    require_number,
    require_tensor,
    same_storage,
)

Answer = Callable[..., Any]
Module = nn.Module


# —— 把批归一化并进卷积 ——


def fold(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for conv, norm, sides in _pairs(generator):
        x = torch.randn(3, conv.in_channels, *sides, generator=generator)
        with torch.no_grad():
            truth = norm(conv(x))
        folded = answer(conv, norm)
        if wrong := _not_a_new_conv(folded, conv):
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
        require_tensor(got, tuple(truth.shape), torch.float32)
        if not torch.allclose(got, truth, atol=1e-4, rtol=1e-4):
            return _wrong_fold(folded, conv, norm)
    return None


def _pairs(generator: torch.Generator) -> list[tuple[nn.Conv2d, nn.BatchNorm2d, tuple[int, int]]]:
    """几对卷积和批归一化，各有各的脾气；eps 大，漏了看得出来。"""
    convs = [
        (nn.Conv2d(3, 4, 3, padding=1), (6, 5)),
        (nn.Conv2d(2, 6, 3, stride=2, bias=False), (7, 9)),
        (nn.Conv2d(4, 4, (1, 3), padding=(0, 2), dilation=2, groups=2), (5, 5)),
    ]
    found = []
    for conv, sides in convs:
        norm = nn.BatchNorm2d(conv.out_channels, eps=0.2)
        mean, var, *_ = _four(norm)
        with torch.no_grad():
            for tensor in (*conv.parameters(), *norm.parameters(), mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) + 0.3)
            var.copy_(torch.rand(norm.num_features, generator=generator) * 3 + 0.1)
        found.append((conv.eval(), norm.eval(), sides))
    return found


def _four(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """均值、方差、γ、β。"""
    four: Any = norm.running_mean, norm.running_var, norm.weight, norm.bias
    mean, var, gamma, beta = four
    return mean, var, gamma, beta


def _not_a_new_conv(folded: Any, conv: nn.Conv2d) -> str | None:
    if not isinstance(folded, nn.Conv2d):
        return f"要返回一个 nn.Conv2d，你返回的是 {type(folded).__name__}。"
    if folded is conv:
        return "返回的就是原来那个 conv：另造一个，或者先 copy.deepcopy。"
    if folded.bias is None:
        return "新的卷积没有偏置：就算原来没有，减掉的均值和 β 也要有地方放。"
    if same_storage(folded.weight, conv.weight):
        return "新旧两个卷积共用一块内存，改一个另一个也变：先抄一份。"
    if folded.groups != conv.groups:
        return f"groups 应为 {conv.groups}，你的是 {folded.groups}：原来怎么分组，还怎么分。"
    if folded.weight.shape != conv.weight.shape:
        return "weight 的形状和原来的不一样：并进去只改数，不改形状。"
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
        share = w2[:, pick] / torch.bincount(pick)[pick]
        truths = {"w1": w1[pick], "b1": b1[pick], "w2": share}
        for (name, truth), tensor in zip(truths.items(), got, strict=True):
            if isinstance(tensor, Tensor) and tensor.shape != truth.shape:
                shapes = f"{tuple(truth.shape)}，你的是 {tuple(tensor.shape)}"
                hint = "w2 是一列一个单元。" if name == "w2" else ""
                return f"新的 {name} 的形状应为 {shapes}。{hint}"
            require_tensor(tensor, tuple(truth.shape), torch.float32)
            if not torch.allclose(tensor, truth, atol=1e-6):
                return _wrong_widen(name, tensor, w2, pick)
    return None


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


# —— 冻住别的 ——


class _Branches(nn.Module):
    """名字容易认错：conv1 和 conv10，head 里还有 head。"""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv10 = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        self.head = nn.ModuleDict({"head": nn.Linear(4, 2), "conv1": nn.Linear(4, 2, bias=False)})


class _Tied(nn.Module):
    """两个名字，一个张量。"""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(5, 3), nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight


@mutates(0)
def freeze_except(answer: Answer) -> str | None:
    for make, part in (
        (_Branches, "conv1"),
        (_Branches, "body.2"),
        (_Branches, "head"),
        (_Tied, "head"),
        (_Tied, "mix"),
    ):
        model = make().train()
        list(model.children())[-1].requires_grad_(False)  # 来时就冻着一部分
        list(model.children())[1].eval()
        before = _still(model)
        kept = answer(model, part)
        require_number(kept, int)
        _require_still(model, before)
        if wrong := _wrong_freeze(model, part, kept):
            return wrong
    model = _Branches()
    what = "没有叫 neck 的层"
    require_error(what, AttributeError, answer, model, "neck")
    if not all(p.requires_grad for p in model.parameters()):
        return f"{what}时报错是对的，可是别的层已经冻住了：先找到这一层，再动手。"
    return None


def _wrong_freeze(model: Module, part: str, kept: int) -> str | None:
    own = {id(p) for p in model.get_submodule(part).parameters()}
    named = list(model.named_parameters(remove_duplicate=False))
    for name, parameter in named:
        if parameter.requires_grad and id(parameter) not in own:
            return f"要留的是 {part}，{name} 不在它里面，却没有冻住。"
        if not parameter.requires_grad and id(parameter) in own:
            shared = sum(p is parameter for _, p in named) > 1
            why = "它有两个名字，一个在要留的层里就该留" if shared else "来时冻着的也要打开"
            return f"要留的是 {part}，{name} 却冻住了：{why}。"
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if kept != count:
        return f"冻得对，个数不对：留下 {part}，还练的有 {count} 个数，你返回 {kept}。"
    return None


def _still(model: Module) -> tuple[list[bool], dict[str, Tensor]]:
    return [m.training for m in model.modules()], copy.deepcopy(model.state_dict())


def _require_still(model: Module, before: tuple[list[bool], dict[str, Tensor]]) -> None:
    modes, state = _still(model)
    if modes != before[0]:
        raise Wrong("train/eval 被拨动了：冻结只改 requires_grad，别的不动。")
    if any(not torch.equal(t, state[name]) for name, t in before[1].items()):
        raise Wrong("张量里的数被改了：冻结只改 requires_grad，别的不动。")


# —— 换掉一种层 ——


class _Nest(nn.Module):
    """一层套一层；同一个 ReLU 放在三处，两处在同一个父亲下面。"""

    def __init__(self) -> None:
        super().__init__()
        bend = nn.ReLU()
        self.first, self.second = bend, bend
        self.body = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2))])
        self.tail = nn.Sequential(nn.Linear(2, 2), bend)


@mutates(0)
def replace(answer: Answer) -> str | None:
    chain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    cases: list[tuple[Module, type[Module], Callable[[Module], Module]]] = [
        (chain, nn.ReLU, lambda part: nn.GELU()),
        (_Nest(), nn.ReLU, lambda part: nn.Tanh()),
        (_Nest().eval(), nn.Linear, lambda part: nn.Sequential(part, nn.Dropout(0.1))),
        (_Nest(), nn.Conv2d, lambda part: nn.Identity()),
    ]
    for model, old, new in cases:
        if wrong := _wrong_replace(answer, model, old, new):
            return wrong
    return None


def _wrong_replace(
    answer: Answer, model: Module, old: type[Module], new: Callable[[Module], Module]
) -> str | None:
    made: list[tuple[Module, Module]] = []

    def counted(part: Module) -> Module:
        if len(made) > 50:
            raise RuntimeError("new 叫了 50 多次：换上去的里面又有旧的那种层，别再进去换")
        made.append((part, new(part)))
        return made[-1][1]

    before = dict(model.named_modules(remove_duplicate=False))
    modes = {part: part.training for part in before.values()}
    gone = list(dict.fromkeys(p for p in before.values() if isinstance(p, old)))
    count = answer(model, old, counted)
    require_number(count, int)
    if [part for part, _ in made if part not in gone]:
        return "new 收到的不是旧的那一层：换上去的里面别再找。"
    after = dict(model.named_modules(remove_duplicate=False))
    if wrong := _wrong_places(before, after, made, gone):
        return wrong
    if any(part.training != mode for part, mode in modes.items()):
        return "train/eval 被拨动了：这题只换层。"
    if [name for name in after if name in before] != list(before):
        return "层的次序变了：换上去的要留在原来的位置。"
    if count != len(gone):
        return f"换对了，个数不对：应是 {len(gone)}，你返回 {count}。共用的一层算一个。"
    return None


def _wrong_places(
    before: dict[str, Module],
    after: dict[str, Module],
    made: list[tuple[Module, Module]],
    gone: list[Module],
) -> str | None:
    """旧的那种层，每一处都换成了 `new` 造的同一个；别的原样。"""
    if made and list(before.values()) == list(after.values()):
        return "new 叫了，却一处也没有换上：给循环变量赋值换不掉，要 setattr(父亲, 名字, 新的)。"
    for path, part in before.items():
        now = after.get(path)
        where = f"{path} 处"
        if part not in gone:
            if now is not part:
                return f"{where}不该动：它不是要换的那种层。"
            continue
        if now is part:
            twice = sum(other is part for other in before.values()) > 1
            depth = "它和别处是同一层，每一处都要换" if twice else "里面的层也要找"
            return f"{where}没有换：{depth}。"
        if not any(old is part and new is now for old, new in made):
            return f"{where}换上的不是 new(旧的那一层) 造的。"
    if len(made) != len(gone):
        return "同一层放在几处，却换成了几个不同的：new 只叫一次，几处都换成那一个。"
    return None
