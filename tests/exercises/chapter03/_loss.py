"""☆ 损失、起步：典型错误、约定、先猜的答案。"""

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.attacks import Spec

# —— 损失 ——


def _huber(a, b, delta=1.0, swap=False, gap=0.5, half=0.5, size=torch.abs, take=torch.mean):
    r = a - b
    near, line = half * r * r, delta * (r.abs() - gap * delta)
    first, second = (line, near) if swap else (near, line)
    return take(torch.where(size(r) <= delta, first, second))


def _by_clamp(a, b, delta=1.0):
    far = (a - b).abs()
    near = far.clamp(max=delta)
    return (near * near / 2 + delta * (far - near)).mean()


def _bce(z, y, take=torch.mean):
    return take(torch.logaddexp(z, torch.zeros_like(z)) - y * z)


def _by_parts(z, y):
    return F.binary_cross_entropy(z.sigmoid(), y)


def _by_formula(z, y):
    p = z.sigmoid()
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def _padded(z, y):
    p = z.sigmoid()
    return -(y * (p + 1e-7).log() + (1 - y) * (1 - p + 1e-7).log()).mean()


def _with_corners(z, y):
    return (z.clamp(min=0) - y * z + (-z.abs()).exp().log1p()).mean()


def _overflowing(z, y):
    return ((1 + z.exp()).log() - y * z).mean()


def _hard_only(z, y):
    return torch.where(y > 0.5, F.softplus(-z), F.softplus(z)).mean()


def _two_halves(z, y):
    return -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)).mean()


# —— 起步 ——


def _he(model, top=2.0, n=None, bias=True, kinds=(nn.Linear, nn.Conv2d), walk=nn.Module.modules):
    for layer in walk(model):
        if not isinstance(layer, kinds):
            continue
        w = layer.weight
        count = n(w) if n else w[0].numel()
        nn.init.normal_(w, std=(top / count) ** 0.5)
        if bias and getattr(layer, "bias", None) is not None:
            nn.init.zeros_(layer.bias)
    return model


def _kaiming(model, init=nn.init.kaiming_normal_, **options):
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            init(layer.weight, **options)
            if layer.bias is not None:
                layer.bias.data.zero_()
    return model


def _new_parameters(model):
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            w = layer.weight
            layer.weight = nn.Parameter(torch.randn_like(w) * (2 / w[0].numel()) ** 0.5)
            if layer.bias is not None:
                layer.bias = nn.Parameter(torch.zeros_like(layer.bias))
    return model


def _everything(model):
    _he(model)
    for p in model.parameters():
        if p.ndim == 1:
            nn.init.zeros_(p)
    return model


def _seeded(model):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _he(model)


def _same_numbers(model):
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            own = torch.Generator().manual_seed(torch.initial_seed() % 2**31 + 5)
            nn.init.normal_(layer.weight, std=(2 / layer.weight[0].numel()) ** 0.5, generator=own)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


def _frozen(model):
    for p in _he(model).parameters():
        p.requires_grad_(False)
    return model


class _Block(nn.Module):
    zero, tidy, bend, shortcut, after = ("back",), True, True, True, False

    def __init__(self, width, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(width) if self.tidy else nn.Identity()
        self.widen, self.back = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for name in self.zero:
            nn.init.zeros_(getattr(self, name).weight)
            nn.init.zeros_(getattr(self, name).bias)

    def forward(self, h):
        f = self.widen(self.norm(h))
        f = self.back(f.relu() if self.bend else f)
        out = h + f if self.shortcut else f
        return out.relu() if self.after else out


def _block(**changes):
    return type("Block", (_Block,), changes)


class _Scaled(_Block):
    """另一种恒等的起步：整个 f 乘一个从 0 起的数。"""

    zero = ()

    def __init__(self, width, hidden):
        super().__init__(width, hidden)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, h):
        return h + self.scale * self.back(self.widen(self.norm(h)).relu())


class _Tiny(_Block):
    def __init__(self, width, hidden):
        super().__init__(width, hidden)
        nn.init.normal_(self.back.weight, std=1e-4)


class _Nothing(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()

    def forward(self, h):
        return h


class _Listed(_Block):
    def __init__(self, width, hidden):
        super().__init__(width, hidden)
        self.layers = [self.widen, self.back]
        del self.widen, self.back

    def forward(self, h):
        return h + self.layers[1](self.layers[0](self.norm(h)).relu())


class _Detached(_Block):
    def forward(self, h):
        return h + self.back(self.widen(self.norm(h)).relu()).detach()


class _InPlace(_Block):
    def forward(self, h):
        h *= 1 + 0 * h
        h += 1
        return h - 1 + self.back(self.widen(self.norm(h)).relu())


class _Batched(_Block):
    def __init__(self, width, hidden):
        super().__init__(width, hidden)
        self.norm = nn.BatchNorm1d(width)


class _OneArgument(_Block):
    def __init__(self, width):
        super().__init__(width, width)


class _ByHand(_Block):
    def forward(self, h):
        mean, var = h.mean(-1, keepdim=True), h.var(-1, keepdim=True, correction=0)
        tidy = (h - mean) / (var + 1e-5).sqrt()
        f = self.back(self.widen(tidy).clamp(min=0))
        return f + h

    def __init__(self, width, hidden):
        super().__init__(width, hidden)
        self.norm = nn.Identity()


WRONG = {
    "three_centres": [
        (20, 1, 1),
        (1, 20, 1.5),
        (25, 1, 1.5),
        (20, 3, 1.5),
        (20, 1, 2),
        (20, 1),
        "abc",
    ],
    "huber": [
        lambda a, b, delta=1.0: _huber(a, b, delta, swap=True),
        lambda a, b, delta=1.0: _huber(a, b, delta, gap=0),
        lambda a, b, delta=1.0: _huber(a, b, 1.0),
        lambda a, b, delta=1.0: _huber(a, b, delta, take=torch.sum),
        lambda a, b, delta=1.0: _huber(a, b, delta) / delta,
        lambda a, b, delta=1.0: _huber(a, b, delta, half=1.0),
        lambda a, b, delta=1.0: _huber(a, b, delta, size=lambda r: r),
        lambda a, b, delta=1.0: F.huber_loss(a, b, delta=delta),
        lambda a, b, delta=1.0: _huber(a, b, delta).detach(),
        lambda a, b, delta=2.0: _huber(a, b, delta),
        lambda a, b, delta=1.0: _huber(a, b, delta).item(),
    ],
    "bce_with_logits": [
        _by_parts,
        _by_formula,
        _with_corners,
        _hard_only,
        lambda z, y: _bce(z, y, torch.sum),
        lambda z, y: -_bce(z, y),
        lambda z, y: _bce(z, 1 - y),
        lambda z, y: (y * F.softplus(-z)).mean(),
        lambda z, y: F.softplus(z).mean(),
        lambda z, y: F.binary_cross_entropy_with_logits(z, y),
        lambda z, y: _bce(z, y).detach(),
    ],
    "he_init": [
        lambda model: _he(model, n=lambda w: w.shape[0]),
        lambda model: _he(model, n=lambda w: w.shape[1]),
        lambda model: _he(model, top=1.0),
        lambda model: _he(model, bias=False),
        lambda model: _he(model, kinds=nn.Linear),
        lambda model: _he(model, walk=nn.Module.children),
        lambda model: _he(model, kinds=(nn.Linear, nn.Conv2d, nn.Embedding)),
        lambda model: _kaiming(model, nn.init.xavier_normal_),
        lambda model: _kaiming(model, nn.init.kaiming_uniform_, nonlinearity="relu"),
        _new_parameters,
        _everything,
        _seeded,
        _same_numbers,
        _frozen,
        lambda model: list(_he(model).parameters()),
        lambda model: _he(model).train(False),
    ],
    "residual_block": [
        _block(zero=()),
        _block(zero=("widen", "back")),
        _block(tidy=False),
        _block(bend=False),
        _block(shortcut=False),
        _block(after=True),
        _Tiny,
        _Nothing,
        _Listed,
        _Detached,
        _InPlace,
        _Batched,
        _OneArgument,
        lambda width, hidden: torch.zeros(width),
    ],
}

SPECS = {
    "three_centres": Spec(accept=([20.0, 1.0, 1.5],)),
    "huber": Spec(
        accept=(_huber, _by_clamp),
        refuse=(lambda a, b, delta=1.0: delta * F.smooth_l1_loss(a, b, beta=delta),),
    ),
    "bce_with_logits": Spec(
        section=("by_parts", "at_once"),
        accept=(_two_halves, lambda z, y: (F.softplus(z) - y * z).mean()),
        refuse=(_padded, _overflowing, lambda z, y: nn.BCEWithLogitsLoss()(z, y)),
    ),
    "he_init": Spec(
        pure=False,
        random=True,
        accept=(_kaiming, lambda model: _kaiming(model, nonlinearity="relu"), _he),
        refuse=(lambda model: _kaiming(model, mode="fan_out"),),
    ),
    "residual_block": Spec(accept=(_Block, _Scaled, _ByHand)),
}


def _slope_of_the_worst():
    z = torch.tensor(-100.0, requires_grad=True)
    F.binary_cross_entropy(z.sigmoid(), torch.tensor(1.0)).backward()
    return {0.0: "0，一点也不推", -1.0: "−1，推满了"}.get(z.grad.item(), "")


ANSWERS = {"worst-sample": _slope_of_the_worst}
MEASURED = {"which-medicine"}  # 六个网络各练四遍，章节里的断言量它
JUDGED: set[str] = set()
