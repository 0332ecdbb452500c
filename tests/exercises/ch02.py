"""第 2 章各题的典型错误答案：类型和形状多半是对的，错的是提示里点名的那件事。"""

import sys

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


class _Var:
    """章节里那个 `Var` 的样子。"""

    def __init__(self, data, parents=(), rule=None):
        self.data, self.grad = data, None
        self.parents, self.rule = parents, rule or (lambda g: ())


def _tanh(a, share):
    out = a.data.tanh()
    return _Var(out, (a,), lambda g: (share(g, a.data, out),))


def _flat(last, twice=False, parents_last=False, whole=True):
    order, seen, stack = [], set(), [(last, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen or twice:
            seen.add(node)
            stack.append((node, True))
            stack += [(parent, False) for parent in node.parents]
    order = order[::-1] if parents_last else order
    return order if whole else order[:-1]


def _recursive_to_the_limit(last):
    order, seen = [], set()

    def visit(node):
        if node not in seen:
            seen.add(node)
            for parent in node.parents:
                visit(parent)
            order.append(node)

    visit(last)
    return order


def _by_level(last):
    order, layer = [], [last]  # 一层一层往前，见过的不再放
    while layer:
        order += layer
        layer = list(dict.fromkeys(p for n in layer for p in n.parents if p not in order))
    return order[::-1]


def _by_torch(x, Y, *params):
    w1, b1, w2, b2 = leaves = [p.clone().requires_grad_() for p in params]
    z = (x @ w1 + b1).relu() @ w2 + b2
    return torch.autograd.grad(F.cross_entropy(z, Y), leaves)


def _deeper_recursion(last):
    sys.setrecursionlimit(60_000)
    return _recursive_to_the_limit(last)


def _by_formula(x, Y, w1, b1, w2, b2, mean=True, sign=1, bent=True, edge=0.0, count=None):
    u = x @ w1 + b1
    h = u.relu()
    dz = sign * ((h @ w2 + b2).softmax(1) - Y) / (count or (len(x) if mean else 1))
    dh = dz @ w2.T
    slope = (u > 0).float() + edge * (u == 0)
    du = dh * slope if bent else dh
    return [x.T @ du, du.sum(0), h.T @ dz, dz.sum(0)]


def _budget(x, m, skip=True, factor=2, second=False, squared=True):
    d = (x[:, None] - m).square().sum(-1)
    gap = d - d.amin(1, keepdim=True)
    a = d.argmin(1)
    apart = (m[a][:, None] - m).abs().sum(-1)
    if second:
        b = d.topk(2, largest=False).indices[:, 1:]
        return (gap / (factor * apart)).gather(1, b)[:, 0]
    if not squared:
        gap = d.sqrt() - d.sqrt().amin(1, keepdim=True)
    eps = gap / (factor * apart)
    if not skip:
        return eps.nan_to_num(0).amin(1)
    return eps.masked_fill(F.one_hot(a, len(m)).bool(), float("inf")).amin(1)


def _mean_loss(batches, f, weigh=True, keep=False):
    total, count, kept = 0.0, 0, []
    for x, y in batches:
        loss = f(x, y)
        kept += [loss] if keep else []
        n = len(x) if weigh else 1
        total += loss.item() * n
        count += n
    return total / count


def _sqrt_twice(x, low=1.0):
    inner = torch.where(x > 0, x, torch.full_like(x, low))
    return torch.where(x > 0, inner.sqrt(), torch.zeros_like(x))


def _norms(f, w, x, y, size=lambda g: g.norm(), scale=1.0):
    leaf = w.detach().clone().requires_grad_()
    pairs = zip(x, y, strict=True)
    each = [torch.autograd.grad(f(leaf, a, b), leaf)[0] for a, b in pairs]
    return torch.stack([size(g) * scale for g in each])


def _piled_up(f, w, x, y):
    leaf, sizes = w.detach().clone().requires_grad_(), []
    for a, b in zip(x, y, strict=True):
        f(leaf, a, b).backward()
        sizes.append(leaf.grad.norm())
    return torch.stack(sizes)


def _mean_norm(f, w, x, y):
    leaf = w.detach().clone().requires_grad_()
    loss = sum(f(leaf, a, b) for a, b in zip(x, y, strict=True)) / len(x)
    return torch.autograd.grad(loss, leaf)[0].norm().expand(len(x)).clone()


def _no_graph(f, w, v):
    w = w.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(f(w), w)
    return torch.autograd.grad((g * v).sum(), w)[0]


def _hvp(f, w, v, graph=False, first=False, plain=False, ones=False):
    w = w.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(f(w), w, create_graph=True)
    if first:
        return (g * v).detach() if plain else g.detach()
    (Hv,) = torch.autograd.grad(g.sum() if ones else (g * v).sum(), w, create_graph=graph)
    return Hv if graph else Hv.detach()


def _whole_hessian(f, w, v):
    return (torch.autograd.functional.hessian(f, w) * v).sum((2, 3))


def _whole_by_rows(f, w, v):
    w = w.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(f(w), w, create_graph=True)
    rows = [torch.autograd.grad(part, w, retain_graph=True)[0] for part in g.flatten()]
    return (torch.stack(rows) * v).flatten(1).sum(1).view_as(w)


def _row_products(f, w, v):
    """没有造出 H，可是它的每一行都求过。"""
    w = w.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(f(w), w, create_graph=True)
    rows = (torch.autograd.grad(part, w, retain_graph=True)[0] for part in g.flatten())
    return torch.stack([(row * v).sum() for row in rows]).view_as(w)


def _by_func(f, w, v):
    return (torch.func.jacrev(torch.func.jacrev(f))(w) * v).sum((2, 3))


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
    "grad_shapes": [
        ((5, 3, 4), (5, 3, 4), (5, 3, 4)),  # 都和 c 同形状
        ((5, 1, 4), (5, 1, 4), (3, 1)),
        ((5, 3, 4), (5, 1, 4), (1, 3, 1)),
        ((5, 3, 4), (5, 4), (3, 1)),
        (5, 3, 4),
    ],
    "tanh": [
        lambda a: _tanh(a, lambda g, u, out: g * (1 - u * u)),
        lambda a: _tanh(a, lambda g, u, out: g * (1 - out)),
        lambda a: _tanh(a, lambda g, u, out: 1 - out * out),
        lambda a: _tanh(a, lambda g, u, out: g),
        lambda a: _Var(a.data.tanh(), (a,), lambda g: g * (1 - a.data.tanh() ** 2)),
        lambda a: _Var(a.data.tanh(), (), lambda g: ()),
        lambda a: a.data.tanh(),
    ],
    "in_order_flat": [
        lambda last: _flat(last, parents_last=True),
        lambda last: _flat(last, whole=False),
        _recursive_to_the_limit,
        _by_level,
        lambda last: [id(node) for node in _flat(last)],
        _deeper_recursion,
    ],
    "network_grads": [
        _by_torch,
        lambda *args: _by_formula(*args, mean=False),
        lambda *args: _by_formula(*args, sign=-1),
        lambda *args: _by_formula(*args, edge=1.0),  # 0 处给了 1
        lambda *args: _by_formula(*args, count=1000),
        lambda *args: _by_formula(*args)[::-1],
        lambda *args: _by_formula(*args)[:2],
    ],
    "smallest_budget": [
        lambda x, m: _budget(x, m, skip=False),
        lambda x, m: _budget(x, m, factor=1),
        lambda x, m: _budget(x, m, second=True),
        lambda x, m: _budget(x, m, squared=False),
    ],
    "mean_loss": [
        lambda batches, f: _mean_loss(batches, f, weigh=False),
        lambda batches, f: _mean_loss(batches, f, keep=True),
        lambda batches, f: torch.tensor(_mean_loss(batches, f)),
        lambda batches, f: 2 * _mean_loss(batches, f),
    ],
    "safe_sqrt": [
        lambda x: torch.where(x > 0, x.sqrt(), torch.zeros_like(x)),
        lambda x: x.clamp(min=1e-4).sqrt(),
        lambda x: _sqrt_twice(x).detach(),
        lambda x: (x.relu() + 1e-3).sqrt(),
        lambda x: _sqrt_twice(x) + 0.0 * x + (x - x.detach()).where(x <= 0, torch.zeros(())),
    ],
    "ste": [
        lambda x: x.round(),
        lambda x: (x + (x.round() - x)).detach(),
        lambda x: 2 * x + (x.round() - 2 * x).detach(),
        lambda x: x + ((x + 0.5).floor() - x).detach(),
    ],
    "per_sample_norms": [
        lambda f, w, x, y: _norms(f, w, x, y, size=lambda g: g.square().sum()),
        lambda f, w, x, y: _norms(f, w, x, y, size=lambda g: g.abs().sum()),
        lambda f, w, x, y: _norms(f, w, x, y, scale=1 / len(x)),
        _piled_up,
        _mean_norm,
        lambda f, w, x, y: _norms(f, w, x, y).requires_grad_(),
    ],
    "hvp": [
        lambda f, w, v: _hvp(f, w, v, first=True),
        lambda f, w, v: _hvp(f, w, v, first=True, plain=True),
        lambda f, w, v: _hvp(f, w, v, ones=True),
        lambda f, w, v: _hvp(f, w, v, graph=True),
        lambda f, w, v: (_hvp(f, w, v),),
        lambda f, w, v: 2 * _hvp(f, w, v),
        _no_graph,
        _whole_hessian,
        _row_products,
    ],
}

NAMED = [  # 题名，答错的样子，✗ 后面应有和不应有的话
    ("hvp", _whole_hessian, "造出了整个 H", "每一行"),
    ("hvp", _whole_by_rows, "造出了整个 H", "每一行"),
    ("hvp", _by_func, "造出了整个 H", "每一行"),
    ("hvp", _row_products, "每一行都求了一遍", "整个"),
]
