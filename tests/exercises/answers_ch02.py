"""第 2 章每道先猜的答案，由 torch 当场算出；写成与题目选项相同的文字。"""

from functools import cache

import torch
import torch.nn.functional as F

from companion.data import load_digits

JUDGED: set[str] = set()
MEASURED = {"transfer"}  # 要先画出那十张图，章节里的断言量它


@cache
def _digits():
    images, labels = load_digits()
    x, x_new = images.flatten(1).float().split([1000, 797])
    y, y_new = labels.split([1000, 797])
    return x, y, x_new, y_new, torch.stack([x[y == k].mean(0) for k in range(10)])


def _loss(x, m, y):
    return F.cross_entropy(-(x[:, None] - m).square().sum(-1) / 100, y)


def _smaller_step():
    x, y, *_, m = _digits()

    def error(h):
        ends = m.repeat(2, 1, 1)
        ends[0, 2, 13] += h
        ends[1, 2, 13] -= h
        measured = (_loss(x, ends[0], y) - _loss(x, ends[1], y)) / (2 * h)
        return abs(measured / true - 1)

    leaf = m.clone().requires_grad_()
    _loss(x, leaf, y).backward()
    true = leaf.grad[2, 13]
    return "1e-2 准得多，1e-6 全错" if error(1e-2) < 0.01 and error(1e-6) > 0.5 else "差不多"


def _passes():
    x, y, *_, m = _digits()
    runs, leaf = [], m.clone().requires_grad_()

    def counted(m):
        runs.append(m)
        return _loss(x, m, y)

    counted(leaf).backward()
    assert leaf.grad.numel() == 640
    return f"{len(runs)} 遍"


def _second_round():
    x, y, *_, m = _digits()
    m = m.clone().requires_grad_()
    _loss(x, m, y).backward()
    m = m - 100 * m.grad
    return "照常，损失接着降" if m.is_leaf else "报错，`m.grad` 是 None"


def _broadcast():
    x = torch.randn(1000, 64)
    m = torch.randn(10, 64, requires_grad=True)
    g = torch.randn(1000, 10, 64)
    (x[:, None] - m).backward(g)
    summed = torch.allclose(m.grad, -g.sum(0), atol=1e-4)
    return f"{tuple(m.grad.shape)}，第 0 维{'求和' if summed else '求平均'}，再变号"


@cache
def _learned():
    x, y, *_, m = _digits()
    for _ in range(200):
        m = m.detach().requires_grad_()
        m = m - 100 * torch.autograd.grad(_loss(x, m, y), m)[0]
    return m.detach()


def _right_after(m):
    _, _, x_new, y_new, _ = _digits()
    t = x_new.clone().requires_grad_()
    (g,) = torch.autograd.grad(_loss(t, m, y_new), t)
    moved = (x_new + 2 * g.sign()).clamp(0, 16)
    return ((moved[:, None] - m).square().sum(-1).argmin(1) == y_new).float().mean()


def _safer():
    faces = _digits()[-1]
    gained = _right_after(_learned()) - _right_after(faces)
    return "平均脸" if gained < -0.05 else "学过的，认得准的更难骗"


def _drawn():
    m, picture = _learned(), torch.zeros(1, 64)
    x = _digits()[0]
    for _ in range(40):
        t = picture.clone().requires_grad_()
        (g,) = torch.autograd.grad(_loss(t, m, torch.tensor([3])), t)
        picture = (picture - 0.5 * g.sign()).clamp(0, 16)
    sure = (-(picture[:, None] - m).square().sum(-1) / 100).softmax(1)[0, 3]
    far = torch.cdist(picture, x).min() > 2 * torch.cdist(x[:50], x[50:]).amin(1).mean()
    return "越来越有把握，不像真的 3" if sure > 0.999 and far else "越来越像 3，也越来越有把握"


def _noise():
    _, _, x_new, y_new, _ = _digits()
    generator = torch.Generator().manual_seed(1)
    toss = torch.randint(0, 2, x_new.shape, generator=generator) * 2 - 1
    moved = (x_new + 2 * toss).clamp(0, 16)
    right = (moved[:, None] - _learned()).square().sum(-1).argmin(1) == y_new
    return f"{92 if 0.9 < right.float().mean() < 0.935 else 0}% 上下"


def _kept(f):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.nbytes) or t.detach(), lambda t: t
    ):
        f()
    return sum(kept)


def _savers():
    v = torch.rand(10, requires_grad=True)
    ops = {"v + 1": lambda: v + 1, "v * v": lambda: v * v, "v.exp()": v.exp, "v.sum()": v.sum}
    return " 和 ".join(f"`{name}`" for name, f in ops.items() if _kept(f))


def _masked():
    t = torch.tensor(0.0, requires_grad=True)
    torch.where(t > 0, t.sqrt(), torch.zeros(())).backward()
    return str(t.grad.item())


def _wrong_still_learns():
    x, y, *_ = _digits()

    class Flat(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            out = u.tanh()
            ctx.save_for_backward(out)
            return out

        @staticmethod
        def backward(ctx, g):
            return g * (1 - ctx.saved_tensors[0])

    generator = torch.Generator().manual_seed(3)
    params = [torch.randn(s, generator=generator) * 0.15 for s in ((64, 32), (32, 10))]
    losses = []
    for _ in range(200):
        params = [p.detach().requires_grad_() for p in params]
        loss = F.cross_entropy(Flat.apply(x / 16 @ params[0]) @ params[1], y)
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, params)
        params = [p - 0.5 * g for p, g in zip(params, grads, strict=True)]
    falls = losses[-1] < losses[0] / 2
    return "照样降，有的和对的分不出来" if falls else "降不下去，梯度是错的"


def _fewest_passes():
    return "往回走，10 遍" if min(10, 64) == 10 else "往前走，64 遍"


def _past_the_limit():
    off = 1.0
    for _ in range(300):
        off *= abs(1 - 1.01 * 2)
    return "炸掉" if off > 100 else "来回跳，不升也不降"


def _twice():
    w = torch.tensor(2.0, requires_grad=True)
    for _ in range(2):
        (w * w).backward()
    return f"{w.grad:.0f}"


def _of_scores():
    z = torch.tensor([0.2, 0.5, 0.3]).log().requires_grad_()
    F.cross_entropy(z[None], torch.tensor([0])).backward()
    return "`" + ", ".join(f"{g:.1f}" for g in z.grad) + "`"


def _two_paths():
    a = torch.tensor(3.0, requires_grad=True)
    (a * a + a).backward()
    return f"{a.grad:.0f}"


def _best_move():
    """三格各在格子点上试，涨得最多的那种；动不动都一样的取 0。"""
    g = torch.tensor([3.0, -0.1, 0.0])
    steps = torch.linspace(-2, 2, 41)
    moves = torch.cartesian_prod(steps, steps, steps)
    rise = moves @ g
    best = moves[rise > rise.max() - 1e-6]
    best = best[best.abs().sum(1).argmin()]
    return "`" + ", ".join(str(round(v)) for v in best.tolist()) + "`"


def _branch():
    u = torch.tensor(-1.0, requires_grad=True)
    (u * u if u > 0 else u.exp()).backward()
    return f"{u.grad:.2f}"


ANSWERS = {
    "h-smaller": _smaller_step(),
    "passes": _passes(),
    "lost-leaf": _second_round(),
    "rule-of-sum": _broadcast(),
    "doublings": "两百亿亿步，跑不完" if 2e18 < 2**61 - 1 < 2.4e18 else "",
    "noise": _noise(),
    "smarter-safer": _safer(),
    "certain": _drawn(),
    "who-saves": _savers(),
    "masked-nan": _masked(),
    "wrong-yet-learns": _wrong_still_learns(),
    "rev-or-fwd": _fewest_passes(),
    "limit": _past_the_limit(),
    "five-twice": _twice(),
    "five-scores": _of_scores(),
    "five-paths": _two_paths(),
    "five-budget": _best_move(),
    "five-branch": _branch(),
}
