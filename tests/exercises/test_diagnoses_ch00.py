"""第 0 章的 ✗ 说中了毛病：每种写错，话里要有那一句。"""

import pytest
import torch

from companion.book._exercise import grade
from tests.exercises.ch00 import _numbers


def _learner(above, thresholds=range(17), flips=(False, True), pixels=range(64), say=bool):
    """学规则：`above(格子, t, flip)` 是它说“是”的地方，`say` 是它交上来的 flip。"""

    def learn(x, y, digit):
        found = []
        for pixel in pixels:
            for t in thresholds:
                for flip in flips:
                    wrong = (above(x[:, pixel], t, flip) != (y == digit)).sum().item()
                    found.append((wrong, pixel, t, flip))
        _, pixel, t, flip = min(found, key=lambda rule: rule[0])
        return pixel, t, say(flip)

    return learn


def _right(value, t, flip):
    return (value > t) ^ flip


def _three(sizes):
    a, b, c = sizes
    return (a + 1) * b + (b + 1) * c


def _grad_of_the_cube(value):
    x = torch.tensor(value, requires_grad=True)
    y = x**3
    y.backward()
    return y.grad


def _without_backward(value):
    x = torch.tensor(value, requires_grad=True)
    x**3
    return x.grad


def _item_without_backward(value):
    x = torch.tensor(value, requires_grad=True)
    return x.grad.item()


def _differentiated_twice(value):
    x = torch.tensor(value, requires_grad=True)
    (x**3).backward()
    (x**3).backward()
    return x.grad.item()


def _printed(value):
    x = torch.tensor(value, requires_grad=True)
    (x**3).backward()
    print(x.grad.item())


def _joined(version):
    return int("".join(map(str, _numbers(version))))


def _decimal(version):
    return float(".".join(map(str, _numbers(version)[:2])))


CASES = [
    ("learn_rule", _learner(lambda v, t, f: (v < t) if f else (v > t)), "写成了“小于”"),
    ("learn_rule", _learner(lambda v, t, f: (v >= t) ^ f), "写成了“大于等于”"),
    ("learn_rule", _learner(_right, say=lambda flip: not flip), "flip 的真假写反了"),
    ("learn_rule", _learner(_right, thresholds=range(16)), "t 要试到 16"),
    ("learn_rule", _learner(_right, thresholds=range(15)), "t 要试到 15"),
    ("learn_rule", _learner(_right, thresholds=range(1, 17)), "t 从 0 试起"),
    ("learn_rule", _learner(_right, pixels=range(1, 64)), "第 0 格"),
    ("learn_rule", _learner(_right, flips=(False,)), "也就是 flip=True"),
    ("slope", _grad_of_the_cube, ".grad 要在 backward() 之后、从 x 上取"),
    ("slope", _without_backward, ".grad 要在 backward() 之后、从 x 上取"),
    ("slope", _item_without_backward, ".grad 要在 backward() 之后、从 x 上取"),
    ("slope", lambda v: (torch.tensor(v, requires_grad=True) ** 3).backward(), "不返回东西"),
    ("slope", _differentiated_twice, "正好是两倍"),
    ("slope", _printed, "印出来不算，要 return"),
    ("count_parameters", lambda sizes: print(len(sizes)), "印出来不算，要 return"),
    ("count_parameters", _three, "也可能只有两个宽度"),
    ("count_parameters", lambda sizes: (sizes[0] + 1) * sizes[1] + sizes[2], "先写出每一层"),
    ("count_parameters", lambda s: (s[0] + 1) * s[1] + (s[1] + 1) * s[2], "也可能只有两个宽度"),
    ("one_step", (-36, 28.8), "是 0 处的斜率"),
    ("one_step", (-36.0, -3.6), "是 0 处的斜率"),
    ("one_step", (-3.6, 6.48), "方向反了"),
    ("one_step", (3.6, "0.72 左右"), "都要是数"),
    ("which_part", ("数据", "优化器", "泛化误差"), "全都见过"),
    ("is_at_least", lambda v, m: _numbers(v) <= _numbers(m), "比反了"),
    ("is_at_least", lambda v, m: _numbers(m) >= _numbers(v), "比反了"),
    ("is_at_least", lambda v, m: _decimal(v) >= _decimal(m), "当小数比了"),
    ("is_at_least", lambda v, m: _joined(v) >= _joined(m), "连成一个数了"),
    ("is_at_least", lambda v, m: _numbers(v) < _numbers(m), "比反了"),
    ("is_at_least", lambda v, m: sum(_numbers(v)) >= sum(_numbers(m)), "答了"),
    ("is_at_least", lambda v, m: [int(p) for p in v.split(".")] >= _numbers(m), "尾巴不参与比较"),
    ("is_at_least", lambda v, m: v >= m, "逐字比了"),
    ("is_at_least", lambda v, m: v.split("+")[0] >= m, "逐字比了"),
    ("is_at_least", lambda v, m: v.split(".") >= m.split("."), "逐字比了"),
    ("is_at_least", lambda v, m: _numbers(v) > _numbers(m), "相等也算"),
]


@pytest.mark.parametrize(("title", "answer", "said"), CASES)
def test_the_refusal_names_the_mistake_that_was_made(title, answer, said):
    verdict = grade(f"ch00.{title}", answer)
    assert verdict.status == "wrong"
    assert said in verdict.text
