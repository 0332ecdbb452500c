"""交给 Run 的对象：模型、优化器、调度器……它们的名字、类、状态，以及与存档对不对得上。"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from companion.checkpoint import check_matches
from companion.distributed import unwrap
from companion.errors import ArgumentError, MismatchError
from companion.optim import EMA

# torch 的优化器里，与参数同样形状的状态
_LIKE = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg"}
_LIKE |= {"sum", "acc_delta", "grad_avg", "ax", "prev", "step_size"}
_SHOWN = ("lr", "momentum", "betas", "eps", "weight_decay", "nesterov")


def state(part: Any) -> Any:
    """``part`` 的 ``state_dict()``；包着 DDP 或 ``torch.compile`` 的模型，名字与不包时相同。"""
    return _bare(part).state_dict()


def load(part: Any, saved: Any) -> None:
    """什么也不返回：把 ``saved`` 装进 ``part``。"""
    _bare(part).load_state_dict(saved)


def models(parts: Mapping[str, Any]) -> dict[str, nn.Module]:
    """其中的模型，去掉了包装。"""
    return {name: _bare(part) for name, part in parts.items() if isinstance(part, nn.Module)}


def optimizers(parts: Mapping[str, Any]) -> dict[str, Optimizer]:
    """其中的优化器。"""
    return {name: part for name, part in parts.items() if isinstance(part, Optimizer)}


def parameters(optimizer: Optimizer) -> list[Tensor]:
    """优化器更新的参数，按各组的次序。"""
    return [p for group in optimizer.param_groups for p in group["params"]]


def load_weights(parts: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """什么也不返回：把 ``saved`` 里的权重装进同名的模型和滑动平均，先全部核对。"""
    for name, model in models(parts).items():
        check_matches(model, saved[name])
    averages = {name: part for name, part in parts.items() if isinstance(part, EMA)}
    for name, part in (models(parts) | averages).items():
        part.load_state_dict(saved[name])


def hand_over(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """什么也不返回：``new`` 里换了对象的名字，新对象装上旧对象的状态，先全部核对。"""
    changed = {name: old[name] for name in new if name in old and old[name] is not new[name]}
    for name, part in changed.items():
        check(name, new[name], class_name(part), state(part))
    for name, part in changed.items():
        load(new[name], state(part))


def class_name(part: Any) -> str:
    """类名，如 ``"AdamW"``；包装不算，FSDP2 切成片的模型也还叫原来的名字。"""
    name = type(_bare(part)).__name__
    return name.removeprefix("FSDP") if _is_cut(part) else name


def describe(parts: Mapping[str, Any]) -> dict[str, Any]:
    """写进 run.json 的超参数：模型、优化器、调度器的类名，优化器的学习率等。"""
    known = nn.Module | Optimizer | LRScheduler
    names = {name: class_name(part) for name, part in parts.items() if isinstance(part, known)}
    return names | scalars(parts)


def scalars(parts: Mapping[str, Any]) -> dict[str, Any]:
    """优化器的学习率等；接着练时，它们来自存档。"""
    config: dict[str, Any] = {}
    for name, part in optimizers(parts).items():
        prefix = "" if name == "optimizer" else f"{name}."
        shown = {key: part.defaults[key] for key in _SHOWN if key in part.defaults}
        config |= {prefix + key: _number(value) for key, value in shown.items()}
    return config


def rate_homes(parts: Mapping[str, Any]) -> list[str]:
    """调度器把学习率另记在哪里，如 ``["scheduler.base_lrs"]``：只改优化器的，管不过一步。"""
    homes = {f"{name}.base_lrs": part for name, part in parts.items()}
    homes |= {f"{n}.scheduler.base_lrs": getattr(p, "scheduler", None) for n, p in parts.items()}
    return [home for home, holder in homes.items() if hasattr(holder, "base_lrs")]


def is_split(parts: Mapping[str, Any]) -> bool:
    """有没有模型被 FSDP2 切成了片。"""
    return any(_is_cut(part) for part in parts.values())


def is_used(parts: Mapping[str, Any]) -> bool:
    """有没有优化器更新过参数；不带状态的（如不带动量的 SGD）看不出来，算没有。"""
    held = optimizers(parts).values()
    return any(s.get("step", 1) for optimizer in held for s in optimizer.state.values())


def check_optimizers(parts: Mapping[str, Any]) -> None:
    """没有优化器对着另一个模型，就什么也不做。

    只有既多出一个不更新任何模型的优化器、又多出一个没有优化器的模型，才算：给损失的系数单配
    一个优化器是可以的，模型冻结着也可以。

    Raises:
        ArgumentError: 在笔记本里重建了模型，没有重建优化器（或反过来）。
    """
    if is_split(parts):  # FSDP2 的参数一会儿是片，一会儿是整个，认不准
        return
    updated = {name: set(map(id, parameters(part))) for name, part in optimizers(parts).items()}
    owned = {
        name: {id(p) for p in model.parameters() if p.requires_grad}
        for name, model in models(parts).items()
    }
    ours, theirs = set[int]().union(*owned.values()), set[int]().union(*updated.values())
    stray = [name for name, ids in updated.items() if ids and not ids & ours]
    alone = [name for name, ids in owned.items() if ids and not ids & theirs]
    if stray and alone:
        raise ArgumentError(
            f"{stray[0]} 应更新交给 Run 的模型，实际一个参数也不是它们的；{alone[0]} 没有优化器。"
            "重建模型之后，优化器和 Run 也要重建；不训练的模型，先 requires_grad_(False)。"
        )


def check_names(saved: Mapping[str, str], parts: Mapping[str, Any]) -> None:
    """存档里的名字和现在的一个不差就什么也不做。

    Raises:
        MismatchError: 缺了或多了；多一个没有恢复的对象，也不再是原来的训练。
    """
    missing = [f"{name}（{kind}）" for name, kind in saved.items() if name not in parts]
    extra = [f"{name}（{class_name(part)}）" for name, part in parts.items() if name not in saved]
    if missing or extra:
        lost = f"存档里有而这次没给：{'、'.join(missing)}。" if missing else ""
        added = f"这次给了而存档里没有：{'、'.join(extra)}。" if extra else ""
        raise MismatchError(
            f"接着练时，交给 Run 的应与存档里的相同，实际不同。{lost}{added}"
            "请照原来的给全；想换一种练法，就用新的目录，再从旧目录取权重。"
        )


def check(name: str, part: Any, kind: str, saved: Any) -> None:
    """``saved`` 能装进 ``part`` 就什么也不做；``kind`` 是存的时候的类名。

    Raises:
        MismatchError: 是另一个模型、另一个优化器、另一种调度器。
    """
    if isinstance(part, nn.Module):
        check_matches(_bare(part), saved)
    elif class_name(part) != kind:
        raise MismatchError(
            f"{name} 应与存档相同，存档里是 {kind}，现在是 {class_name(part)}。"
            f"请换回 {kind}；想换一种练法，就用新的目录。"
        )
    if isinstance(part, Optimizer):
        ours, theirs = _group_sizes(part.state_dict()), _group_sizes(saved)
        if ours != theirs:
            raise MismatchError(
                f"{name} 每组的参数个数应与存档相同，存档里是 {theirs}，现在是 {ours}。"
                "请用原来的参数分组建优化器。"
            )
        _check_order(name, part, saved)


def _is_cut(part: Any) -> bool:
    """是不是 ``fully_shard`` 过的模型；看方法，不看参数：评估之后，参数可能暂时是完整的。"""
    modules = part.modules() if isinstance(part, nn.Module) else ()
    return any(hasattr(module, "set_requires_gradient_sync") for module in modules)


def _bare(part: Any) -> Any:
    part = getattr(part, "_orig_mod", part)  # torch.compile(model) 返回的包装
    return unwrap(part) if isinstance(part, nn.Module) else part


def _group_sizes(saved: Mapping[str, Any]) -> list[int]:
    return [len(group["params"]) for group in saved["param_groups"]]


def _check_order(name: str, optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """参数换了次序，形状就对不上；形状都相同的看不出。别处来的优化器，状态是什么形状说不准。"""
    if type(optimizer).__module__.partition(".")[0] not in ("torch", "companion"):
        return
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    pairs = zip(parameters(optimizer), indices, strict=True)
    for place, (parameter, index) in enumerate(pairs, 1):
        for key, value in saved["state"].get(index, {}).items():
            if key in _LIKE and getattr(value, "shape", parameter.shape) != parameter.shape:
                raise MismatchError(
                    f"{name} 第 {place} 个参数的 {key} 应与参数的形状相同，存档里是 "
                    f"{tuple(value.shape)}，现在的参数是 {tuple(parameter.shape)}。"
                    "请照原来的次序把参数交给优化器。"
                )


def _number(value: Any) -> Any:
    """学习率可以是张量，``betas`` 是元组；换成能写进 JSON 的。"""
    if isinstance(value, list | tuple):
        return [_number(item) for item in value]
    return value.item() if hasattr(value, "item") else value
