"""交给 Run 的对象：怎样取出状态，与存档对不对得上，怎样装回去。"""

import json
from collections.abc import Mapping
from itertools import chain, zip_longest
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from companion.checkpoint import check_matches, plain
from companion.distributed import bare_parameters, bare_state, is_fully_sharded, load_bare, unwrap
from companion.errors import ArgumentError, CheckpointError, CompanionError, MismatchError
from companion.optim import EMA, PerStep, schedule_kind, schedule_total
from companion.repro import RandomSource, generator_state, restore_generator_state

Parts = Mapping[str, Any]  # 名字到对象
Layout = dict[str, Any]  # 对象的状态里没有、却要对得上的，见 layout

_SCHEDULES = (LRScheduler, PerStep)
_SHOWN = ("lr", "momentum", "betas", "eps", "weight_decay", "nesterov")


def check_part(name: str, part: Any) -> None:
    """``part`` 存得下就什么也不做，否则抛出 ``ArgumentError``。"""
    if isinstance(part, dict | list):
        plain(part, name)  # 里面有存不下的，这时就说
    elif not isinstance(part, RandomSource) and not (
        hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
    ):
        raise ArgumentError(
            f"交给 Run 的 {name} 应有 state_dict() 和 load_state_dict()，或是随机数发生器、字典、"
            f"列表，实际是 {type(part).__name__}。不变的数写进 config=；会变的数放进字典，"
            f"如 {name} = {{'seen': 0}}。"
        )


def state(part: Any) -> Any:
    """``part`` 的状态；包着 DDP 或 ``torch.compile`` 的模型，名字与不包时相同。"""
    if isinstance(part, RandomSource):
        return generator_state(part)
    if isinstance(part, nn.Module):
        return bare_state(part)
    return part if isinstance(part, dict | list) else part.state_dict()


def load(
    parts: Parts, saved: Mapping[str, Any], layouts: Mapping[str, Layout], everything: Parts
) -> list[str]:
    """把 ``saved`` 装进同名的 ``parts``：先全部核对，再全部装好；返回改了什么，一项一句。

    ``layouts`` 是存的时候的 ``layout``；``everything`` 是交给 Run 的全部，从那里查参数的名字。

    Raises:
        MismatchError: 是另一个模型、另一个优化器、另一种调度器；此时什么也没有装。
        CheckpointError: 核对时看不出，装到一半才出错。
    """
    changes = []
    try:
        for name, part in parts.items():
            _check(name, part, saved[name], layout(part, everything), layouts[name])
        for name, part in parts.items():
            changes += _changes(name, part, saved[name], layouts[name])
            _set_state(part, saved[name])
            for inner, p in bare_parameters(part) if "trainable" in layouts[name] else ():
                p.requires_grad_(layouts[name]["trainable"].get(inner, p.requires_grad))
    except CompanionError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{name} 应装得进存档里的状态，实际出错：{type(error).__name__}: {error}。"
            "前面的可能已经装了：请重建全部对象，再换一个存档。"
        ) from error
    return changes


def load_weights(parts: Parts, saved: Mapping[str, Any]) -> None:
    """只把权重装进同名的模型和滑动平均，先全部核对。"""
    for name, model in models(parts).items():
        check_matches(model, saved[name])
    for name in (name for name, part in parts.items() if isinstance(part, nn.Module | EMA)):
        _set_state(parts[name], saved[name])


def layout(part: Any, parts: Parts) -> Layout:
    """类名；模型的各个参数练不练；优化器的各组是哪些参数，写它们在 ``parts`` 的模型里的名字。

    名字如 ``"model.0.weight"``；哪个模型里都没有的是 ``None``。
    """
    found: Layout = {"class": class_name(part)}
    if isinstance(part, _SCHEDULES):
        found["total"] = schedule_total(part)
    if isinstance(part, nn.Module):
        found["trainable"] = {n: p.requires_grad for n, p in bare_parameters(part)}
    if isinstance(part, Optimizer) and not is_split(parts):  # 切了片的参数会换，认不准
        named = [(f"{n}.{i}", p) for n, m in models(parts).items() for i, p in bare_parameters(m)]
        known = {id(parameter): name for name, parameter in reversed(named)}
        groups = [group["params"] for group in part.param_groups]
        found["groups"] = [[known.get(id(p)) for p in group] for group in groups]
    return found


def check_all_saved(parts: Parts) -> None:
    """优化器更新的参数都在交来的模型里，就什么也不做；有的不在，存档里就不会有它们的值。"""
    for name, part in parts.items():
        strangers = sum(group.count(None) for group in layout(part, parts).get("groups", []))
        if strangers:
            raise ArgumentError(
                f"{name} 更新的参数应都在交给 Run 的模型里，实际有 {strangers} 个不在，不会存下。"
                "重建过模型，优化器也要重建；损失自己的参数，把装着它们的 nn.Module"
                "（单个的用 nn.ParameterList）也交给 Run。"
            )


def check_names(saved: Parts, parts: Parts) -> None:
    """存档里的名字和现在的一个不差就什么也不做；多一个没有恢复的，也不再是原来的训练。"""
    lost = [f"{name}（{kind}）" for name, kind in saved.items() if name not in parts]
    extra = [f"{name}（{class_name(part)}）" for name, part in parts.items() if name not in saved]
    if lost or extra:
        raise MismatchError(
            "接着练时，交给 Run 的应与存档里的相同，实际"
            + (f"存档里有而这次没给：{'、'.join(lost)}。" if lost else "")
            + (f"这次给了而存档里没有：{'、'.join(extra)}。" if extra else "")
            + "请照原来的给全；想换一种练法，就用新的目录，再从旧目录取权重。"
        )


def models(parts: Parts) -> dict[str, nn.Module]:
    """其中的模型，去掉了包装。"""
    return {name: unwrap(part) for name, part in parts.items() if isinstance(part, nn.Module)}


def parameters(parts: Parts) -> list[Tensor]:
    """各个模型的参数。"""
    return [p for model in models(parts).values() for p in model.parameters()]


def class_name(part: Any) -> str:
    """类名，如 ``"AdamW"``；包装不算，FSDP2 切成片的模型也还叫原来的名字；调度器连里面的也写。"""
    name = schedule_kind(part) if isinstance(part, _SCHEDULES) else type(unwrap(part)).__name__
    return name.removeprefix("FSDP") if is_split({"": part}) else name


def is_split(parts: Parts) -> bool:
    """有没有模型被 FSDP2 切成了片。"""
    return any(map(is_fully_sharded, models(parts).values()))


def hyperparameters(parts: Parts) -> dict[str, Any]:
    """写进 run.json 的超参数：模型、优化器、调度器的类名，优化器此刻的学习率（起点）等。"""
    known = nn.Module | Optimizer | LRScheduler | PerStep
    config = {name: class_name(part) for name, part in parts.items() if isinstance(part, known)}
    for name, part in parts.items():
        prefix = "" if name == "optimizer" else f"{name}."
        if isinstance(part, Optimizer):
            config |= {prefix + key: value for key, value in _shown(part.param_groups[0]).items()}
    return config


def _shown(group: Mapping[str, Any]) -> dict[str, Any]:
    """一组参数的超参数；学习率是调度器出发的那个，没有调度器就是现在的。"""
    values = {key: group[key] for key in _SHOWN if key in group}
    values |= {"lr": group.get("initial_lr", values.get("lr"))}
    return dict(json.loads(json.dumps(values, default=Tensor.item)))  # 张量成了数，元组成了列表


def _set_state(part: Any, saved: Any) -> None:
    if isinstance(part, RandomSource):
        restore_generator_state(part, saved)
    elif isinstance(part, dict):
        part.clear()
        part.update(saved)
    elif isinstance(part, list):
        part[:] = saved
    elif isinstance(part, nn.Module):
        load_bare(part, saved)
    else:
        part.load_state_dict(saved)


def _check(name: str, part: Any, saved: Any, now: Layout, then: Layout) -> None:
    if isinstance(part, nn.Module):
        check_matches(part, saved)
    elif now["class"] != then["class"]:
        raise MismatchError(
            f"{name} 应与存档相同，存档里是 {then['class']}，现在是 {now['class']}。"
            f"请换回 {then['class']}；想换一种练法，就用新的目录。"
        )
    old, new = then.get("groups"), now.get("groups")  # 切了片的没有记，就不比
    if old and new and old != new:
        pairs = zip_longest(chain(*old), chain(*new), fillvalue="（到头了）")
        first = next((pair for pair in pairs if pair[0] != pair[1]), ("分组", "分组"))
        sizes = [list(map(len, groups)) for groups in (old, new)]
        raise MismatchError(
            f"{name} 更新的参数、分组和次序应与存档相同，实际存档里每组有 {sizes[0]} 个，现在有 "
            f"{sizes[1]} 个；第一处不同，存档里是 {first[0]}，现在是 {first[1]}。"
            "请照原来的写法建优化器；练到一半 add_param_group 加的组，要先加好，再建 Run。"
        )


def _changes(name: str, part: Any, saved: Any, layout: Layout) -> list[str]:
    """装好之后会变的，还没有装：优化器的超参数，冻结、解冻过的参数。"""
    found: dict[str, str] = {}
    if "total" in layout and layout["total"] != (total := schedule_total(part)):
        found["total"] = f"{name} 的总步数存档 {layout['total']}，现在 {total}"
    if isinstance(part, Optimizer):
        for new, old in zip(part.param_groups, saved["param_groups"], strict=True):
            now, then = _shown(new), _shown(old)
            for key in (key for key in now if key in then and now[key] != then[key]):
                found[key] = f"{name} 的 {key} 存档 {then[key]}，现在 {now[key]}，用存档里的"
    named = dict(bare_parameters(part)) if "trainable" in layout else {}
    for inner, flag in layout.get("trainable", {}).items():
        if named[inner].requires_grad != flag:
            found[inner] = f"{name}.{inner} 的 requires_grad 照存档改成了 {flag}"
    return list(found.values())
