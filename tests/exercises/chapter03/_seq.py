"""☆ 一行一行读、谁看谁：典型的错误、别种对的写法、两道先猜的答案。"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from tests.exercises.attacks import Spec


def _picked(out, lengths, ahead=0):
    at = (lengths - 1 + ahead).clamp(0, out.shape[1] - 1)
    return out[torch.arange(len(out)), at]


def _gathered(out, lengths):
    at = (lengths - 1)[:, None, None].expand(-1, 1, out.shape[2])
    return out.gather(1, at)[:, 0]


def _one_by_one(out, lengths):
    return torch.stack([out[b, n - 1] for b, n in enumerate(lengths.tolist())])


def _gru(x, h, W, U, b, b2, swap=False, bend=torch.tanh, blend=None, recall=None):
    (ar, az, an), (ur, uz, un) = (x @ W.T + b).chunk(3, 1), (h @ U.T + b2).chunk(3, 1)
    r, z = (ar + ur).sigmoid(), (az + uz).sigmoid()
    r, z = (z, r) if swap else (r, z)
    n = bend(an + (recall(r, h, U, b2, un) if recall else r * un))
    return blend(n, z, h) if blend else (1 - z) * n + z * h


def _reset_first(r, h, U, b2, un):
    return F.linear(r * h, U.chunk(3)[2], b2.chunk(3)[2])


def _reset_without_bias(r, h, U, b2, un):
    return r * (h @ U.chunk(3)[2].T) + b2.chunk(3)[2]


def _look(q, k, v, may=None, scale=0.5, size=-1, dim=-1, fill=-torch.inf, after=False, sign=False):
    scores = q @ k.mT / k.shape[size] ** scale
    hidden = None if may is None else (may if sign else ~may)
    if hidden is not None and not after:
        scores = scores.masked_fill(hidden, fill)
    weights = scores.softmax(dim)
    return (weights.masked_fill(hidden, 0) if after and may is not None else weights) @ v


def _renormalised(q, k, v, may=None):
    weights = _look(q, k, torch.eye(k.shape[-2], dtype=k.dtype).expand(*k.shape[:-2], -1, -1))
    weights = weights if may is None else weights * may
    return weights / weights.sum(-1, keepdim=True) @ v


def _masked(lengths, n, order=torch.le, extra=0, rows=False):
    i, j = torch.arange(n)[:, None], torch.arange(n)
    real = j < lengths[:, None, None] + extra
    return order(j, i) & (real.mT if rows else real)


def _causal_loop(lengths, n):
    table = torch.zeros(len(lengths), n, n, dtype=torch.bool)
    for b, length in enumerate(lengths.tolist()):
        for i in range(n):
            table[b, i, : min(i + 1, length)] = True
    return table


def _heads(t, h, back=False):
    if t.shape[-1] % h:
        raise ValueError
    parts = list(t.chunk(h, -1))
    return torch.stack(parts[::-1] if back else parts, 1)


def _mixed_heads(t, h):
    return t.reshape(len(t), h, t.shape[1], -1)


def _strided_heads(t, h):
    return t.unflatten(-1, (-1, h)).permute(0, 3, 1, 2)


def _in_single(f):
    """里面全用 float32 算，出来再转回去。"""

    def answer(t, *rest):
        rest = [r.float() if torch.is_tensor(r) and r.is_floating_point() else r for r in rest]
        return f(t.float(), *rest).to(t.dtype)

    return answer


def _no_max(q, k, v, may=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    e = scores.exp() if may is None else scores.exp() * may
    return e / e.sum(-1, keepdim=True) @ v


def _cell(x, h, W, U, b, b2):
    cell = nn.GRUCell(x.shape[1], h.shape[1], dtype=x.dtype)
    return torch.func.functional_call(
        cell, dict(weight_ih=W, weight_hh=U, bias_ih=b, bias_hh=b2), (x, h)
    )


def _shifted(shift):
    def answer(q, k, v, may=None):
        far = 0 if may is None else torch.zeros(may.shape, dtype=q.dtype).masked_fill(~may, shift)
        return (q @ k.mT / q.shape[-1] ** 0.5 + far).softmax(-1) @ v

    return answer


WRONG = {
    "last_valid": [
        lambda out, lengths: out[:, -1],
        lambda out, lengths: _picked(out, lengths, ahead=1),
        lambda out, lengths: _picked(out, lengths, ahead=-1),
        lambda out, lengths: out[:, lengths - 1],
        lambda out, lengths: out[:, 0],
        lambda out, lengths: _picked(out, lengths.sort(descending=True).values),
        lambda out, lengths: _picked(out, lengths).detach(),
        lambda out, lengths: _picked(out, lengths).tolist(),
        lambda out, lengths: out.sum(1),
        lambda out, lengths: _picked(out.float(), lengths),
        _in_single(_picked),
    ],
    "gru_step": [
        partial(_gru, blend=lambda n, z, h: z * n + (1 - z) * h),
        partial(_gru, swap=True),
        partial(_gru, recall=lambda r, h, U, b2, un: un),
        partial(_gru, recall=_reset_first),
        partial(_gru, recall=_reset_without_bias),
        partial(_gru, bend=torch.sigmoid),
        partial(_gru, blend=lambda n, z, h: n),
        partial(_gru, blend=lambda n, z, h: (1 - z) * n),
        lambda x, h, W, U, b, b2: _gru(x, h, W, U, b, 0 * b2),
        lambda x, h, W, U, b, b2: _gru(x, h, W, U, 0 * b, b2),
        lambda x, h, W, U, b, b2: (x @ W.T + b + h @ U.T + b2).chunk(3, 1)[2].tanh(),
        torch.gru_cell,
        _in_single(_gru),
        lambda x, h, *rest: _gru(x, h.detach(), *rest),
        lambda x, h, W, *rest: _gru(x, h, W.detach(), *rest),
        lambda *given: _gru(*given).float(),
    ],
    "gates_paper": [
        (4736, 2**-10, 1.39),
        (18688, 2**-10, 1.39),
        (18432, 2**-10, 1.39),
        (64 * 8, 2**-10, 1.39),
        (18944, 2**-9, 1.39),
        (18944, 5, 1.39),
        (18944, 0.5, 1.39),
        (18944, 2**-10, 0.69),
        (18944, 2**-10, -1.39),
        (18944, 2**-10, 4),
        (18944, 2**-10, -0.22),
        (18944, 2**-10, 0.6),
        (18944, 2**-10, 0.8),
        (18944, 2**-10),
        18944,
    ],
    "attention": [
        partial(_look, scale=0),
        partial(_look, scale=1),
        partial(_look, scale=-0.5),
        partial(_look, size=-2),
        partial(_look, dim=-2),
        lambda q, k, v, may=None: _look(q, k, v),
        partial(_look, sign=True),
        partial(_look, after=True),
        partial(_look, fill=0.0),
        partial(_look, fill=-10.0),
        partial(_look, fill=-1e4),
        _no_max,
        _in_single(_look),
        lambda q, k, v, may=None: _look(q.detach(), k, v, may),
        lambda q, k, v, may=None: _look(q, k, v.detach(), may),
        _renormalised,
        lambda q, k, v, may=None: F.scaled_dot_product_attention(q, k, v, attn_mask=may),
        lambda q, k, v, may=None: q @ k.mT / q.shape[-1] ** 0.5 @ v,
    ],
    "causal_mask": [
        lambda lengths, n: ~_masked(lengths, n),
        partial(_masked, order=torch.lt),
        partial(_masked, order=torch.ge),
        lambda lengths, n: _masked(torch.full_like(lengths, n), n),
        lambda lengths, n: (torch.arange(n) < lengths[:, None, None]).expand(-1, n, -1),
        partial(_masked, rows=True),
        partial(_masked, extra=1),
        partial(_masked, extra=-1),
        lambda lengths, n: _masked(lengths, n).float(),
        lambda lengths, n: torch.ones(n, n).tril().bool(),
        lambda lengths, n: torch.ones(len(lengths), n, n).bool(),
    ],
    "split_heads": [
        _mixed_heads,
        _strided_heads,
        partial(_heads, back=True),
        lambda t, h: t.unflatten(-1, (h, -1)),
        lambda t, h: _heads(t[..., : t.shape[-1] // h * h], h),
        lambda t, h: t.unflatten(-1, (h, -1)).transpose(1, 2),
        lambda t, h: _heads(t, h).flip(2),
        lambda t, h: _heads(t, h).detach(),
        _in_single(_heads),
    ],
}

NAMED = [
    ("last_valid", lambda out, lengths: out.numpy(), "别转成 NumPy", "Can't call"),
    ("gru_step", torch._VF.gru_cell, "现成的", "不对"),
    ("gru_step", _cell, "现成的", "不对"),
    ("attention", _no_max, "装不下", "0 除以 0"),
    ("attention", partial(_look, fill=-1e4), "负无穷", "没给 may"),
    ("attention", _shifted(-1e4), "负无穷", "没给 may"),
    ("attention", _renormalised, "softmax 之前", "0 除以 0"),
    ("attention", lambda q, k, v, may=None: _look(q.detach(), k, v, may), "q", "不对"),
]


def _float_mask(q, k, v, may=None):
    shift = 0 if may is None else torch.zeros(may.shape, dtype=q.dtype).masked_fill(~may, -1e9)
    return (q @ k.mT / q.shape[-1] ** 0.5 + shift).softmax(-1) @ v


def _by_exp(q, k, v, may=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if may is not None:
        scores = scores.where(may, -torch.inf)
    e = (scores - scores.amax(-1, keepdim=True)).exp()
    return e @ v / e.sum(-1, keepdim=True)


def _by_logarithm(q, k, v, may=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if may is not None:
        scores = scores.masked_fill(~may, -torch.inf)
    return (scores - scores.logsumexp(-1, keepdim=True)).exp() @ v


def _by_hand_gru(x, h, W, U, b, b2):
    size = h.shape[1]
    a, u = F.linear(x, W, b), F.linear(h, U, b2)
    r, z = (a + u)[:, : 2 * size].sigmoid().chunk(2, 1)
    return torch.lerp((a[:, 2 * size :] + r * u[:, 2 * size :]).tanh(), h, z)


def _moved_heads(t, h):
    if t.shape[-1] % h:
        raise ValueError(f"{t.shape[-1]} 除以 {h} 除不尽")
    return t.view(*t.shape[:2], h, t.shape[-1] // h).permute(0, 2, 1, 3)


SPECS = {
    "last_valid": Spec(accept=(_gathered, _one_by_one)),
    "gru_step": Spec(
        accept=(_gru, _by_hand_gru),
        refuse=(_cell, torch._VF.gru_cell, torch.ops.aten.gru_cell.default),
    ),
    "gates_paper": Spec(
        accept=(
            (18944, 1 / 1024, 1.39),
            [18944.0, 2**-10, 1.386],
            (18944, 0.000977, 1.39),
            (18944, 0.00098, 1.38),
        ),
        refuse=((18944, 0.001, 1.39), (18944, 0.00195, 1.39), (18944.1, 2**-10, 1.39)),
    ),
    "attention": Spec(
        section=("attend",),
        accept=(_float_mask, _by_exp, _by_logarithm),
        refuse=(_shifted(-1e4), _shifted(-1e5)),
    ),
    "causal_mask": Spec(accept=(_causal_loop,)),
    "split_heads": Spec(accept=(_heads, _moved_heads)),
}


def _lamps(n, generator):
    lamp = torch.randint(0, 8, (n,), generator=generator)
    seq = torch.rand(n, 15, 9, generator=generator) * (torch.arange(9) == 8)
    seq[:, 0] = F.one_hot(lamp, 9).float()
    return seq, lamp


def _default_lstm():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lstm, head = nn.LSTM(9, 32, batch_first=True), nn.Linear(32, 8)
    weights = [*lstm.parameters(), *head.parameters()]
    adam = torch.optim.Adam(weights, lr=5e-3)
    for _ in range(250):
        seq, lamp = _lamps(64, generator)
        adam.zero_grad()
        F.cross_entropy(head(lstm(seq)[0][:, -1]), lamp).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
    seq, lamp = _lamps(512, generator)
    right = (head(lstm(seq)[0][:, -1]).argmax(1) == lamp).float().mean()
    return "两三成，比瞎猜好一点" if 0.15 < right < 0.4 else "九成以上，它就是为这个造的"


def _torn():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        head, t, order = nn.Linear(32, 10), torch.randn(360, 16, 32), torch.randperm(16)
    before, after = (head(layer(s).mean(1)).argmax(1) for s in (t, t[:, order]))
    return "一张也没有，和原来一样" if torch.equal(before, after) else "一大半，人都认不出了"


ANSWERS = {"forget-bias": _default_lstm, "torn": _torn}
MEASURED: set[str] = set()
JUDGED: set[str] = set()
