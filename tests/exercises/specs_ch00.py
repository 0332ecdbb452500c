"""第 0 章各题的约定：放开了什么，还有哪些对的写法该放过、错的写法该拒绝。"""

import warnings
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from tests.exercises.attacks import Spec
from tests.exercises.ch00 import _numbers


def _slope_by(function):
    return lambda value: function(lambda x: x**3, torch.tensor(value)).item()


def _slope_forward(value):
    with warnings.catch_warnings():  # 前向求导第一次用到时，torch 抱怨它自己的 torch.jit
        warnings.simplefilter("ignore", FutureWarning)
        one, x = torch.tensor(1.0), torch.tensor(value)
        return torch.func.jvp(lambda x: x**3, (x,), (one,))[1].item()


def _slope_grad(value):
    x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(x * x * x, x)
    return slope.tolist()


def _network(sizes):
    layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
    return sum(p.numel() for layer in layers for p in layer.parameters())


SPECS = {
    "first_tensor": Spec(
        accept=(torch.tensor([3, 1, 4], dtype=torch.int32), torch.from_numpy(np.array([3, 1, 4]))),
        refuse=(np.array([3, 1, 4]), torch.tensor([3, 1, 4]) > 0),
    ),
    "count_parameters": Spec(
        accept=(_network, lambda sizes: int(np.dot(np.add(sizes[:-1], 1), sizes[1:]))),
        refuse=(
            lambda sizes: sum((i + 1) * o for i, o in pairwise(sorted(sizes))),
            lambda sizes: sum((i + 1) * o for i, o in pairwise(sizes[:4])),
            lambda sizes: sum((i + 1) * o for i, o in set(pairwise(sizes))),  # 一样的层只算一次
        ),
    ),
    "is_at_least": Spec(
        accept=(
            lambda v, m: tuple(_numbers(v)) >= tuple(_numbers(m)),
            lambda v, m: not _numbers(m) > _numbers(v),
            lambda v, m: max(_numbers(v), _numbers(m)) == _numbers(v),
        ),
        refuse=(
            lambda v, m: float(v[:4].rstrip(".")) >= float(m[:4].rstrip(".")),
            lambda v, m: [len(p) for p in v.split(".")] >= [len(p) for p in m.split(".")],
            lambda v, m: sum(_numbers(v)) >= sum(_numbers(m)),
            lambda v, m: [p.zfill(2) for p in v.split(".")] >= [p.zfill(2) for p in m.split(".")],
        ),
    ),
    "which_part": Spec(
        accept=(("数据", "优化器", "训练误差"), (" 数据", "优化器 ", "训练")),
        refuse=(("数据误差", "优化器", "训练 误差"), ("数据", "优化器", "泛化误差")),
    ),
    "slope": Spec(
        accept=(_slope_grad, _slope_by(lambda f, x: torch.func.grad(f)(x)), _slope_forward),
        refuse=(
            lambda value: 3 * value**2,  # 公式
            lambda value: (3 * torch.tensor(value) ** 2).item(),
            lambda value: ((value + 1e-6) ** 3 - (value - 1e-6) ** 3) / 2e-6,  # 差分
        ),
    ),
}
