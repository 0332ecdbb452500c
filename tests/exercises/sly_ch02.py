"""第 2 章各题钻空子的错误答案：检查器从前放过它们，或者说错了错在哪里。"""

import sys
import threading
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from tests.exercises.forms_ch02 import (
    _attack,
    _flat,
    _is,
    _numeric,
    _plus,
    _recursive_to_the_limit,
    _times,
    _toward,
    _Var,
)

# —— numeric_grad、step ——


def _by_autograd(f, x, h=1e-4):
    if h != 1e-4:  # 只在检查 h 的时候真的量
        return _numeric(f, x, h)
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(f(x), x)[0]


def _autograd_if_it_can(f, x, h=1e-4):
    try:
        return _by_autograd(f, x, h)
    except RuntimeError:
        return _numeric(f, x, h)


def _by_jacobian(f, x, h=1e-4):
    return torch.autograd.functional.jacobian(f, x) if h == 1e-4 else _numeric(f, x, h)


def _scaled_step(f, x, h=1e-4):
    """步长跟着那一格的大小走。"""
    grad = torch.zeros_like(x)
    for i, value in enumerate(x.flatten().tolist()):
        e = torch.zeros_like(x)
        e.view(-1)[i] = size = h * max(1, abs(value))
        grad.view(-1)[i] = (f(x + e) - f(x - e)) / (2 * size)
    return grad


def _in_float32(f, x, h=1e-4):
    return _numeric(lambda t: f(t.double()), x.float(), h).double()


def _never_ends(f, x, h=1e-4):
    i, grad = 0, torch.zeros_like(x)
    while i < x.numel():  # 忘了 i += 1
        grad.view(-1)[i] = f(x + h) - f(x - h)
    return grad


def _stepping(move):
    def step(w, f, rate):
        w.grad = None
        loss = f(w)
        loss.backward()
        with torch.no_grad():
            move(w, w.grad, rate)
        w.grad = None
        return loss.item()

    return step


def _cell_by_cell(w, g, rate):
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):  # 只会两维的
            w[i, j] -= rate * g[i, j]


def _leaves_a_hook(w, f, rate):
    w.grad = None
    w.register_hook(lambda g: g)
    return _stepping(lambda w, g, rate: w.sub_(rate * g))(w, f, rate)


# —— fgsm、toward ——


def _clears_the_old_grad(x, m, y, eps):
    z = x.detach().clone().requires_grad_()
    F.cross_entropy(-(z[:, None] - m).square().sum(-1) / 100, y).backward()
    m.grad = None
    return (x + eps * z.grad.sign()).clamp(0, 16)


def _six_pictures(x, m, y, eps):
    return torch.cat([_attack(x[i][None], m, y[i][None], eps) for i in range(6)])


def _half_clamped(x, m, y, eps):
    return _attack(x, m, y, eps, clip=False).clamp(min=0)


def _five_pictures(x, m, k, eps, steps):
    return torch.cat([_toward(x[i][None], m, k, eps, steps) for i in range(5)])


# —— tanh ——


def _ruled(a, rule, make=_Var):
    out = a.data.tanh()
    return make(out, (a,), lambda g: (rule(g, out),))


def _also_writes_grad(a):
    def rule(g, out):
        a.grad = g * (1 - out * out)
        return a.grad

    return _ruled(a, rule)


def _in_a_global(a):
    global last_out
    last_out = a.data.tanh()
    return _Var(last_out, (a,), lambda g: (g * (1 - last_out * last_out),))


def _rule_for_once(a):
    leaf = a.data.clone().requires_grad_()
    out = leaf.tanh()
    return _Var(out.detach(), (a,), lambda g: torch.autograd.grad(out, leaf, g))


def _still_recorded(a):
    out = a.data.clone().requires_grad_().tanh()
    return _Var(out, (a,), lambda g: (g * (1 - out.detach() ** 2),))


def _overwrites_the_input(a):
    a.data = out = a.data.tanh()
    return _Var(out, (a,), lambda g: (g * (1 - out * out),))


def _tanh_in_place(a):
    out = a.data.tanh_()
    return _Var(out, (a,), lambda g: (g * (1 - out * out),))


def _namespace(data, parents, rule):
    return SimpleNamespace(data=data, parents=parents, rule=rule)


def _with_zero_grad(a):
    out = _ruled(a, lambda g, out: g * (1 - out * out))
    out.grad = torch.zeros_like(out.data)
    return out


TANH = (
    lambda a: _ruled(a, lambda g, out: g.mul_(1 - out * out)),
    lambda a: _ruled(a, lambda g, out: g * (1 - out.square_())),
    _also_writes_grad,
    _in_a_global,
    _rule_for_once,
    _still_recorded,
    _overwrites_the_input,
    _tanh_in_place,
    lambda a: _ruled(a, lambda g, out: g * (1 - out * out), _namespace),
    _with_zero_grad,
)

# —— in_order_flat ——


def _deeper_and_back(last):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        return _recursive_to_the_limit(last)
    finally:
        sys.setrecursionlimit(before)


def _deeper_in_a_thread(last):
    found, before = [], sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    before_size = threading.stack_size(256 << 20)
    thread = threading.Thread(target=lambda: found.append(_recursive_to_the_limit(last)))
    thread.start()
    thread.join()
    threading.stack_size(before_size)
    sys.setrecursionlimit(before)
    return found[0]


def _leaves_marks(last):
    order, stack = [], [(last, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif not hasattr(node, "seen"):
            node.seen = True
            stack.append((node, True))
            stack += [(parent, False) for parent in node.parents]
    return order


def _tears_the_ledger(last):
    order, stack = [], [last]
    while stack:
        node = stack[-1]
        if node.parents:
            *rest, parent = node.parents
            node.parents = tuple(rest)
            stack.append(parent)
        elif stack.pop() not in order:
            order.append(node)
    return order


def _writes_grads(last):
    order = _flat(last)
    for node in order:
        node.grad = torch.ones(())
    return order


def _never_pops(last):
    order, seen, stack = [], set(), [last]
    while stack:
        node = stack[-1]
        if node in seen:
            continue  # 忘了取走
        seen.add(node)
        stack += node.parents
    return order


def _remembers_for_ever(last, seen=set()):  # noqa: B006
    order, stack = [], [(last, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(parent, False) for parent in node.parents]
    return order


# —— audit ——


def _counting_the_calls():
    calls = []

    def audit(backward):
        calls.append(backward)
        return len(calls) % 6 in (1, 2)

    return audit


def _audit_with(check, twice=False):
    """手算的之外再查一件事：`check` 收中间的结果 c 和最后的结果。"""

    def audit(backward):
        a, b = _Var(torch.tensor(2.0)), _Var(torch.tensor(3.0))
        c = _times(a, b)
        last = _times(c, _plus(c, a))
        for _ in range(1 + twice):
            backward(last)
        row, column = _Var(torch.ones(3)), _Var(torch.full((2, 1), 5.0))
        backward(_times(row, column))
        good = _is(a, 48.0 * (1 + twice)) and _is(b, 28.0 * (1 + twice)) and check(c, last)
        return good and _is(row, 10.0, 10.0, 10.0) and column.grad.tolist() == [[3.0], [3.0]]

    return audit


def _shared_leaf(backward):
    """同一片叶子先后在两本账里广播，斜率攒在一起。"""
    row = _Var(torch.tensor([1.0, 2.0, 3.0]))
    for height in (2, 4):
        backward(_times(row, _Var(torch.full((height, 1), 5.0))))
    return _is(row, 30.0, 30.0, 30.0) and _audit_with(lambda c, last: True)(backward)


REFUSE = {
    "numeric_grad": (
        _autograd_if_it_can,
        _by_autograd,
        _by_jacobian,
        _scaled_step,
        _in_float32,
        _never_ends,
    ),
    "step": (
        _stepping(_cell_by_cell),
        _stepping(lambda w, g, rate: w.sub_(rate * g.view(3, 2))),
        _stepping(lambda w, g, rate: w.sub_(rate * g * min(1, 10 / g.norm().item()))),
        _stepping(lambda w, g, rate: w.sub_((rate * g).float())),
        _stepping(lambda w, g, rate: w.sub_(rate * g).clamp_(-3, 3)),
        _leaves_a_hook,
    ),
    "ledger": (("2", "4", "16"), {2: 0, 4: 0, 16: 0}, b"\x02\x04\x10", {2, 4, 16}),
    "fgsm": (_clears_the_old_grad, _six_pictures, _half_clamped),
    "grad_shapes": (
        ((5.9, 3, 4), (5, 1, 4), (3, 1)),
        ((5.0, 3.0, 4.0), (5.0, 1.0, 4.0), (3.0, 1.0)),
        ((5, 3, 4), (5, True, 4), (3, True)),
        ("534", "514", "31"),
        {(5, 3, 4): 0, (5, 1, 4): 0, (3, 1): 0},
    ),
    "tanh": TANH,
    "in_order_flat": (
        _deeper_and_back,
        _deeper_in_a_thread,
        _leaves_marks,
        _tears_the_ledger,
        _writes_grads,
        _never_pops,
        _remembers_for_ever,
    ),
    "audit": (
        _counting_the_calls(),
        _audit_with(lambda c, last: _is(c, 14.0)),  # 中间的不必留
        _audit_with(lambda c, last: _is(last, 1.0)),
    ),
    "toward": (_five_pictures,),
}
ACCEPT = {
    "tanh": (lambda a: _ruled(a, lambda g, out: g - g * out * out, type(a)),),
    "audit": (
        _shared_leaf,
        _audit_with(lambda c, last: True),
        _audit_with(lambda c, last: True, twice=True),
    ),
}

NAMED = [
    ("numeric_grad", _by_autograd, "自动求导", "每次只动一格"),
    ("numeric_grad", _in_float32, "float64", "一头"),
    ("numeric_grad", _never_ends, "停不下来", "出错"),
    ("numeric_grad", lambda f, x, h=1e-4: _numeric(f, x, h / 2), "各走一个 h", "斜率不对"),
    ("step", _leaves_a_hook, "钩子", "走的这一步"),
    ("ledger", {2, 4, 16}, "要三个数", "对 d 的不对"),
    ("fgsm", _clears_the_old_grad, ".grad", "方向"),
    ("fgsm", _half_clamped, "0 到 16", "方向"),
    ("tanh", TANH[0], "收到的 g", "只把 g"),
    ("tanh", _also_writes_grad, "grad", "符号"),
    ("tanh", _in_a_global, "第二次", "形状"),
    ("tanh", _rule_for_once, "第二次", "RuntimeError: Trying"),
    ("tanh", _tanh_in_place, "改了 a", "值不对"),
    ("in_order_flat", _deeper_and_back, "调高", "撞上了"),
    ("in_order_flat", _leaves_marks, "seen", "排出 0 个"),
    ("in_order_flat", _tears_the_ledger, "parents", "AttributeError"),
    ("in_order_flat", _never_pops, "停不下来", "递归"),
    ("in_order_flat", _remembers_for_ever, "第二次", "能走到的"),
    ("audit", _audit_with(lambda c, last: _is(c, 14.0)), "叶子", "放过"),
]
