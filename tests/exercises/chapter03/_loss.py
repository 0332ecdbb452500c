"""☆ 损失一节：典型错误、约定；损失、起步两节先猜的答案。"""

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


def _by_numpy(a, b, delta=1.0):
    return torch.as_tensor(_huber(torch.from_numpy(a.numpy()), b, delta))


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


def _in_single(f):
    """里面全用 float32 算，出来再转回去。"""
    return lambda a, b, *rest: f(a.float(), b.float(), *rest).to(a.dtype)


def _held(z, y, top=20.0):
    return _bce(z.clamp(-top, top), y)


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
        lambda a, b, delta=1.0: _in_single(_huber)(a, b, delta),
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
        _in_single(_bce),
        _held,
        lambda z, y: _held(z, y, 200.0),
    ],
}

NAMED = [
    ("huber", lambda a, b, delta=1.0: _by_numpy(a, b, delta), "别转成 NumPy", "Can't call"),
    ("bce_with_logits", _held, "截", "装不下"),
    ("bce_with_logits", lambda z, y: _held(z, y, 200.0), "截", "装不下"),
    ("bce_with_logits", lambda z, y: _held(z, y, 4.0), "截在了 ±4", "值不对"),
    ("bce_with_logits", lambda z, y: _bce(z.clamp(min=-50), y), "截住", "±500"),
    ("bce_with_logits", F.multilabel_soft_margin_loss, "现成的", "不对"),
]

SPECS = {
    "three_centres": Spec(accept=([20.0, 1.0, 1.5],)),
    "huber": Spec(
        accept=(_huber, _by_clamp),
        refuse=(
            lambda a, b, delta=1.0: delta * F.smooth_l1_loss(a, b, beta=delta),
            lambda a, b, delta=1.0: nn.HuberLoss(delta=delta)(a, b),
            lambda a, b, delta=1.0: torch.ops.aten.huber_loss.default(a, b, 1, delta),
        ),
    ),
    "bce_with_logits": Spec(
        section=("by_parts", "at_once"),
        accept=(_two_halves, lambda z, y: (F.softplus(z) - y * z).mean()),
        refuse=(
            _padded,
            _overflowing,
            lambda z, y: nn.BCEWithLogitsLoss()(z, y),
            lambda z, y: F.multilabel_soft_margin_loss(z.view(-1, 1), y.view(-1, 1)),
            lambda z, y: nn.MultiLabelSoftMarginLoss()(z, y),
        ),
    ),
}


def _slope_of_the_worst():
    z = torch.tensor(-100.0, requires_grad=True)
    F.binary_cross_entropy(z.sigmoid(), torch.tensor(1.0)).backward()
    return {0.0: "0，一点也不推", -1.0: "−1，推满了"}.get(z.grad.item(), "")


ANSWERS = {"worst-sample": _slope_of_the_worst}
MEASURED = {"which-medicine"}  # 六个网络各练四遍，章节里的断言量它
JUDGED: set[str] = set()
