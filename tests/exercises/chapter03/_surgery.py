"""☆ 手术台、谁是谁两节：典型错误、约定、先猜的答案。"""

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
    )
    return _fold(conv, norm, new=lambda _: made)


def _by_torch(conv, norm):
    return nn.utils.fuse_conv_bn_eval(conv, norm)


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


# —— freeze_except ——


def _count(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _by_name(model, part, inside, every=True):
    model.get_submodule(part)
    for name, p in model.named_parameters(remove_duplicate=not every):
        p.requires_grad_(inside(name, part))
    return _count(model)


def _by_prefix(model, part):
    return _by_name(model, part, lambda name, part: name.startswith(part))


def _anywhere(model, part):
    return _by_name(model, part, lambda name, part: part in name.split("."))


def _only_freezes(model, part):
    own = set(model.get_submodule(part).parameters())
    for p in model.parameters():
        if p not in own:
            p.requires_grad_(False)
    return _count(model)


def _freeze(model, part, count=_count):
    kept = model.get_submodule(part)
    model.requires_grad_(False)
    kept.requires_grad_(True)
    return count(model)


def _freezes_first(model, part):
    model.requires_grad_(False)
    model.get_submodule(part).requires_grad_(True)
    return _count(model)


def _freezes_and_evals(model, part):
    model.eval()
    return _freeze(model, part)


def _by_dots(model, part):
    """对的：按点比名字，共用的最后再打开。"""
    model.get_submodule(part)
    named = list(model.named_parameters(remove_duplicate=False))
    for _, p in named:
        p.requires_grad = False
    for name, p in named:
        if f"{name}.".startswith(f"{part}."):
            p.requires_grad = True
    return _count(model)


# —— replace ——


def _children(model, old, new):
    """只看最外面一层。"""
    made = 0
    for name, part in list(model.named_children()):
        if isinstance(part, old):
            setattr(model, name, new(part))
            made += 1
    return made


def _deep(model, old, new, made=None):
    """递归，`named_children` 把共用的漏掉一处。"""
    count = 0
    for name, part in list(model.named_children()):
        if isinstance(part, old):
            setattr(model, name, new(part))
            count += 1
        else:
            count += _deep(part, old, new)
    return count


def _each_place(model, old, new):
    """每一处都换，共用的换成几个。"""
    count = 0
    for name, part in list(model._modules.items()):
        if isinstance(part, old):
            setattr(model, name, new(part))
            count += 1
        else:
            count += _each_place(part, old, new)
    return count


def _loop_variable(model, old, new):
    count = 0
    for part in model.modules():
        if isinstance(part, old):
            part = new(part)
            count += 1
    return count


def _replaced(model, old, new, made=None):
    """对的：递归，记着换过的。"""
    made = {} if made is None else made
    for name, part in list(model._modules.items()):
        if isinstance(part, old):
            made[part] = made[part] if part in made else new(part)
            model._modules[name] = made[part]
        else:
            _replaced(part, old, new, made)
    return len(made)


def _counts_places(model, old, new):
    places = [p for p in dict(model.named_modules(remove_duplicate=False)).values()]
    _replaced(model, old, new)
    return sum(isinstance(p, old) for p in places)


def _appends(model, old, new):
    """换上去的放到了最后面。"""
    made = {}
    named = list(model.named_modules(remove_duplicate=False))
    for path, part in named:
        if isinstance(part, old):
            made[part] = made[part] if part in made else new(part)
            parent, _, name = path.rpartition(".")
            delattr(model.get_submodule(parent), name)
            model.get_submodule(parent).add_module(name, made[part])
    return len(made)


def _back_into_new(model, old, new):
    """换上去的里面又找。"""
    count = 0
    for name, part in list(model._modules.items()):
        if isinstance(part, old):
            setattr(model, name, new(part))
            count += 1
        count += _back_into_new(getattr(model, name), old, new)
    return count


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
    ],
    "freeze_except": [
        _by_prefix,
        _anywhere,
        _only_freezes,
        _freezes_first,
        _freezes_and_evals,
        lambda model, part: _by_name(
            model, part, lambda name, part: f"{name}.".startswith(f"{part}."), every=False
        ),
        lambda model, part: _freeze(model, part, lambda m: len(list(m.parameters()))),
        lambda model, part: str(_freeze(model, part)),
    ],
    "replace": [
        _children,
        _deep,
        _each_place,
        _loop_variable,
        _counts_places,
        _appends,
        lambda model, old, new: (_replaced(model, old, new), model)[1],
        lambda model, old, new: (_replaced(model, old, new), model.eval())[0],
    ],
}

SPECS = {
    "fold": Spec(accept=(lambda conv, norm: _fold(conv, norm), _own_conv, _by_torch)),
    "widen": Spec(accept=(_widen, _with_loop)),
    "freeze_except": Spec(accept=(_freeze, _by_dots)),
    "replace": Spec(accept=(_replaced,), refuse=(_back_into_new,)),
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
