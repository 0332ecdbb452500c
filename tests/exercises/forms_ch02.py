"""第 2 章各题答案的写法：照默认的参数是对的，拨动一个，就错在一处。"""

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


def _tanh(a, share, parent=None, pack=lambda share: (share,)):
    out = a.data.tanh()
    return _Var(out, (parent or a,), lambda g: pack(share(g, a.data, out)))


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


def _never_seen(last):
    """栈写对了，忘了记见过谁：翻倍 40 次的账本要走 2⁴⁰ 步。"""
    order, placed, stack = [], set(), [(last, False)]
    while stack:
        node, ready = stack.pop()
        if not ready:
            stack.append((node, True))
            stack += [(parent, False) for parent in node.parents]
        elif node not in placed:
            placed.add(node)
            order.append(node)
    return order


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


def _budget_without_ties(x, m):
    d = (x[:, None] - m).square().sum(-1)
    apart = (m[d.argmin(1)][:, None] - m).abs().sum(-1)
    eps = (d - d.amin(1, keepdim=True)) / (2 * apart)
    return eps.masked_fill(~(eps > 0), float("inf")).amin(1)


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


def _loss_by_backward(batches, f):
    """多走了一遍账：f 里的参数身上留下了斜率。"""
    total = count = 0
    for x, y in batches:
        loss = f(x, y)
        loss.backward()
        total, count = total + loss.item() * len(x), count + len(x)
    return total / count


def _one_big_batch(batches, f):
    return f(*(torch.cat(parts) for parts in zip(*batches, strict=True))).item()


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


def _toward(x, m, k, eps, steps, sign=-1, stride=None, clip=True, raw=False, own=False, count=None):
    start = x = x.detach()
    for _ in range(steps if count is None else count):
        leaf = x.clone().requires_grad_()
        z = -(leaf[:, None] - m).square().sum(-1) / 100
        asked = z.argmax(1) if own else torch.full((len(x),), k)
        (g,) = torch.autograd.grad(F.cross_entropy(z, asked), leaf)
        x = x + sign * (stride or eps / steps) * (g if raw else g.sign())
        x = x.clamp(0, 16) if clip else x
    assert x.shape == start.shape
    return x


def _clip(x, limit, shorten=None, on_copy=True):
    out = x.clone() if on_copy else x
    shorten = shorten or (lambda g: g * (limit / g.norm()).clamp(max=1))
    out.register_hook(shorten)
    return out.clone()


class _ClipRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, limit):
        ctx.limit = limit
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        size = g.norm()
        return (g if size <= ctx.limit else g * ctx.limit / size), None


def _lesson(learn, exam, w, lesson, rate, sign=-1, graph=True, keep=False):
    w = w.detach().clone().requires_grad_()
    lesson = lesson.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(learn(w, lesson), w, create_graph=graph)
    return torch.autograd.grad(exam(w + sign * rate * g), lesson, create_graph=keep)[0]


def _direct(learn, exam, w, lesson, rate):
    lesson = lesson.detach().clone().requires_grad_()
    return torch.autograd.grad(learn(w, lesson), lesson)[0]


def _times(a, b):
    return _Var(a.data * b.data, (a, b), lambda g: (g * b.data, g * a.data))


def _plus(a, b):
    return _Var(a.data + b.data, (a, b), lambda g: (g, g))


def _is(var, *right):
    return var.grad is not None and torch.equal(
        var.grad, torch.tensor(right if right[1:] else right[0])
    )


def _audit(backward, inner=True, stretched=True, values=True, shapes=True):
    a, b = _Var(torch.tensor(2.0)), _Var(torch.tensor(3.0))
    c = _times(a, b)
    last = _times(c, _plus(c, a)) if inner else _plus(c, a)
    backward(last)
    good = _is(a, 48.0 if inner else 4.0) and _is(b, 28.0 if inner else 2.0)
    if not stretched:
        return good
    row, column = _Var(torch.ones(3)), _Var(torch.full((2, 1), 5.0))
    backward(_times(row, column))
    if shapes:
        good = good and row.grad.shape == (3,) and column.grad.shape == (2, 1)
    return good and (not values or bool((row.grad == 10).all()))


def _only_leaves_meet(backward):
    return _audit(backward, inner=False)


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
