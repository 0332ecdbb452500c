"""第 0 章《开始之前》的检查器。每个都用几组不同的输入试，只试一组会放过碰巧对的答案。"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch

from companion.book.exercises._common import (
    Wrong,
    close,
    require_integers,
    require_number,
    require_tensor,
)
from companion.book.exercises._watch import Watch

Answer = Callable[..., Any]


def first_tensor(answer: Any) -> str | None:
    if isinstance(answer, list):
        return "这是 Python 的列表，还不是张量：交给 torch.tensor 转一下。"
    require_tensor(answer, (3,))
    if answer.is_floating_point():
        return f"要整数，你的是小数（{answer.dtype}）。哪里写了小数点？"
    require_integers(answer, (3,))
    return None if answer.tolist() == [3, 1, 4] else f"里面的数不对：{answer.tolist()}。"


def count_parameters(answer: Answer) -> str | None:
    for sizes in ((64, 32, 10), (5, 1), (64, 64, 64, 10), (2, 3, 4), (7, 2, 5, 5, 3, 6)):
        layers = list(pairwise(sizes))
        one = "函数收一个参数 sizes，里面是各层的宽度"
        fixed = one if len(sizes) == 3 else "层数不限，也可能只有两个宽度"
        got, weights = _call(answer, fixed, sizes), sum(i * o for i, o in layers)
        require_number(got, int)
        if got == weights + sum(o for _, o in layers):
            continue
        if got == weights:
            return f"宽度 {sizes} 上少了 {sum(o for _, o in layers)} 个：只数了乘数。"
        if got == weights + sum(i for i, _ in layers):
            return f"宽度 {sizes} 上不对：加数是每个输出一个，不是每个输入一个。"
        if len(sizes) > 3:
            return f"短的算对了，宽度 {sizes} 得到 {got}，不对：每一层都要数到，一样的也各算各的。"
        return f"宽度 {sizes} 上得到 {got}，不对：先写出每一层有几个乘数、几个加数。"
    return None


def _call(answer: Answer, why: str, *args: Any) -> Any:
    """`answer(*args)`；读者的函数在这里抛异常，就把 `why` 说在前面。"""
    try:
        return answer(*args)
    except Wrong as error:
        if (cause := error.__cause__) is None:
            raise
        given, first = "、".join(map(repr, args)), str(cause).partition("\n")[0]
        raise Wrong(f"{given} 上走不通：{why}（{type(cause).__name__}: {first}）") from cause


Pair = tuple[str, str]
VERSIONS: dict[Pair, str] = {  # (version, minimum)：答错了说什么
    ("2.15.0", "2.9.0"): "15 比 9 大",
    ("2.9.0", "2.15.0"): "9 比 15 小",
    ("2.11.0", "2.11.0"): "相等也算“不早于”",
    ("2.11.1", "2.11.3"): "第三段也要比",
    ("2.11.10", "2.11.9"): "第三段也要当整数比：10 比 9 大",
    ("3.0.0", "2.15.0"): "第一段大，后面就不用看了",
    ("1.15.3", "2.0.0"): "第一段小，后面就不用看了",
    ("2.9.10", "2.11.0"): "第二段小，第三段就不用看了",
    ("2.0.9", "2.1.0"): "第二段小，第三段就不用看了",
    ("10.0.0", "9.15.0"): "第一段也要当整数比：10 比 9 大",
}
TAILS: dict[Pair, str] = {
    ("2.15.0+cu132", "2.15.0"): "尾巴不参与比较",
    ("2.15.0+cu132", "2.15.1"): "尾巴不参与比较",
    ("2.15.0+cpu", "2.15.0"): "尾巴不参与比较，也不总是 cu132",
}


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split("+")[0].split(".")]


# 常见的写错：它会怎样答，要说的话。先看整排答案像哪一种，再说；只看一对，几种写错分不开
MISTAKEN: tuple[tuple[Callable[[str, str], bool], str], ...] = (
    (lambda v, m: _numbers(v) <= _numbers(m), "比反了：要问的是 version 不早于 minimum。"),
    (lambda v, m: v >= m, "逐字比了？字符串从左边一个字一个字比，“1”排在“9”前面。"),
    (
        lambda v, m: float(v.rpartition(".")[0]) >= float(m.rpartition(".")[0]),
        "当小数比了？小数 2.15 比 2.9 小，版本 2.15 比 2.9 新。",
    ),
    (
        lambda v, m: int(v.replace(".", "")) >= int(m.replace(".", "")),
        "把各段连成一个数了？2.9.10 连成 2910，2.11.0 连成 2110，就比反了。",
    ),
)


def is_at_least(answer: Answer) -> str | None:
    got = {pair: _asked(answer, pair) for pair in VERSIONS}
    for wrong, why in MISTAKEN:
        if all(got[pair] == wrong(*pair) for pair in VERSIONS if pair[0] != pair[1]):
            return why
    for pair, why in (VERSIONS | TAILS).items():
        said = got[pair] if pair in got else _asked(answer, pair)
        if said != (_numbers(pair[0]) >= _numbers(pair[1])):
            return f"{pair[0]!r} 和 {pair[1]!r} 上答了 {said}。{why}。"
    return None


def _asked(answer: Answer, pair: Pair) -> bool:
    got = _call(answer, TAILS.get(pair, "每一段先变成整数"), *pair)
    require_number(got, bool)
    return bool(got)


def slope(answer: Answer) -> str | None:
    for value in (2.0, -1.0, 0.5, 0.0):
        with Watch() as seen:
            got = answer(value)
        truth = 3 * value**2
        if isinstance(got, torch.Tensor):
            return "你返回的是张量，要 Python 的数：取 .item()。"
        require_number(got, float)
        if close(got, value**3) and not close(got, truth):
            return f"在 {value} 处得到 {got}：这是三次方本身，不是斜率。"
        if close(got, 2 * value) and not close(got, truth):
            return f"在 {value} 处得到 {got}：这是 x² 的斜率，题目是 x³。"
        if close(got, 2 * truth) and not close(got, truth):
            return f"在 {value} 处得到 {got}，正好是两倍：backward() 往 .grad 上加，只叫一次。"
        if abs(got - truth) > 1e-4:
            return f"在 {value} 处得到 {got}，不对：求导之后看 .grad。"
        if not seen.differentiated:
            return "数都对，可是没有用自动求导：造一个 requires_grad=True 的张量，再 backward()。"
    return None


def one_step(answer: Any) -> str | None:
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        return "要两个数写成的元组，依次是第一步、第二步之后的 w。"
    try:
        first, second = (float(value) for value in answer)
    except (TypeError, ValueError):
        return f"两个都要是数，你写的是 {answer!r}。"
    if abs(first + 36) < 0.01:
        return f"{first:g} 是 0 处的斜率；要的是挪过之后的 w：旧的 w 减去学习率乘斜率。"
    if abs(first - 1.8) < 0.01:
        return "这是学习率 0.05 走的，题目把它改成了 0.1。"
    if abs(first - 1.2) < 0.01:
        return "斜率少乘了一个 3：里面的 3w - 6 也要对 w 求导。"
    if first < 0:
        return "方向反了：斜率是负的，减去它，w 要变大。"
    if not abs(first - 3.6) < 0.01:
        return f"第一步得到 {first:g}，不对：0 处的斜率是 -36，再乘 0.1。"
    if abs(second - 7.2) < 0.01:
        return "第二步还在用旧的斜率：斜率要在新的 w 上重算。"
    if not abs(second - 0.72) < 0.01:
        return f"第一步对了，第二步得到 {second:g}，不对：先算 3.6 处的斜率。"
    return None


PART_WORDS = ("数据", "模型", "目标", "优化器", "训练", "泛化")


def which_part(answer: Any) -> str | None:
    if not isinstance(answer, (tuple, list)) or len(answer) != 3:
        return "要三个词写成的元组，依次答三问。"
    answer = [str(word).strip().removesuffix("误差") for word in answer]
    for word in answer:
        if word not in PART_WORDS:
            return f"{word!r} 不在可选的词里：{'、'.join(PART_WORDS)}。"
    what, rate, score = answer
    if what != "数据":
        return f"第一问答了“{what}”：电影评论是拿来学的输入和答案。"
    if rate != "优化器":
        return f"第二问答了“{rate}”：学习率管的是每一步挪多远，谁在挪？"
    if score == "泛化":
        return "第三问：考的是同样的 5000 条，全都见过。"
    return None if score == "训练" else f"第三问只问训练还是泛化，你答了“{score}”。"


def learn_rule(answer: Answer) -> str | None:
    for x, y, digit, why in _rule_cases():
        got = answer(x.clone(), y.clone(), digit)
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            return f"要返回三样 (pixel, t, flip)，你返回的是 {got}。"
        pixel, t, flip = got
        if not isinstance(flip, bool) or isinstance(pixel, bool) or isinstance(t, bool):
            return f"依次要整数、整数、True 或 False，你返回的是 {got}。"
        if not (isinstance(pixel, int) and isinstance(t, int)):
            return f"pixel 和 t 要整数，你返回的是 {got}。"
        if not (0 <= pixel < x.shape[1] and 0 <= t <= 16):
            return f"pixel 在 0 到 63，t 在 0 到 16 之间，你返回的是 {got}。"
        truth, value = y == digit, x[:, pixel]
        wrong = int((((value > t) ^ flip) != truth).sum())
        fewest = _fewest_mistakes(x, truth)
        if wrong > fewest:
            why = _misread(value, t, flip, truth, fewest) or why
            return f"{got} 错 {wrong} 张，还有一条只错 {fewest} 张。{why}"
    return None


def _misread(
    value: torch.Tensor, t: int, flip: bool, truth: torch.Tensor, fewest: int
) -> str | None:
    """交来的规则换一种读法就最好：读者找的是那一种，说出差在哪里。"""
    if int((((value > t) ^ (not flip)) != truth).sum()) == fewest:
        return "flip 的真假写反了（True 是“不大于 t，就是 digit”），或者留下了错得最多的一条。"
    if int((((value >= t) ^ flip) != truth).sum()) == fewest:
        if flip:
            return "“不大于”写成了“小于”？正好等于 t 的，也算不大于。"
        return "“大于”写成了“大于等于”？正好等于 t 的，不算大于。"
    return None


def _rule_cases() -> Iterator[tuple[torch.Tensor, torch.Tensor, int, str]]:
    """几份小数据 ``(x, y, digit, 提示)``：除了一格，其余各格都是噪声。"""
    generator = torch.Generator().manual_seed(0)

    def noisy(n: int, digit: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randint(17, (n, 64), generator=generator).float()
        other = (digit + torch.randint(1, 10, (n,), generator=generator)) % 10
        return x, torch.where(torch.arange(n) % 3 == 0, digit, other)

    for digit, pixel, yes, no, why in (
        (7, 20, 6.0, 5.0, "64 格、17 个 t 都试到了吗？比的是错了几张吗？"),
        (3, 63, 12.0, 5.0, "最后一格试到了吗？"),
        (8, 0, 12.0, 5.0, "第 0 格试到了吗？"),
        (0, 36, 5.0, 6.0, "“不大于 t 时说是”，也就是 flip=True，也要试。"),
        (1, 11, 1.0, 0.0, "t 从 0 试起。"),
        (9, 50, 16.0, 15.0, "t 要试到 15。"),
    ):
        x, y = noisy(40, digit)
        x[:, pixel] = torch.where(y == digit, yes, no)
        yield x, y, digit, why
    x, y = noisy(25, 4)
    yield x, y, 4, "没有全对的规则时，也要留下错得最少的一条。"
    x, y = noisy(30, 2)
    x[0], x[1], y[y == 2] = 0.0, 16.0, 6
    yield x, y, 2, "一张 2 也没有，最好的规则是从不说：t 要试到 16，谁也不大于它。"


def _fewest_mistakes(x: torch.Tensor, truth: torch.Tensor) -> int:
    """全部 64×17×2 条规则里，错得最少的错几张。"""
    dark = x[:, :, None] > torch.arange(17)
    wrong = (dark != truth[:, None, None]).sum(0)
    return int(torch.minimum(wrong, len(x) - wrong).min())
