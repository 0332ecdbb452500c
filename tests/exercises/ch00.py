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


def _rules(thresholds=range(17), flips=(False, True), pixels=range(64), ratio=False, worst=False):
    """`learn_rule` 的各种写错：少试几个 t、几个方向、几格，或者留下了错得最多的。"""

    def learn(x, y, digit):
        found = []
        for pixel in pixels:
            for t in thresholds:
                for flip in flips:
                    wrong = (((x[:, pixel] > t) ^ flip) != (y == digit)).sum().item()
                    found.append((wrong, (pixel, t, flip)))
        wrong, rule = max(found) if worst else min(found)
        return (wrong / len(x), *rule) if ratio else rule

    return learn


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
        lambda sizes: (sizes[0] + 1) * sizes[1] + (sizes[1] + 1) * sizes[2],  # 只会三个宽度
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
    "one_step": [
        (1.8, 1.98),  # 还是 0.05
        (-3.6, 6.48),  # 加上斜率，而不是减去
        (3.6,),
        (1.2, 1.68),  # 链式法则忘了乘 3
        (3.6, 7.2),  # 斜率没有重算
        (36.0, 72.0),
        (-36, 28.8),  # 交了斜率
        (3.6, 3.6),
        (3.6, float("nan")),
    ],
    "which_part": [
        ("数据", "模型", "训练"),
        ("数据", "优化器", "泛化"),
        ("目标", "优化器", "训练"),
        ("数据", "学习率", "训练"),
        ("数据", "优化器", "数据"),
        ("数据", "优化器"),
    ],
    "learn_rule": [
        _rules(flips=(False,)),  # 不试 flip
        _rules(thresholds=range(1, 17)),
        _rules(thresholds=range(15)),
        _rules(thresholds=range(16)),
        _rules(pixels=range(63)),
        _rules(ratio=True),  # 多返回了错的比例
        _rules(worst=True),
        lambda x, y, digit: (20, 5),
        lambda x, y, digit: (20, 5, 0),
        lambda x, y, digit: (64, 5, True),
    ],
}
