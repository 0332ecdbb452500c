"""第 0 章各题的典型错误答案：类型和形状多半是对的，错的是提示里点名的那件事。"""

from itertools import pairwise

import torch


def _cubed(value):
    return torch.tensor(value, requires_grad=True) ** 3


def _slope_of_square(value):
    x = torch.tensor(value, requires_grad=True)
    (x**2).backward()
    return x.grad.item()


def _slope_as_tensor(value):
    x = torch.tensor(value, requires_grad=True)
    (x**3).backward()
    return x.grad


def _numbers(text):
    return [int(part) for part in text.split("+")[0].split(".")]


WRONG = {
    "first_tensor": [
        [3, 1, 4],
        torch.tensor([3.0, 1.0, 4.0]),
        torch.tensor([[3, 1, 4]]),
        torch.tensor([3, 4, 1]),
    ],
    "count_parameters": [
        lambda sizes: sum(i * o for i, o in pairwise(sizes)),  # 忘了加数
        lambda sizes: sum(i * (o + 1) for i, o in pairwise(sizes)),  # 加数数成了输入
        lambda sizes: (
            (sizes[0] + 1) * sizes[1] + (sizes[-2] + 1) * sizes[-1]
            if len(sizes) > 2
            else (sizes[0] + 1) * sizes[1]
        ),  # 只会两层
        lambda sizes: sum(sizes),
    ],
    "is_at_least": [
        lambda version, minimum: version >= minimum,  # 逐字比
        lambda version, minimum: _numbers(version) > _numbers(minimum),
        lambda version, minimum: _numbers(version)[:2] >= _numbers(minimum)[:2],
        lambda version, minimum: all(
            a >= b for a, b in zip(_numbers(version), _numbers(minimum), strict=True)
        ),  # 每段都要大
    ],
    "slope": [lambda value: _cubed(value).item(), _slope_of_square, _slope_as_tensor],
}
