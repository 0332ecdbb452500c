"""★ 各节：典型错误、约定、先猜的答案。"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from companion.data import digits_split
from companion.models import SmallCNN
from companion.repro import seed_everything
from tests.exercises.attacks import Spec


def _renamed(state, prefix="module.", how=str.removeprefix, clash=True):
    bare = {how(name, prefix): tensor for name, tensor in state.items()}
    if clash and len(bare) < len(state):
        raise ValueError("两个名字相撞")
    return bare


def _everywhere(state, prefix="module."):
    return _renamed(state, prefix, lambda name, cut: name.replace(cut, ""))


def _by_characters(state, prefix="module."):
    return _renamed(state, prefix, str.lstrip)


def _always_cut(state, prefix="module."):
    return _renamed(state, prefix, lambda name, cut: name[len(cut) :])


def _drops_the_rest(state, prefix="module."):
    return {n[len(prefix) :]: t for n, t in state.items() if n.startswith(prefix)}


def _silent(state, prefix="module."):
    return _renamed(state, prefix, clash=False)


def _in_place(state, prefix="module."):
    for name in list(state):
        bare = name.removeprefix(prefix)
        if bare != name and bare in state:
            raise ValueError("两个名字相撞")
        state[bare] = state.pop(name)
    return state


def _sorted(state, prefix="module."):
    return dict(sorted(_renamed(state, prefix).items()))


def _by_the_alphabet(state, prefix="module."):
    return _renamed(dict(sorted(state.items())), prefix)


def _swallows_equals(state, prefix="module."):
    bare = {}
    for name, tensor in state.items():
        name = name.removeprefix(prefix)
        if name in bare and not torch.equal(bare[name], tensor):
            raise ValueError("两个名字相撞")
        bare[name] = tensor
    return bare


def _swallows_itself(state, prefix="module."):
    bare = {}
    for name, tensor in state.items():
        name = name.removeprefix(prefix)
        if bare.setdefault(name, tensor) is not tensor:
            raise ValueError("两个名字相撞")
    return bare


def _pops_then_raises(state, prefix="module."):
    """认出相撞之前，已经从 state 里拿走了。"""
    bare, kept = {}, dict(state)
    while state:
        name = next(iter(state))
        tensor = state.pop(name)
        if name.removeprefix(prefix) in bare:
            raise ValueError("两个名字相撞")
        bare[name.removeprefix(prefix)] = tensor
    state.update(kept)
    return bare


def _adds(state, prefix="module."):
    bare = _renamed(state, prefix)
    state["seen"] = torch.zeros(1)
    return bare


def _opens(state, prefix="module."):
    bare = _renamed(state, prefix)
    for tensor in state.values():
        tensor.requires_grad_()
    return bare


def _widened(state, prefix="module."):
    return {name: tensor.double() for name, tensor in _renamed(state, prefix).items()}


def _by_slices(state, prefix="module."):
    keys = [n[len(prefix) :] if n.startswith(prefix) else n for n in state]
    if len(set(keys)) != len(keys):
        raise ValueError("两个名字相撞")
    return dict(zip(keys, state.values(), strict=True))


BODY = ["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"]

WRONG = {
    "names": [
        [*BODY, "head.weight", "head.bias"],
        [*BODY, "extra.0.weight", "extra.0.bias", "head.weight"],
        ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "head.weight"],
        ["body.0.bias", "body.0.weight", "body.2.weight", "body.2.bias", "head.weight"],
        ["body.weight", "head.weight"],
        BODY,
        [*BODY, "head.weight", "head.weight"],
        [BODY, ["head.weight"]],
        "body.0.weight",
    ],
    "conv_paper": [(14, 608), (15, 600), (15, 208), (15, 76)],
    "strip_prefix": [
        _everywhere,
        _by_characters,
        _always_cut,
        _drops_the_rest,
        _silent,
        _in_place,
        _sorted,
        lambda state, prefix="module.": _renamed(state, "module."),
        lambda state, prefix="module.": list(_renamed(state, prefix)),
        lambda state, prefix="module.": {n: t + 1 for n, t in _renamed(state, prefix).items()},
        _swallows_equals,
        _pops_then_raises,
        _adds,
        _opens,
        lambda state, prefix="module.": {n: t.tolist() for n, t in _renamed(state, prefix).items()},
    ],
}

NAMED = [
    ("names", [BODY, ["head.weight"]], "第 1 项是 list", "你给的是 list"),
    ("strip_prefix", _in_place, "这个名字没了", "requires_grad"),
    ("strip_prefix", _swallows_equals, "数相同", "requires_grad"),
]

SPECS = {
    "names": Spec(accept=(tuple([*BODY, "head.weight"]),)),
    "conv_paper": Spec(accept=([15, 608],)),
    "strip_prefix": Spec(
        accept=(_by_slices,), refuse=(_by_the_alphabet, _swallows_itself, _widened)
    ),
}


@cache
def _digits():
    return digits_split("shuffled", seed=0)


def _train(net, epochs):
    (x, y), _ = _digits()
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    net.train()
    for _ in range(epochs):
        for pick in torch.randperm(len(x), generator=rng).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[pick]), y[pick]).backward()
            optimizer.step()
    return net.eval()


@cache
def _file():
    seed_everything(0)
    return _train(SmallCNN(), epochs=6)


@torch.no_grad()
def _score(f, images=None):
    _, (x, y) = _digits()
    return (f(x if images is None else images).argmax(1) == y).float().mean().item()


def _nearest(value, texts):
    return min(texts, key=lambda text: abs(value - texts[text]))


def _inside():
    names = set(SmallCNN().state_dict())
    told = any("relu" in name or "pool" in name or "stride" in name for name in names)
    return "四样都在，不然怎么还原" if told else "只有数，别的都在代码里"


class _Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = [nn.Linear(64, 128), nn.Linear(128, 128)]
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.hidden:
            x = layer(x).relu()
        return self.head(x)


def _python_list():
    seed_everything(0)
    value = _score(_train(_Listed(), epochs=15))
    return _nearest(value, {"不报错，停在 10% 上下": 0.1, "不报错，认对八九成": 0.85})


def _shift(x, dy, dx):
    return F.pad(x, (dx, -dx, dy, -dy))


def _scan():
    _, (x, _) = _digits()
    w = _file().conv1.weight.detach()
    same = F.conv2d(_shift(x, 0, 1), w, padding=1) == _shift(F.conv2d(x, w, padding=1), 0, 1)
    inside = same[..., 1:7].all() and not same.all()
    return "除了左右两边，逐位相同" if inside else "差不多，差在舍入上"


def _averaging(x):
    net = _file()
    x = net.norm2(net.conv2(net.norm1(net.conv1(x)).relu())).relu()
    return net.head(net.norm3(net.conv3(F.avg_pool2d(x, 2))).relu().flatten(1))


def _average_pool():
    texts = {"98% 上下，几乎不变": 0.98, "70% 上下，错掉三成": 0.7, "10% 上下，等于瞎猜": 0.1}
    return _nearest(_score(_averaging), texts)


@torch.no_grad()
def _neighbour():
    _, (x, y) = _digits()
    hits, state = [], {k: v.clone() for k, v in _file().state_dict().items()}
    for i in range(0, 352, 32):
        bad = x[i : i + 32].clone()
        bad[0] *= 255
        fresh = SmallCNN(dropout=0.0)
        fresh.load_state_dict(state)
        hits.append(fresh(bad).argmax(1)[1:] == y[i + 1 : i + 32])
    texts = {"99% 上下，各算各的": 0.99, "90% 上下，略受影响": 0.9, "50% 上下，错掉一半": 0.5}
    return _nearest(torch.cat(hits).float().mean().item(), texts)


def _who_survives():
    _, (x, _) = _digits()
    moves = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    value = sum(_score(_file(), _shift(x, *move)) for move in moves) / 4
    texts = {
        "97% 上下，卷积会跟着挪": 0.97,
        "75% 上下，错掉两成多": 0.75,
        "40% 上下，和平均脸一样": 0.4,
    }
    return _nearest(value, texts)


def _five_count():
    return str(sum(p.numel() for p in nn.Linear(20, 7).parameters()))


def _five_shape():
    return str(tuple(nn.Conv2d(3, 6, 3)(torch.zeros(2, 3, 10, 10)).shape))


def _five_name():
    nested = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    return f"`{list(nested.state_dict())[-2]}`"


def _five_record():
    layer = nn.BatchNorm1d(1)
    layer(torch.tensor([[1.0], [2.0], [3.0]]))
    return f"{layer.running_mean.item():.1f}"


def _five_max():
    picture = torch.zeros(1, 1, 8, 8)
    picture[0, 0, 2:5, 3:5] = torch.rand(3, 2)
    kept = torch.equal(picture.amax((2, 3)), _shift(picture, 0, 1).amax((2, 3)))
    return "不变，最大也不看位置" if kept else "变，最大的那格换了地方"


ANSWERS = {
    "five-count": _five_count,
    "five-shape": _five_shape,
    "five-name": _five_name,
    "five-record": _five_record,
    "five-max": _five_max,
    "what-is-inside": _inside,
    "python-list": _python_list,
    "shift-then-scan": _scan,
    "average-pool": _average_pool,
    "neighbour": _neighbour,
    "who-survives": _who_survives,
}
JUDGED: set[str] = set()
MEASURED: set[str] = set()
