"""☆ 起步一节：He 初始化、残差块的典型错误和约定。"""

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.attacks import Spec


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


def _truncated(model, grow=1.0):
    for layer in _he(model).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            std = (2 / layer.weight[0].numel()) ** 0.5
            nn.init.trunc_normal_(layer.weight, std=std * grow, a=-2 * std * grow, b=2 * std * grow)
    return model


def _rescaled(model, order=None):
    """不重新抽，把旧的数挪一挪、缩一缩。"""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            w = layer.weight.data
            if order:
                w.copy_(order(w.flatten()).view_as(w))
            w.sub_(w.mean()).mul_((2 / w[0].numel()) ** 0.5 / w.std())
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
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


class _AddsInto(_Block):
    def forward(self, h):
        h += self.back(self.widen(self.norm(h)).relu())
        return h


class _BentTwice(_Block):
    def forward(self, h):
        return h + self.back(self.widen(self.norm(h).relu()).relu())


class _BentByWhere(_Block):
    def forward(self, h):
        f = self.widen(self.norm(h))
        return h + self.back(torch.where(f > 0, f, 0))


class _Smooth(_Block):
    def forward(self, h):
        return h + self.back(F.gelu(self.widen(self.norm(h))))


class _BentByMask(_Block):
    def forward(self, h):
        f = self.widen(self.norm(h))
        return h + self.back(f * (f > 0))


class _Leaky(_Block):
    def forward(self, h):
        f = self.widen(self.norm(h))
        return h + self.back(torch.where(f > 0, f, 0.1 * f))


class _Distances(_Block):
    def forward(self, h):
        return h + self.back(self.widen(self.norm(h)).abs())


class _BentFirst(_Block):
    def forward(self, h):
        f = self.norm(h)
        return h + self.back(self.widen(f * (f > 0)).relu())


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
        _truncated,
        _rescaled,
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
        _BentTwice,
        _Smooth,
        lambda width, hidden: torch.zeros(width),
    ],
}

NAMED = [
    ("he_init", lambda model: _he(model, kinds=nn.Linear), "漏了 nn.Conv2d", "里层"),
    ("he_init", lambda model: _he(model, walk=nn.Module.children), "里层", "漏了"),
    ("he_init", _truncated, "截掉了", "输入的项数"),
    ("he_init", lambda model: _truncated(model, 1 / 0.8796), "截掉了", "独立"),
    ("he_init", _rescaled, "旧的", "独立"),
    ("residual_block", _AddsInto, "改了传进来的 h", "RuntimeError"),
    ("residual_block", _BentTwice, "第一层之前", "没有 ReLU"),
]

SPECS = {
    "he_init": Spec(
        pure=False,
        random=True,
        accept=(_kaiming, lambda model: _kaiming(model, nonlinearity="relu"), _he),
        refuse=(
            lambda model: _kaiming(model, mode="fan_out"),
            lambda model: _truncated(model, 1 / 0.8796),
            lambda model: _rescaled(model, lambda w: w[torch.randperm(len(w))]),
        ),
    ),
    "residual_block": Spec(
        accept=(_Block, _Scaled, _ByHand, _BentByWhere, _BentByMask),
        refuse=(_AddsInto, _Leaky, _Distances, _BentFirst),
    ),
}

ANSWERS = {}
MEASURED: set[str] = set()
JUDGED: set[str] = set()
