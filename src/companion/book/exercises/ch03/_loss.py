"""☆ 损失、起步两节的检查器。"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.book._guard import NotAnswered, one_line
from companion.book.exercises._common import (
    Wrong,
    close,
    mutates,
    require_numbers,
    require_tensor,
)
from companion.book.exercises._draws import not_normal
from companion.book.exercises._watch import Watch

Answer = Callable[..., Any]


def three_centres(answer: Any) -> str | None:
    mean, median, between = require_numbers(answer, "三", "平方、绝对值、Huber 各一个")
    if close(mean, 1) and close(median, 20):
        return "平方和绝对值的次序反了。"
    if not close(mean, 20):
        return "平方的不对：推力 2(c − a) 加起来是 0，c 是五个数的平均。"
    if not close(median, 1):
        return "绝对值的不对：每个数只推 1，左右推的人一样多，c 是中间那个数。"
    if close(between, 1):
        return "Huber 的不对：c = 1 时，0 往左推 1，3 和 95 各往右推 1，还没有停。"
    if not close(between, 1.5):
        return "Huber 的不对：五个 clamp(c − a, −1, 1) 加起来应是 0。"
    return None


# —— Huber ——


def huber(answer: Answer) -> str | None:
    for prediction, target, delta in _pairs():
        with Watch() as seen:
            got = answer(prediction, target, delta)
        require_tensor(got, (), torch.float32)
        truth = F.huber_loss(prediction, target, delta=delta)
        if not torch.allclose(got, truth, rtol=1e-5, atol=1e-7):
            return _why_not_huber(got, prediction - target, delta)
        if {"huber_loss", "smooth_l1_loss"} & set(seen.names):
            return "用的是现成的损失；这题自己写，torch.where 选哪一段。"
    prediction, target, _ = _pairs()[0]
    if not close(answer(prediction, target).item(), F.huber_loss(prediction, target).item()):
        return "不写 delta 时应是 1：参数写成 delta=1.0。"
    return _huber_slopes(answer)


def _pairs() -> list[tuple[Tensor, Tensor, float]]:
    generator = torch.Generator().manual_seed(0)
    found: list[tuple[Tensor, Tensor, float]] = []
    for shape, delta in (((9,), 1.0), ((3, 4), 0.5), ((2, 2), 3.0), ((2, 3), 2.0)):
        target = torch.randn(shape, generator=generator)
        found.append((target + 3 * torch.randn(shape, generator=generator), target, delta))
    same = torch.zeros(4)
    edge = torch.tensor([-2.0, -1.0, 1.0, 2.0])  # 正好在 δ 上
    return [*found, (same, same.clone(), 1.0), (edge, same, 1.0)]


def _why_not_huber(got: Tensor, r: Tensor, delta: float) -> str:
    far = r.abs()
    near, line = r * r / 2, delta * (far - delta / 2)
    right = torch.where(far <= delta, near, line)
    known = {
        "两段放反了：小的用平方，大的用直线。": torch.where(far <= delta, line, near).mean(),
        "大的那一段漏了 −δ/2，在 δ 处接不上。": torch.where(far <= delta, near, delta * far).mean(),
        "没有用参数 delta，总是当成 1。": F.huber_loss(r, torch.zeros_like(r)),
        "没有取平均，给出的是总和。": right.sum(),
        "这是 smooth L1，少乘了一个 δ。": right.mean() / delta,
        "小的那一段漏了二分之一。": torch.where(far <= delta, r * r, line).mean(),
        "条件里看的是 r，负的都算成小的了：看它的绝对值。": torch.where(
            r <= delta, near, line
        ).mean(),
    }
    for text, value in known.items():
        if torch.allclose(got, value, rtol=1e-5, atol=1e-7):
            return text
    return f"delta = {delta} 时不对：应是 {right.mean():.4f}，你的是 {got:.4f}。"


def _huber_slopes(answer: Answer) -> str | None:
    for prediction, target, delta in _pairs():
        leaf = prediction.clone().requires_grad_()
        got = answer(leaf, target, delta)
        if not got.requires_grad:
            return "值对，可是和 prediction 断开了，求不了斜率：不要 .item()、.detach()。"
        (g,) = torch.autograd.grad(got, leaf)
        truth = (prediction - target).clamp(-delta, delta) / prediction.numel()
        if not torch.allclose(g, truth, atol=1e-6):
            return "值对，斜率不对：应是 clamp(r, −δ, δ) 除以个数。"
    return None


# —— 二元交叉熵 ——


def bce_with_logits(answer: Answer) -> str | None:
    for z, y in _logits():
        with Watch() as seen:
            got = answer(z, y)
        require_tensor(got, (), torch.float32)
        truth = F.binary_cross_entropy_with_logits(z, y)
        if not torch.allclose(got, truth, rtol=1e-5, atol=1e-6):
            return _why_not_bce(got, z, y, truth)
        if "binary_cross_entropy_with_logits" in seen.names:
            return "用的是现成的那个；这题自己写，先把式子化简成一个对数。"
    return _bce_slopes(answer)


def _logits() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in ((7,), (3, 5), (2, 2)):
        z = 3 * torch.randn(shape, generator=generator)
        found.append((z, (z + torch.randn(shape, generator=generator) > 0).float()))
    soft = torch.tensor([0.3, 0.9, 0.5, 0.0])
    far = torch.tensor([-1000.0, -100.0, 40.0, 1000.0])
    return [
        *found,
        (torch.tensor([1.5, -0.5, 0.25, 2.0]), soft),
        (torch.zeros(4), soft),
        (far, (far < 0).float()),
        (far, (far > 0).float()),
    ]


def _why_not_bce(got: Tensor, z: Tensor, y: Tensor, truth: Tensor) -> str:
    if z.abs().max() > 50:
        return (
            f"得分是 {z.tolist()} 时，应是 {truth:g}，你的是 {got:g}。"
            "中间有个数大得或小得装不下了：别经过概率，也别直接算 exp(1000)。"
        )
    each = F.binary_cross_entropy_with_logits(z, y, reduction="none")
    known = {
        "没有取平均，给出的是总和。": each.sum(),
        "符号反了，损失应当是正的。": -truth,
        "答案的 0 和 1 弄反了。": F.binary_cross_entropy_with_logits(z, 1 - y),
        "只算了答案是 1 的那一半。": (y * F.softplus(-z)).mean(),
        "漏了 y·z 那一项。": F.softplus(z).mean(),
    }
    for text, value in known.items():
        if torch.allclose(got, value, rtol=1e-5, atol=1e-6):
            return text
    if bool(((y > 0) & (y < 1)).any()):
        return "y 是 0.3 这样的数时不对：它可以是 0 到 1 之间的任何数，不只 0 和 1。"
    return f"值不对：应是 {truth:.4f}，你的是 {got:.4f}。"


def _bce_slopes(answer: Answer) -> str | None:
    for z, y in _logits():
        leaf = z.clone().requires_grad_()
        got = answer(leaf, y)
        if not got.requires_grad:
            return "值对，可是和 z 断开了，求不了斜率：不要 .item()、.detach()。"
        (g,) = torch.autograd.grad(got, leaf)
        truth = (z.sigmoid() - y) / z.numel()
        if torch.allclose(g, truth, atol=1e-6):
            continue
        if bool((z == 0).all()):
            return (
                f"值都对，得分是 0 的地方斜率不对：y = 0.3 时应是 0.2/4，你的是 {g[0] * 4:.2g}/4。"
                "clamp、relu、abs 在 0 处是尖角，换成没有尖角的写法。"
            )
        return f"值对，斜率不对：得分 {z.flatten()[0]:g} 处应是 {truth.flatten()[0]:.3g}。"
    return None


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
    weights = []
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
        if wrong := _wrong_layer(where, layer, before[f"{where}.weight"]):
            return wrong
        weights.append(layer.weight.detach())
    if weights[-1].shape == weights[-2].shape and torch.equal(weights[-1], weights[-2]):
        return "两层一样大的，抽出来的数也一样：每层单独抽。"
    return None


def _wrong_layer(where: str, layer: nn.Linear | nn.Conv2d, old: Tensor) -> str | None:
    weight, name = layer.weight.detach(), f"{where}（{type(layer).__name__}）"
    if torch.equal(weight, old):
        return f"{name}的权重没有动：里层的也要走到，用 model.modules()。"
    if layer.bias is not None and bool((layer.bias != 0).any()):
        return f"{name}的偏置应是 0。"
    n = weight[0].numel()
    spread = weight.square().mean().item() ** 0.5
    if abs(spread / (2 / n) ** 0.5 - 1) > 0.04:
        return f"{name}的标准差是 {spread:.4f}，应是 {(2 / n) ** 0.5:.4f}。" + _guess(
            spread, weight, n
        )
    if not_normal(weight.flatten(1) / (2 / n) ** 0.5, 1.0):
        return f"{name}的标准差对，可抽的不是独立的正态：用 nn.init.normal_。"
    return None


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
    return None


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
    kept = h.detach().clone()
    try:
        out: Tensor | None = block(h)
    except Exception as error:
        text = f"形状 {tuple(h.shape)} 的输入，forward 走不通：{_said(error)}"
        raise Wrong(text) from error
    if out is None and not list(block.parameters()):
        raise NotAnswered
    require_tensor(out, tuple(h.shape), torch.float32)
    assert out is not None
    if not torch.equal(h, kept):
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
        grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        with torch.no_grad():
            for p, g in zip(named.values(), grads, strict=True):
                p.sub_(0 if g is None else 0.2 * g)
    still = [name for name, p in named.items() if torch.equal(p, before[name])]
    if not still:
        return None
    return f"走了两步，{'、'.join(still)} 没有动过：填 0 的只能是最后一层，别的要用上。"


def _wrong_inside(block: nn.Module, h: Tensor) -> str | None:
    with Watch() as seen, torch.no_grad():
        change = _through(block, h) - h
        far = _through(block, 8 * h) - 8 * h
    if not {"relu", "relu_", "clamp", "clamp_min", "maximum", "threshold"} & set(seen.names):
        return "f 里没有 ReLU：两层线性等于一层。"
    if not torch.allclose(far, change, rtol=0.02, atol=1e-3):
        return "f 里没有先归一化：h 放大八倍，f(h) 也跟着变了。"
    return None
