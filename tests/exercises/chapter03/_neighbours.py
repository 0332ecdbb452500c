"""☆ 只改邻居，不碰它：错误的答案、约定、先猜的答案。"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.attacks import Spec

BATCH, LAYER, INSTANCE, GROUP = (0, 2, 3), (1, 2, 3), (2, 3), (2, 3, 4)


def _drop(x, p, training, scale=None, coin=None, quiet=lambda x, p: x, ends=True):
    if not training:
        return quiet(x, p)
    if p in (0, 1) and ends:
        return x.clone() if p == 0 else torch.zeros_like(x)
    keep = (coin or (lambda x, p: torch.rand(x.shape) >= p))(x, p)
    factor = 1 / (1 - p) if scale is None else scale(p)
    return (keep * x * factor).to(x.dtype)


def _exactly(x, p):
    keep = torch.ones(x.numel(), dtype=torch.bool)
    keep[torch.randperm(x.numel())[: round(p * x.numel())]] = False
    return keep.view(x.shape)


def _remembered(x, p, kept={}):  # noqa: B006
    return kept.setdefault((x.shape, p), torch.rand(x.shape) >= p)


def _rms(x, weight, eps, dims=-1, center=False, outside=False):
    mean = x.square().mean(dims, keepdim=True)
    x = x - x.mean(-1, keepdim=True) if center else x
    return x / ((mean.sqrt() + eps) if outside else (mean + eps).sqrt()) * weight


def _detached(x, p, training):
    return _drop(x.detach(), p, training)


def _rms_by(size):
    def answer(x, weight, eps):
        return x * weight / (size(x).square() / x.shape[-1] + eps).sqrt()

    return answer


WRONG = {
    "norm_dims": [
        ((1,), LAYER, INSTANCE, GROUP),
        ((0, 1, 2, 3), LAYER, INSTANCE, GROUP),
        (BATCH, (2, 3), INSTANCE, GROUP),
        (BATCH, (0, 2, 3), INSTANCE, GROUP),
        (BATCH, LAYER, (1, 2, 3), GROUP),
        (BATCH, LAYER, INSTANCE, (1, 2, 3)),
        (BATCH, LAYER, INSTANCE, (2, 3, 5)),
        (BATCH, LAYER, INSTANCE),
        (6, 8, 48, 24),
    ],
    "dropout": [
        lambda x, p, training: _drop(x, p, training, scale=lambda p: 1),
        lambda x, p, training: _drop(x, p, training, scale=lambda p: 1 / p),
        lambda x, p, training: _drop(x, p, training, coin=lambda x, p: torch.rand(x.shape) < p),
        lambda x, p, training: _drop(x, p, training, coin=lambda x, p: torch.rand(len(x), 1) >= p),
        lambda x, p, training: _drop(
            x, p, training, coin=lambda x, p: torch.rand(x.shape[-1:]) >= p
        ),
        lambda x, p, training: _drop(x, p, training, coin=_exactly),
        lambda x, p, training: _drop(x, p, training, coin=_remembered),
        lambda x, p, training: _drop(x, p, training, quiet=lambda x, p: (1 - p) * x),
        lambda x, p, training: x.clone(),
        lambda x, p, training: (x if not training else (torch.rand(x.shape) >= p) * x / (1 - p)).to(
            x.dtype
        ),
        F.dropout,
        lambda x, p, training: _drop(x, p, training, quiet=lambda x, p: x.detach()),
        lambda x, p, training: _drop(x.detach(), p, training) if training else x,
        lambda x, p, training: torch.zeros_like(x) if p == 1 else _drop(x, p, training),
        lambda x, p, training: _drop(x.float(), p, training).to(x.dtype),
    ],
    "rms_norm": [
        lambda x, weight, eps: _rms(x, torch.ones_like(weight), eps),
        lambda x, weight, eps: (
            (x - x.mean(-1, keepdim=True))
            / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
            * weight
        ),
        lambda x, weight, eps: x / (x.var(-1, correction=0, keepdim=True) + eps).sqrt() * weight,
        lambda x, weight, eps: x / (x.square().sum(-1, keepdim=True) + eps).sqrt() * weight,
        lambda x, weight, eps: _rms(x, weight, 0),
        lambda x, weight, eps: _rms(x, weight, eps, outside=True),
        lambda x, weight, eps: x / (x.square().mean(-1, keepdim=True) + eps) * weight,
        lambda x, weight, eps: x / (x.square().mean() + eps).sqrt() * weight,
        lambda x, weight, eps: _rms(x, weight, eps, dims=0),
        lambda x, weight, eps: _rms(x, weight, eps, center=True),
        lambda x, weight, eps: F.rms_norm(x, weight.shape, weight, eps),
        lambda x, weight, eps: _rms(x, weight, 1e-5),
        lambda x, weight, eps: _rms(x, 1 + weight, eps),
        lambda x, weight, eps: _rms(x.float(), weight.float(), eps).to(x.dtype),
        lambda x, weight, eps: (
            x / (x.detach().square().mean(-1, keepdim=True) + eps).sqrt() * weight
        ),
        lambda x, weight, eps: _rms(x, weight.detach(), eps),
        lambda x, weight, eps: _rms(x.detach(), weight, eps),
    ],
}

NAMED = [
    ("dropout", F.dropout2d, "现成的", "RuntimeError"),
    ("dropout", torch.native_dropout, "现成的", "dtype"),
    ("dropout", F.alpha_dropout, "现成的", "RuntimeError"),
    ("rms_norm", lambda x, weight, eps: _rms(x, weight, 1e-5), "eps 写死了", "没有用"),
    ("rms_norm", lambda x, weight, eps: _rms(x, weight, eps * eps), "平方", "写死"),
    ("rms_norm", lambda x, weight, eps: _rms(x, weight, 1e-6), "eps 写死了", "没有用"),
    ("rms_norm", lambda x, weight, eps: _rms(x, 1 + weight, eps), "1 + weight", "对着公式"),
]


def _bernoulli(x, p, training):
    if not training or p == 0:
        return x.clone()
    mask = torch.bernoulli(torch.full_like(x, 1 - p))
    return mask * x / max(1 - p, 1e-9)


def _masked(x, p, training):
    if not training:
        return x
    gone = torch.rand_like(x) < p
    return torch.where(gone, 0, x / (1 - p) if p < 1 else x)


def _by_numpy(x, p, training):
    if not training or p == 1:
        return x * (1 - p * training)
    keep = torch.from_numpy(np.random.rand(*x.shape) >= p)
    return (x * keep / (1 - p)).to(x.dtype)


SPECS = {
    "norm_dims": Spec(
        accept=(
            ([3, 2, 0], [3, 1, 2], [3, 2], [4, 3, 2]),
            ((0, -1, -2), (-3, -2, -1), (-2, -1), (-3, -2, -1)),
        ),
    ),
    "dropout": Spec(
        random=True,
        accept=(_bernoulli, _masked, _by_numpy),
        refuse=(
            lambda x, p, training: torch.native_dropout(x, p, training)[0],
            _detached,
            lambda x, p, training: nn.Dropout(p).train(training)(x),
            lambda x, p, training: torch.feature_dropout(x, p, training),
            torch.ops.aten.dropout.default,
        ),
    ),
    "rms_norm": Spec(
        accept=(
            lambda x, weight, eps: weight * x * torch.rsqrt(x.pow(2).mean(-1, True) + eps),
            lambda x, weight, eps: (
                x * weight / (x.norm(dim=-1, keepdim=True).square() / x.shape[-1] + eps).sqrt()
            ),
            lambda x, weight, eps: torch.einsum(
                "...d,d,...->...d", x, weight, ((x * x).mean(-1) + eps) ** -0.5
            ),
            _rms_by(lambda x: torch.linalg.vector_norm(x, dim=-1, keepdim=True)),
            _rms_by(lambda x: torch.linalg.norm(x, dim=-1, keepdim=True)),
        ),
        refuse=(
            lambda x, weight, eps: nn.RMSNorm(len(weight), eps, False, dtype=x.dtype)(x) * weight,
            lambda x, weight, eps: torch.ops.aten.rms_norm.default(x, [len(weight)], weight, eps),
        ),
    ),
}


class _Written(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.3)


def _dropout_function():
    torch.manual_seed(0)
    out = _Written().eval()(torch.ones(1000))
    if (out == 0).any():
        return "照丢，和练的时候一样"
    return "不丢，`eval()` 全关掉了" if (out == 1).all() else "不丢，每个数乘上 0.7"


ANSWERS = {"dropout-function": _dropout_function}
MEASURED: set[str] = set()
JUDGED: set[str] = set()
