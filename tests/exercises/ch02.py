"""第 2 章各题的典型错误答案：类型和形状多半是对的，错的是提示里点名的那件事。"""

import torch
import torch.nn.functional as F


def _numeric(f, x, h=1e-4, ahead=1, behind=1, width=None, everywhere=False):
    grad = torch.zeros_like(x)
    for i in range(x.numel()):
        e = torch.full_like(x, h) if everywhere else torch.zeros_like(x)
        e.view(-1)[i] = h
        rise = f(x + ahead * e) - f(x - behind * e)
        grad.view(-1)[i] = rise / (width or (ahead + behind) * h)
    return grad


def _step(w, f, rate, sign=1, clear=True, again=False, after=False, moved=True):
    if clear:
        w.grad = None
    loss = f(w)
    loss.backward()
    with torch.no_grad():
        if moved:
            w -= sign * rate * w.grad
        else:
            w = w - rate * w.grad
    if after:
        loss = f(w)
    w.grad = None if not again else w.grad
    return loss.item()


def _swapped(w, f, rate):
    loss = f(w)
    (g,) = torch.autograd.grad(loss, w)
    w.data = w.data - rate * g
    w.grad = None
    return loss.item()


def _attack(x, m, y, eps, sign=1, clip=True, raw=False, shared=False):
    z = x.detach().clone().requires_grad_()
    loss = F.cross_entropy(-(z[:, None] - m).square().sum(-1) / 100, y)
    (g,) = torch.autograd.grad(loss, z)
    g = g.sum(0).expand_as(g) if shared else g
    moved = x + sign * eps * (g if raw else g.sign())
    return moved.clamp(0, 16).detach() if clip else moved.detach()


def _leaves_grads(x, m, y, eps):
    z = x.detach().clone().requires_grad_()
    m.requires_grad_()
    F.cross_entropy(-(z[:, None] - m).square().sum(-1) / 100, y).backward()
    return (z + eps * z.grad.sign()).clamp(0, 16).detach()


WRONG = {
    "numeric_grad": [
        lambda f, x, h=1e-4: _numeric(f, x, h, behind=0),  # 只走一头
        lambda f, x, h=1e-4: _numeric(f, x, h, width=h),  # 除以 h
        lambda f, x, h=1e-4: -_numeric(f, x, h),
        lambda f, x, h=1e-4: _numeric(f, x, h, everywhere=True),
        lambda f, x, h=1e-4: _numeric(f, x, 1e-4),  # 不理 h
    ],
    "step": [
        lambda w, f, rate: _step(w, f, rate, sign=-1),
        lambda w, f, rate: _step(w, f, rate, clear=False),
        lambda w, f, rate: _step(w, f, rate, again=True),
        lambda w, f, rate: _step(w, f, rate, after=True),
        lambda w, f, rate: _step(w, f, rate, moved=False),
        _swapped,
    ],
    "ledger": [
        (2, 4, 8),  # 只数一份
        (2, 4, 14),
        (1, 4, 16),
        (2, 2, 16),
        (2, 4),
        "abc",
    ],
    "fgsm": [
        lambda *args: _attack(*args, sign=-1),
        lambda *args: _attack(*args, clip=False),
        lambda *args: _attack(*args, raw=True),
        lambda *args: _attack(*args, shared=True),
        lambda x, m, y, eps: _attack(x, m, y, 2 * eps),
        _leaves_grads,
    ],
}
