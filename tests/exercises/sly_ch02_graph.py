"""第 2 章后几节钻空子的错误答案，接着 `sly_ch02`。"""

import torch
import torch.nn.functional as F

from tests.exercises.forms_ch02 import (
    _by_formula,
    _by_torch,
    _clip,
    _mean_loss,
    _norms,
    _sqrt_twice,
)

# —— network_grads ——


def _unwatched(*args):
    with torch._C.DisableTorchFunction():
        return _by_torch(*args)


def _straight_to_the_engine(x, Y, *params):
    leaves = tuple(p.clone().requires_grad_() for p in params)
    w1, b1, w2, b2 = leaves
    loss = F.cross_entropy((x @ w1 + b1).relu() @ w2 + b2, Y)
    run = torch.autograd.Variable._execution_engine.run_backward
    ones, options = (torch.ones(()),), {"accumulate_grad": False}
    return list(run((loss,), ones, False, False, leaves, False, **options))


def _squeezed(x, Y, w1, b1, w2, b2):
    """只有一张图时，少了一维。"""
    u = x @ w1 + b1
    dz = (((u.relu() @ w2 + b2).softmax(1) - Y) / len(x)).squeeze(0)
    du = (dz @ w2.T) * (u > 0)
    return [x.T @ du, du.sum(0), u.relu().T @ dz, dz.sum(0)]


def _recorded_grads(*args):
    return [g.clone().requires_grad_() * 1 for g in _by_formula(*args)]


def _squared_loss(x, Y, w1, b1, w2, b2):
    u = x @ w1 + b1
    dz = (u.relu() @ w2 + b2 - Y) / len(x)
    du = (dz @ w2.T) * (u > 0)
    return [x.T @ du, du.sum(0), u.relu().T @ dz, dz.sum(0)]


# —— mean_loss ——


def _keeps_the_first(batches, f):
    first = f(*batches[0])
    total, count = first.item() * len(batches[0][0]), len(batches[0][0])
    for x, y in batches[1:]:
        total, count = total + f(x, y).item() * len(x), count + len(x)
    return total / count


def _same_batch_for_ever(batches, f):
    i = total = 0
    while i < len(batches):  # 忘了 i += 1
        total += f(*batches[i]).item()
    return total


def _two_digits(batches, f):
    return round(_mean_loss(batches, f), 2)


# —— safe_sqrt、clip_slope、ste ——


class _RootWithoutG(torch.autograd.Function):
    """规则漏了传来的 g。"""

    @staticmethod
    def forward(ctx, x):
        root = x.clamp(min=0).sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx, g):
        (root,) = ctx.saved_tensors
        return torch.where(root > 0, 0.5 / root, torch.zeros_like(root))


def _hook_on_the_input(x):
    x.register_hook(lambda g: g.nan_to_num(0, 0, 0))
    return torch.where(x > 0, x.sqrt(), torch.zeros_like(x))


def _from_a_threshold(x):
    return torch.where(x > 1e-30, _sqrt_twice(x.clamp(min=1e-30)), torch.zeros_like(x))


def _shorten(g, limit):
    return g * (limit / g.norm()).clamp(max=1)


def _shortened_in_place(x, limit):
    return _clip(x, limit, lambda g: g.mul_(min(1.0, limit / max(g.norm().item(), 1e-9))))


def _only_once(x, limit):
    out = x.clone()

    def shorten(g):
        handle.remove()
        return _shorten(g, limit)

    handle = out.register_hook(shorten)
    return out


def _limit_in_a_global(x, limit):
    global last_limit
    last_limit = limit
    return _clip(x, limit, lambda g: _shorten(g, last_limit))


def _spectral(x, limit):
    return _clip(x, limit, lambda g: g * (limit / torch.linalg.norm(g, 2)).clamp(max=1))


def _row_by_row(x, limit):
    return _clip(x, limit, lambda g: g * (limit / g.norm(dim=-1, keepdim=True)).clamp(max=1))


def _divides_by_zero(x, limit):
    return _clip(x, limit, lambda g: g * min(1.0, limit / g.norm().item()))


class _RoundRule(torch.autograd.Function):
    """值和斜率都对，可是题里说不写 Function。"""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


def _inside_a_window(x):
    near = x.clamp(-12, 12)
    return near + (x.round() - near).detach()


def _another_leaf(x):
    return x.detach().round().requires_grad_()


# —— per_sample_norms、hvp、lesson_slope ——


def _two_axes(f, w, x, y):
    each = torch.stack([_slope(f, w, one, answer) for one, answer in zip(x, y, strict=True)])
    return each.norm(dim=(1, 2))


def _slope(f, w, one, answer):
    w = w.detach().clone().requires_grad_()
    return torch.autograd.grad(f(w, one, answer), w)[0]


def _answers_backwards(f, w, x, y):
    return _norms(f, w, x, y.flip(0))


def _by_trace(f, w, v):
    w = w.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(f(w), w, create_graph=True)
    return torch.autograd.grad(torch.trace(g.mT @ v), w)[0]


def _sum_of_two_axes(f, w, v):
    w = w.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(f(w), w, create_graph=True)
    return torch.autograd.grad((g * v).sum((0, 1)), w)[0]


def _zeros_for_unused(learn, exam, w, lesson, rate):
    w, lesson = (t.detach().clone().requires_grad_() for t in (w, lesson))
    (g,) = torch.autograd.grad(learn(w, lesson), w)
    return torch.autograd.grad(exam(w - rate * g), lesson, materialize_grads=True)[0]


def _none_for_unused(learn, exam, w, lesson, rate):
    w, lesson = (t.detach().clone().requires_grad_() for t in (w, lesson))
    (g,) = torch.autograd.grad(learn(w, lesson), w)
    return torch.autograd.grad(exam(w - rate * g), lesson, allow_unused=True)[0]


INFINITE = float("inf")
REFUSE = {
    "network_grads": (
        _unwatched,
        _straight_to_the_engine,
        _squeezed,
        _recorded_grads,
        _squared_loss,
    ),
    "kept_bytes": (("25600", "12800", "0"), (INFINITE, 0, 0), {25600: 1, 12800: 2, 0: 3}),
    "mean_loss": (_keeps_the_first, _two_digits, _same_batch_for_ever),
    "safe_sqrt": (_RootWithoutG.apply, _hook_on_the_input, _from_a_threshold),
    "clip_slope": (
        _shortened_in_place,
        _only_once,
        _limit_in_a_global,
        lambda x, limit: _clip(x.float(), limit).to(x.dtype),
        lambda x, limit: _clip(x, limit) + 1e-7,
        _spectral,
        _row_by_row,
        _divides_by_zero,
        lambda x, limit: _clip(x, limit, lambda g: g.reshape(-1)),
    ),
    "ste": (
        _RoundRule.apply,
        _inside_a_window,
        lambda x: (x.float() + (x.round() - x).detach().float()).to(x.dtype),
        lambda x: (x + 12582912.0) - 12582912.0,  # 加到尾数只剩整数，再减回来
        _another_leaf,
    ),
    "per_sample_norms": (_two_axes, _answers_backwards),
    "best_rate": (("0.222", "0.2", "0.8"), {0.222: 0, 0.2: 0, 0.8: 0}),
    "lesson_slope": (_zeros_for_unused, _none_for_unused),
    "hvp": (_by_trace, _sum_of_two_axes),
}

NAMED = [
    ("network_grads", _squared_loss, "第二层", "relu"),
    ("network_grads", _unwatched, "自动求导", "出错"),
    ("network_grads", _recorded_grads, "连着账本", "不对"),
    ("kept_bytes", (INFINITE, 0, 0), "矩阵乘的不对", "OverflowError"),
    ("mean_loss", _keeps_the_first, "还活着", "拼"),
    ("mean_loss", _same_batch_for_ever, "停不下来", "出错"),
    ("safe_sqrt", _RootWithoutG.apply, "传来的", "nan"),
    ("safe_sqrt", _hook_on_the_input, "钩子", "nan"),
    ("clip_slope", _shortened_in_place, "就地", "超过 limit"),
    ("clip_slope", _only_once, "第二次", "超过 limit"),
    ("clip_slope", _limit_in_a_global, "两个", "检查时"),
    ("clip_slope", _spectral, "谱范数", "检查时"),
    ("clip_slope", _row_by_row, "一行一行", "检查时"),
    ("clip_slope", _divides_by_zero, "往回走时", "检查时"),
    ("ste", _RoundRule.apply, "Function", "值不对"),
    ("ste", _another_leaf, "断开了账本", "检查时"),
    ("lesson_slope", _none_for_unused, "allow_unused", "backward"),
    ("lesson_slope", _zeros_for_unused, "create_graph", "不对："),
]
