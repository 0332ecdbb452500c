"""☆ 手术台、谁是谁两节：并进卷积、重排的典型错误，约定，先猜的答案。"""

import copy
from functools import cache

import torch
from torch import nn
from torch.func import functional_call

from companion.data import digits_split
from companion.models import SmallCNN
from companion.repro import seed_everything
from tests.exercises.attacks import Spec

# —— fold ——


def _fold(conv, norm, scale=None, bias=None, new=None):
    made = copy.deepcopy(conv) if new is None else new(conv)
    mean, beta = norm.running_mean, norm.bias
    k = norm.weight / (norm.running_var + norm.eps).sqrt() if scale is None else scale(norm)
    own = torch.zeros_like(beta) if conv.bias is None else conv.bias
    with torch.no_grad():
        made.weight.copy_(conv.weight * k[:, None, None, None])
        moved = k * (own - mean) + beta if bias is None else bias(k, own, mean, beta)
        made.bias = nn.Parameter(moved)
    return made


def _without_eps(norm):
    return norm.weight / norm.running_var.sqrt()


def _usual_eps(norm):
    return norm.weight / (norm.running_var + 1e-5).sqrt()


def _no_root(norm):
    return norm.weight / (norm.running_var + norm.eps)


def _no_gamma(norm):
    return 1 / (norm.running_var + norm.eps).sqrt()


def _plain_conv(conv):
    return nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size)


def _no_bias_at_all(conv, norm):
    made = _fold(conv, norm)
    made.bias = None
    return made


def _only_the_bias(conv, norm):
    made = _fold(conv, norm)
    made.weight = copy.deepcopy(conv.weight)
    return made


def _in_place(conv, norm):
    with torch.no_grad():
        conv.weight.mul_(_no_gamma(norm)[:, None, None, None])
    return conv


def _own_conv(conv, norm):
    """不用 deepcopy，一样一样地写。"""
    made = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        padding_mode=conv.padding_mode,
        dtype=conv.weight.dtype,
    )
    return _fold(conv, norm, new=lambda _: made)


def _by_torch(conv, norm):
    return nn.utils.fuse_conv_bn_eval(conv, norm)


def _loses_padding_mode(conv, norm):
    made = _fold(conv, norm)
    made.padding_mode, made.stride = "zeros", conv.stride
    return made


def _plain_bias(conv, norm):
    made = _fold(conv, norm)
    bias = made.bias.detach()
    del made.bias
    made.bias = bias
    return made


def _in_single(conv, norm):
    made = _fold(copy.deepcopy(conv).float(), copy.deepcopy(norm).float())
    return made.to(conv.weight.dtype)


def _into_the_norm(conv, norm):
    made = _fold(conv, norm)
    with torch.no_grad():
        norm.running_mean.zero_()
    return made


def _hooked(conv, norm):
    """权重没有动，归一化藏在钩子里。"""
    made, after = copy.deepcopy(conv), copy.deepcopy(norm)
    if made.bias is None:
        made.bias = nn.Parameter(torch.zeros_like(norm.bias))
    made.register_forward_hook(lambda layer, given, out: after(out))
    return made


# —— widen ——


def _widen(w1, b1, w2, pick, share=None, first=None):
    copies = torch.bincount(pick)[pick] if share is None else share(w1, pick)
    return (w1[pick] if first is None else first(w1, pick)), b1[pick], w2[:, pick] / copies


def _with_loop(w1, b1, w2, pick):
    rows = [int(i) for i in pick]
    columns = [w2[:, i] / rows.count(i) for i in rows]
    return (
        torch.stack([w1[i] for i in rows]),
        torch.stack([b1[i] for i in rows]),
        torch.stack(columns, 1),
    )


WRONG = {
    "fold": [
        lambda conv, norm: nn.Sequential(copy.deepcopy(conv), copy.deepcopy(norm)),
        lambda conv, norm: conv,
        lambda conv, norm: copy.deepcopy(conv),
        lambda conv, norm: _fold(conv, norm, _without_eps),
        lambda conv, norm: _fold(conv, norm, _usual_eps),
        lambda conv, norm: _fold(conv, norm, _no_root),
        lambda conv, norm: _fold(conv, norm, _no_gamma),
        lambda conv, norm: _fold(conv, norm, bias=lambda k, own, mean, beta: k * (own - mean)),
        lambda conv, norm: _fold(conv, norm, bias=lambda k, own, mean, beta: k * own + beta),
        lambda conv, norm: _fold(conv, norm, bias=lambda k, own, mean, beta: k * own - mean + beta),
        lambda conv, norm: _fold(conv, norm, bias=lambda k, own, mean, beta: own - k * mean + beta),
        lambda conv, norm: _fold(conv, norm, bias=lambda k, own, mean, beta: beta - k * mean),
        lambda conv, norm: _fold(conv, norm, bias=lambda k, own, mean, beta: own),
        lambda conv, norm: _fold(conv, norm, new=_plain_conv),
        _no_bias_at_all,
        _in_place,
        _loses_padding_mode,
        _plain_bias,
        _in_single,
        _hooked,
        lambda conv, norm: _fold(conv, norm).float(),
    ],
    "widen": [
        lambda w1, b1, w2, pick: _widen(w1, b1, w2, pick, lambda w1, pick: 1),
        lambda w1, b1, w2, pick: _widen(w1, b1, w2, pick, lambda w1, pick: 2),
        lambda w1, b1, w2, pick: _widen(w1, b1, w2, pick, lambda w, pick: len(pick) / len(w)),
        lambda w1, b1, w2, pick: _widen(
            w1, b1, w2, pick, lambda w, pick: 1 / torch.bincount(pick)[pick]
        ),
        lambda w1, b1, w2, pick: _widen(w1, b1, w2, pick, first=lambda w, pick: w[pick] / 2),
        lambda w1, b1, w2, pick: (w1[pick], b1, w2[:, pick]),
        lambda w1, b1, w2, pick: (w1[pick], w2[:, pick]),
        lambda *given: [t.detach() for t in _widen(*given)],
        lambda w1, b1, w2, pick: _widen(w1, b1, w2.detach(), pick),
        lambda w1, b1, w2, pick: [
            t.to(w1.dtype) for t in _widen(w1.float(), b1.float(), w2.float(), pick)
        ],
        lambda *given: [t.float() for t in _widen(*given)],
    ],
}

NAMED = [
    ("fold", _in_place, "deepcopy", "eval()"),
    ("fold", _into_the_norm, "deepcopy", "eval()"),
]

SPECS = {
    "fold": Spec(accept=(lambda conv, norm: _fold(conv, norm), _own_conv, _by_torch)),
    "widen": Spec(accept=(_widen, _with_loop)),
}


@cache
def _averaged_with_its_shuffled_self():
    """一个练好的网络，打乱三层通道，和自己平均权重：认对几成。"""
    (x, y), (x_new, y_new) = digits_split("shuffled", seed=0)
    seed_everything(0)
    net, rng = SmallCNN(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(4):
        for pick in torch.randperm(len(x), generator=rng).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[pick]), y[pick]).backward()
            optimizer.step()
    state = net.eval().state_dict()
    twin = dict(state)
    for i, after in ((1, "conv2"), (2, "conv3"), (3, "head")):
        order = torch.randperm(len(state[f"conv{i}.bias"]), generator=rng)
        for name, t in state.items():
            if name[:5] in (f"conv{i}", f"norm{i}") and t.ndim:
                twin[name] = twin[name][order]
        w = twin[f"{after}.weight"]
        twin[f"{after}.weight"] = w.view(len(w), len(order), -1)[:, order].reshape(w.shape)
    with torch.no_grad():
        answers = functional_call(net, twin, x_new).argmax(1)
        assert torch.equal(answers, net(x_new).argmax(1))
        middle = {name: (t + twin[name]) / 2 for name, t in state.items()}
        return (functional_call(net, middle, x_new).argmax(1) == y_new).float().mean().item()


def _average():
    left = _averaged_with_its_shuffled_self()
    return "掉一大截，剩五成到九成" if 0.4 < left < 0.93 else "还是九成九，两个是同一个函数"


def _tied():
    a = nn.Linear(2, 2, bias=False)
    count = sum(p.numel() for p in nn.Sequential(a, a).parameters())
    return {4: "4 个，同一层只数一次", 8: "8 个，两层各 4 个"}[count]


ANSWERS = {"average-self": _average, "tied-count": _tied}
MEASURED = set()
JUDGED = set()
