"""☆ 手术台一节的检查器：冻住别的，换掉一种层。"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from companion.book.exercises._common import Wrong, mutates, require_error, require_number

Answer = Callable[..., Any]
Module = nn.Module


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


class _TiedInside(nn.Module):
    """要留的那一层里，一个张量有两个名字，还有批归一化的账本。"""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.core, self.last = nn.Linear(2, 3), _Tied(), nn.Linear(5, 2)
        self.core.register_module("norm", nn.BatchNorm1d(3))


@mutates(0)
def freeze_except(answer: Answer) -> str | None:
    for make, part in (
        (_Branches, "conv1"),
        (_Branches, "body.2"),
        (_Branches, "head"),
        (_Tied, "head"),
        (_Tied, "mix"),
        (_Branches, "body"),
        (_TiedInside, "core"),
    ):
        model = make().train()
        list(model.children())[-1].requires_grad_(False)  # 来时就冻着一部分
        list(model.children())[1].eval()
        before, flags = _still(model), [p.requires_grad for p in model.parameters()]
        kept = answer(model, part)
        require_number(kept, int)
        _require_still(model, before)
        own = {id(p) for p in model.get_submodule(part).parameters()}
        if (
            flags
            == [p.requires_grad for p in model.parameters()]
            != [id(p) in own for p in model.parameters()]
        ):
            return "传进来的 model 一处也没有变：改的是副本？就地改它的 requires_grad。"
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
        own_part = model.get_submodule(part)
        if kept == sum(t.numel() for t in (*own_part.parameters(), *own_part.buffers())):
            return f"冻得对，个数多了：{part} 里的缓冲区（批归一化的账本）不练，不算。"
        twice = own_part.named_parameters(remove_duplicate=False)
        if kept == sum(p.numel() for _, p in twice):
            return f"冻得对，个数多了：{part} 里有个参数有两个名字，数了两遍。"
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


class _Bend(nn.ReLU):
    """ReLU 的子类，也是 ReLU。"""


class _Nest(nn.Module):
    """一层套一层；同一个 ReLU 放在三处，两处在同一个父亲下面。"""

    def __init__(self) -> None:
        super().__init__()
        bend = nn.ReLU()
        self.first, self.second = bend, bend
        self.body = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2))])
        self.tail = nn.Sequential(nn.Linear(2, 2), bend, _Bend())


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
    try:
        count = answer(model, old, counted)
        after = dict(model.named_modules(remove_duplicate=False))
    except RecursionError:
        return "换上去的层里，又装着它自己，绕成了一圈：换上去的里面别再找。"
    require_number(count, int)
    strange = [part for part, _ in made if part not in gone]
    if strange and not any(strange[0] in set(new.modules()) for _, new in made):
        return "new 收到的层不在传进来的 model 里：改的是副本，要就地改。"
    if strange:
        return "new 收到的不是旧的那一层：换上去的里面别再找。"
    if wrong := _wrong_places(before, old, after, made, gone):
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
    old: type[Module],
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
            if type(part) is not old:
                kinds = f"{type(part).__name__} 是 {old.__name__} 的子类"
                return f"{where}没有换：{kinds}，也要换，用 isinstance。"
            twice = sum(other is part for other in before.values()) > 1
            depth = "它和别处是同一层，每一处都要换" if twice else "里面的层也要找"
            return f"{where}没有换：{depth}。"
        if not any(a is part and b is now for a, b in made):
            return f"{where}换上的不是 new(旧的那一层) 造的。"
    if len(made) != len(gone):
        return "同一层放在几处，却换成了几个不同的：new 只叫一次，几处都换成那一个。"
    return None
