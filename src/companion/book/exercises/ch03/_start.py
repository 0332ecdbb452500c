"""☆ 起步一节的检查器：He 初始化、残差块。"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from companion.book._guard import NotAnswered, one_line
from companion.book.exercises._common import Wrong, mutates, require_tensor
from companion.book.exercises._draws import not_normal
from companion.book.exercises.ch03._exact import Asked

Answer = Callable[..., Any]

# —— 起步 ——


@mutates(0)
def he_init(answer: Answer) -> str | None:
    drawn = []
    for make in (_plain, _nested, _plain):
        model = make()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        owners = {name: id(p) for name, p in model.named_parameters()}
        modes = [module.training for module in model.modules()]
        if answer(model) is not model:
            return "就地改完，返回传进来的那个 model。"
        if owners != {name: id(p) for name, p in model.named_parameters()}:
            return "参数换成了别的对象，优化器手里的就成了旧的：就地填，用 nn.init 里带下划线的。"
        if modes != [module.training for module in model.modules()]:
            return "train/eval 的开关动了：初始化不必动它。"
        if wrong := _why_not_he(model, before):
            return wrong
        drawn.append(next(model.parameters()).detach().clone())
    if torch.equal(drawn[0], drawn[2]):
        return "两次抽出来的一模一样：每次都要新抽，不定种子。"
    return None


def _plain() -> nn.Module:
    model = nn.Sequential(
        nn.Linear(300, 200), nn.ReLU(), nn.LayerNorm(200), nn.Linear(200, 120, bias=False)
    )
    return _stirred(model)


def _nested() -> nn.Module:
    inner = nn.Sequential(nn.Conv2d(32, 64, 3, groups=4), nn.BatchNorm2d(64).eval())
    twins = nn.ModuleList([nn.Linear(100, 100), nn.Linear(100, 100)])
    parts = {"table": nn.Embedding(20, 8), "first": nn.Conv2d(8, 90, 5), "inner": inner}
    return _stirred(nn.ModuleDict({**parts, "twins": twins}))


def _stirred(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.rand_like(p) + 0.5)
    return model


def _why_not_he(model: nn.Module, before: dict[str, Tensor]) -> str | None:
    weights, changed = [], _changed_kinds(model, before)
    for where, layer in model.named_modules():
        own = {name: p for name, p in layer.named_parameters(recurse=False)}
        if not all(p.requires_grad and p.is_leaf for p in own.values()):
            return (
                f"{where} 的参数不再是要斜率的叶子了：填数放在 torch.no_grad() 里，或用 nn.init。"
            )
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            if any(not torch.equal(p, before[f"{where}.{name}"]) for name, p in own.items()):
                return f"{type(layer).__name__} 的参数被动了：只管 nn.Linear 和 nn.Conv2d。"
            continue
        if wrong := _wrong_layer(where, layer, before[f"{where}.weight"], changed):
            return wrong
        weights.append(layer.weight.detach())
    if weights[-1].shape == weights[-2].shape and torch.equal(weights[-1], weights[-2]):
        return "两层一样大的，抽出来的数也一样：每层单独抽。"
    return None


def _changed_kinds(model: nn.Module, before: dict[str, Tensor]) -> set[type[nn.Module]]:
    """哪几种层的权重动过。"""
    return {
        type(layer)
        for where, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
        and not torch.equal(layer.weight, before[f"{where}.weight"])
    }


def _wrong_layer(
    where: str, layer: nn.Linear | nn.Conv2d, old: Tensor, changed: set[type[nn.Module]]
) -> str | None:
    weight, name = layer.weight.detach(), f"{where}（{type(layer).__name__}）"
    if torch.equal(weight, old):
        if changed and type(layer) not in changed:
            return f"{name}的权重没有动：漏了 nn.{type(layer).__name__}，两种层都要管。"
        return f"{name}的权重没有动：里层的也要走到，用 model.modules()。"
    if _only_moved(weight, old):
        return f"{name}的权重还是旧的那些数，只是挪了挪、缩了缩：要重新抽，用 nn.init.normal_。"
    if layer.bias is not None and bool((layer.bias != 0).any()):
        return f"{name}的偏置应是 0。"
    n = weight[0].numel()
    spread = weight.square().mean().item() ** 0.5
    if n * len(weight) > 10_000 and 1.8 < weight.abs().max().item() / spread < 3:
        return f"{name}的数两头被截掉了：要完整的正态，用 nn.init.normal_，不是 trunc_normal_。"
    if abs(spread / (2 / n) ** 0.5 - 1) > 0.04:
        return f"{name}的标准差是 {spread:.4f}，应是 {(2 / n) ** 0.5:.4f}。" + _guess(
            spread, weight, n
        )
    if not_normal(weight.flatten(1) / (2 / n) ** 0.5, 1.0):
        return f"{name}的标准差对，可抽的不是独立的正态：用 nn.init.normal_。"
    return None


def _only_moved(new: Tensor, old: Tensor) -> bool:
    """平移、缩放、重排之后是同一批数。"""
    a, b = ((t - t.mean()).div(t.std()).sort().values for t in (new.flatten(), old.flatten()))
    return torch.allclose(a, b, atol=1e-3) or torch.allclose(a, -b.flip(0), atol=1e-3)


def _guess(spread: float, weight: Tensor, n: int) -> str:
    out = n // weight[0, :1].numel()
    per = weight[0, 0].numel() if weight.ndim > 2 else 1
    m = weight.shape[0] * per
    known = {
        "n 用成了输出的个数。": (2 / m) ** 0.5,
        "Glorot 的是 2/(n+m)，He 是 2/n。": (2 / (n + m)) ** 0.5,
        "ReLU 砍掉一半，方差要的是 2/n，不是 1/n。": (1 / n) ** 0.5,
        "std 给的是方差，要开根号。": 2 / n,
        "卷积的 n 还要乘上核的大小。": (2 / out) ** 0.5,
    }
    return next((t for t, v in known.items() if abs(spread / v - 1) < 0.04), "n 是输入的项数。")


# —— 残差块 ——


def residual_block(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    for width, hidden, shape in ((8, 32, (5, 8)), (6, 3, (2, 4, 6)), (16, 16, (16,))):
        block = _made(answer, width, hidden)
        h = torch.randn(shape, generator=generator)
        if wrong := _not_identity(block, h) or _too_small(block, width, hidden):
            return wrong
        if wrong := _does_not_learn(block, h, torch.randn(shape, generator=generator)):
            return wrong
        if wrong := _wrong_inside(block, h):
            return wrong
    return _wrong_bend(answer)


def _made(answer: Answer, width: int, hidden: int) -> nn.Module:
    try:
        block = answer(width, hidden)
    except (Wrong, NotAnswered):
        raise
    except Exception as error:
        raise Wrong(f"Block({width}, {hidden}) 造不出来：{_said(error)}") from error
    if not isinstance(block, nn.Module):
        raise Wrong(
            f"Block({width}, {hidden}) 应是一个 nn.Module，得到的是 {type(block).__name__}。"
        )
    return block


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _through(block: nn.Module, h: Tensor) -> Tensor:
    kept, version = h.detach().clone(), h._version
    try:
        out: Tensor | None = block(h)
    except Exception as error:
        text = f"形状 {tuple(h.shape)} 的输入，forward 走不通：{_said(error)}"
        raise Wrong(text) from error
    if out is None and not list(block.parameters()):
        raise NotAnswered
    require_tensor(out, tuple(h.shape), torch.float32)
    assert out is not None
    if h._version != version or h.requires_grad or not torch.equal(h, kept):
        raise Wrong("forward 改了传进来的 h：写 h + …，不要 h += …。")
    return out


def _not_identity(block: nn.Module, h: Tensor) -> str | None:
    out = _through(block, h)
    if torch.equal(out, h):
        return None
    if torch.equal(out, torch.zeros_like(h)):
        return "输出全是 0：f 是 0 了，忘了加上 h。"
    if torch.equal(out, h.relu()):
        return "负数没了：相加之后又过了一次 ReLU，它应当只在 f 里面。"
    if torch.allclose(out, h, atol=0.1):
        return "差一点点，不是逐位相同：最后一层的权重和偏置都填 0，别只填得很小。"
    return "刚造出来时不是恒等的：最后一层的权重和偏置填 0，再加上 h。"


def _too_small(block: nn.Module, width: int, hidden: int) -> str | None:
    count = sum(p.numel() for p in block.parameters())
    if count == 0:
        return "一个参数也没有：层要赋给 self，才登记得上。"
    least = 2 * width * hidden
    if count < least:
        return f"Block({width}, {hidden}) 只登记了 {count} 个参数：进、出两层至少 {least} 个。"
    return None


def _does_not_learn(block: nn.Module, h: Tensor, target: Tensor) -> str | None:
    named = dict(block.named_parameters())
    before = {name: p.detach().clone() for name, p in named.items()}
    for _ in range(2):
        loss = (_through(block, h) - target).square().mean()
        if not loss.requires_grad:
            return "输出和参数断开了，练不动：不要 .detach()、.data，不要关记账。"
        try:
            grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        except RuntimeError as error:
            return f"往回算斜率走不通：{_said(error)}。中间的张量别就地改（+=、relu_）。"
        with torch.no_grad():
            for p, g in zip(named.values(), grads, strict=True):
                p.sub_(0 if g is None else 0.2 * g)
    still = [name for name, p in named.items() if torch.equal(p, before[name])]
    if not still:
        return None
    return f"走了两步，{'、'.join(still)} 没有动过：填 0 的只能是最后一层，别的要用上。"


OTHER_BEND = "弯的不是 ReLU：题目要的是 hidden 个 ReLU 单元。"
OTHERS = {"gelu", "elu", "selu", "celu", "silu", "mish", "sigmoid", "tanh", "softplus"}
OTHERS |= {"leaky_relu", "leaky_relu_", "prelu", "rrelu", "relu6", "hardtanh", "hardswish"}


def _wrong_inside(block: nn.Module, h: Tensor) -> str | None:
    with torch.no_grad():
        with Asked() as seen:
            change = _through(block, h) - h
        far = _through(block, 8 * h) - 8 * h
    if OTHERS & set(seen.asked):
        return OTHER_BEND
    if not torch.allclose(far, change, rtol=0.02, atol=1e-3):
        return "f 里没有先归一化：h 放大八倍，f(h) 也跟着变了。"
    return None


def _wrong_bend(answer: Answer) -> str | None:
    """一个单元的块，h 绕一圈：ReLU 关着的一段弧上 f 不动，开着的一段是正弦。"""
    generator, paused, smooth = torch.Generator().manual_seed(0), 0, True
    angles = torch.arange(360) * (torch.pi / 180)
    waves = torch.stack([angles.cos(), angles.sin(), torch.ones(360)], 1)
    for _ in range(24):
        block = _made(answer, 6, 1)
        with torch.no_grad():
            for p in block.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
            plane = torch.randn(6, 2, generator=generator)
            h = 2 * waves[:, :2] @ torch.linalg.qr(plane - plane.mean(0)).Q.T
            f = _through(block, h) - h
        c = f[:, (f.amax(0) - f.amin(0)).argmax()]
        span = (c.max() - c.min()).item()
        if span < 1e-3:
            continue
        still = max((c - c.min() < 1e-4 * span, c.max() - c < 1e-4 * span), key=torch.Tensor.sum)
        on = ~still if still.sum() >= 12 else torch.ones_like(still)
        w, y = waves[on].double(), c[on].double()
        fits = (w @ torch.linalg.lstsq(w, y).solution - y).abs().max() < 1e-3 * span
        if still.sum() >= 12 and not fits:
            return "f 里弯的地方多了：ReLU 只在中间，第一层之前、最后一层之后都不过。"
        paused, smooth = paused + int(still.sum() >= 12), smooth and bool(fits)
    if paused and smooth:
        return None
    return "f 里没有 ReLU：两层线性等于一层。" if smooth else OTHER_BEND
