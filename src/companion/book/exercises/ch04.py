"""第 4 章《训练》的检查器。每个都用几组不同的输入试，只试一组会放过碰巧对的答案。"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Answer = Callable[..., Any]


def three_way(answer: Answer) -> str | None:
    for n, valid, test in ((10, 2, 3), (200, 40, 60)):
        state = torch.get_rng_state()
        parts = answer(n, valid, test, 0)
        if not torch.equal(state, torch.get_rng_state()):
            return "全局的随机数被动过了：给 randperm 一个自己的 generator。"
        if wrong := _wrong_parts(parts, n, valid, test):
            return wrong
    if torch.equal(parts[0].sort().values, torch.arange(n - valid - test)):
        return "训练那份正好是开头的那些行：没有打乱。"
    if any(not torch.equal(a, b) for a, b in zip(parts, answer(n, valid, test, 0), strict=True)):
        return "同一个种子，两次切得不一样。"
    if torch.equal(parts[0], answer(n, valid, test, 1)[0]):
        return "换了种子，切法没变。"
    return None


def _wrong_parts(parts: Any, n: int, valid: int, test: int) -> str | None:
    """切出来的三份哪里不对；看形状、dtype、有没有重叠和遗漏。"""
    if not isinstance(parts, (tuple, list)) or len(parts) != 3:
        return "要返回三个张量：训练、验证、测试。"
    if not all(isinstance(p, Tensor) and p.dtype == torch.int64 for p in parts):
        return "每一份都应是 int64 的下标张量。"
    if (sizes := [len(p) for p in parts]) != [n - valid - test, valid, test]:
        return f"n={n} 时三份各有 {sizes} 个，应是 {[n - valid - test, valid, test]}。"
    together = torch.cat(list(parts))
    if len(together.unique()) != n:
        return f"三份合起来只有 {len(together.unique())} 个不同的下标，应有 {n} 个：重叠了。"
    if not torch.equal(together.sort().values, torch.arange(n)):
        return f"下标应是 0 到 {n - 1}。"
    return None


def num_steps(answer: Answer) -> str | None:
    for n, batch, epochs in ((128, 64, 1), (1077, 64, 3), (10, 4, 5), (3, 64, 2)):
        for drop_last in (False, True):
            got = answer(n, batch, epochs, drop_last)
            if isinstance(got, bool) or not isinstance(got, int):
                return f"要一个整数，你返回的是 {type(got).__name__}。"
            loader = DataLoader(TensorDataset(torch.zeros(n)), batch, drop_last=drop_last)
            if got == len(loader) * epochs:
                continue
            where = f"{n} 张、每批 {batch}、{epochs} 轮、drop_last={drop_last}"
            if got == epochs:
                return f"{where}：你得到 {got}，那是一轮只改一次。每一批都改一次。"
            if drop_last:
                return f"{where}：你得到 {got}。零头那批这次不算。"
            if got == n // batch * epochs:
                return f"{where}：你得到 {got}，漏了短的那批。"
            return f"{where}：你得到 {got}，不对。零头每轮都算一批，不会攒到下一轮。"
    return None


def epoch_loss(answer: Answer) -> str | None:
    for losses, sizes in (([2.0, 2.0], [4, 4]), ([1.0, 1.0, 5.0], [2, 2, 1]), ([3.0, 0.5], [1, 9])):
        got = answer(losses, sizes)
        if isinstance(got, bool) or not isinstance(got, float):
            return f"要 float，你返回的是 {type(got).__name__}。"
        total = sum(loss * size for loss, size in zip(losses, sizes, strict=True))
        if abs(got - total / sum(sizes)) < 1e-9:
            continue
        where = f"损失 {losses}、张数 {sizes} 上得到 {got:.4g}"
        if abs(got - sum(losses) / len(losses)) < 1e-9:
            return f"{where}：各批一样重了，短的那批多占了分量。"
        if abs(got - total) < 1e-9:
            return f"{where}：这是总和，还没有除。"
        if abs(got - total / len(losses)) < 1e-9:
            return f"{where}：总和除以的是批数，该除以什么？"
        return f"{where}，不对。"
    return None


def train_step(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 8, 5, generator=generator)
    targets = torch.randint(0, 4, (3, 8), generator=generator)
    (model, sgd), (reference, reference_sgd) = _twins()
    for step, (x, y) in enumerate(zip(inputs, targets, strict=True), start=1):
        start = [p.detach().clone() for p in model.parameters()]
        got = answer(model, x, y, sgd)
        if not isinstance(got, float):
            return f"要返回 float，你返回的是 {type(got).__name__}。张量用 .item() 取成数。"
        loss = F.cross_entropy(reference(x), y)
        if abs(got - F.cross_entropy(reference(x).softmax(1), y).item()) < 1e-6:
            return "损失像是先做了一次 softmax。cross_entropy 收的是得分。"
        reference_sgd.zero_grad()
        loss.backward()
        reference_sgd.step()
        if all(torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True)):
            return f"第 {step} 步之后，参数一个也没动。step 之前，.grad 里有东西吗？"
        if not _same(model, reference):
            return _why_different(step)
        if abs(got - loss.item()) > 1e-6:
            return "参数更新对了，返回的损失不是更新之前的那个。"
    return None


def _twins() -> list[tuple[nn.Module, torch.optim.Optimizer]]:
    """两个一模一样的小网络，各带各的优化器；不动全局的随机数。"""
    twins: list[tuple[nn.Module, torch.optim.Optimizer]] = []
    for _ in range(2):
        model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        twins.append((model, torch.optim.SGD(model.parameters(), lr=0.1)))
    return twins


def _same(model: nn.Module, reference: nn.Module) -> bool:
    pairs = zip(model.parameters(), reference.parameters(), strict=True)
    return all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def _why_different(step: int) -> str:
    if step == 1:
        return "第 1 步之后参数就和标准循环不一样：更新了几次？方向对吗？"
    return f"第 1 步对，第 {step} 步不对：有什么东西从上一步留了下来？"


class _Probe(nn.Module):
    """输入就是得分；记下前向时是什么状态，train 状态下故意全猜错。"""

    def __init__(self) -> None:
        super().__init__()
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, scores: Tensor) -> Tensor:
        self.modes.add((self.training, torch.is_grad_enabled()))
        return -scores if self.training else scores


def accuracy(answer: Answer) -> str | None:
    targets = torch.tensor([0, 1, 2, 0, 1])
    scores = F.one_hot(torch.tensor([0, 1, 2, 0, 2]), 3).float()  # 最后一个错
    for batch, start in ((5, False), (4, False), (2, True)):
        model = _Probe().train(start)
        got = answer(model, DataLoader(TensorDataset(scores, targets), batch))
        if any(training for training, _ in model.modes):
            return "算分时模型在 train 状态，丢弃和批归一化会捣乱。"
        if isinstance(got, bool) or not isinstance(got, float):
            return f"要 float，你返回的是 {type(got).__name__}。"
        if abs(got - 80) < 1e-4:
            return "你返回了百分数，要 0 到 1 的比例。"
        if abs(got - 0.8) > 1e-6:
            return f"5 张、每批 {batch} 张时得到 {got:.4g}，不对：短的那批和别的批一样重了吗？"
        if any(grad for _, grad in model.modes):
            return "分数对了，可是前向还在记怎么求导，白占内存。"
        if model.training != start:
            return f"进来时 training={start}，离开时成了 {model.training}。"
    return None


def grad_logits(answer: Any) -> str | None:
    try:
        values = torch.as_tensor(answer, dtype=torch.float64).detach().flatten()
    except (TypeError, ValueError, RuntimeError):
        return "要三个数，写成一个列表，如 [0.10, 0.20, 0.30]。"
    if len(values) != 3:
        return f"要三个数，每个得分一个；你给了 {len(values)} 个。"
    if not values.isfinite().all():
        return "三格都应是普通的数，你的里面有 nan 或 inf。"
    z = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    p = z.softmax(0)
    truth = p - F.one_hot(torch.tensor(0), 3)
    if _within(values, truth):
        return None
    if _within(values, p):
        return "这是概率 p。还要减掉正确答案那一格的 1。"
    if _within(values, -truth):
        return "符号反了。正确那一格的斜率是负的：它的得分越大，损失越小。"
    if abs(values.sum()) > 0.02:
        return f"三个数之和应是 0：p 加起来是 1，又减掉了一个 1。你的和是 {values.sum():.2f}。"
    return "和是 0，可是各格不对。每一格先求出 p，再看哪一格要减 1。"


def _within(values: Tensor, truth: Tensor) -> bool:
    return bool(((values - truth).abs() <= 0.01).all())


class _Scripted(nn.Module):
    """验证损失照脚本走的假模型：训练过几轮，就给第几个损失。"""

    def __init__(self, losses: tuple[float, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.epochs: Tensor
        self.register_buffer("epochs", torch.tensor(0))
        self.losses = losses
        self.after: list[dict[str, Tensor]] = []  # 每轮之后的状态

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.epochs += 1
            return self.weight.expand(len(inputs), 2)
        at = int(self.epochs)
        if at > len(self.after):
            self.after.append({name: v.clone() for name, v in self.state_dict().items()})
        loss = torch.tensor(self.losses[min(at, len(self.losses)) - 1] if at else 9.0)
        return torch.stack([torch.zeros(()), loss.expm1().log()]).expand(len(inputs), 2)


_SCRIPTS = (  # 各轮的验证损失，最多几轮，等几轮；应停在第几轮之后，最好的下标
    ((3.0, 2.0, 4.0, 5.0, 6.0, 1.0), 6, 3, 5, 1),
    ((5.0, 4.0, 3.0, 2.0), 4, 2, 4, 3),
    ((1.0, 2.0, 3.0, 4.0), 4, 2, 3, 0),
    ((2.0, 1.0, 1.0, 1.0, 3.0), 5, 2, 4, 1),
    ((3.0, 2.0, 4.0, 1.0, 5.0, 6.0), 6, 3, 6, 3),
)


def fit_until(answer: Answer) -> str | None:
    batch = [(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))]
    for losses, epochs, patience, stop, best in _SCRIPTS:
        model = _Scripted(losses)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        got = answer(model, batch, batch, sgd, epochs, patience)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            return "要返回两样：history 和 best。"
        where = f"验证损失依次是 {list(losses[:epochs])}、patience={patience} 时"
        if wrong := _wrong_stop(got[0], got[1], stop, best, len(model.after)):
            return f"{where}{wrong}"
        if any(abs(float(row[0]) - want) > 1e-3 for row, want in zip(got[0], losses, strict=False)):
            return f"{where}，history 里的损失对不上：每一项应是那一轮的（损失，准确率）。"
        if wrong := _wrong_state(model, model.after[best], best):
            return f"{where}{wrong}"
    return None


def _wrong_stop(history: Any, best: Any, stop: int, truth: int, ran: int) -> str | None:
    if ran != stop:
        when = "停早了" if ran < stop else "停晚了"
        return f"，应训练 {stop} 轮，你训练了 {ran} 轮：{when}。数一数离最好的一轮有几轮。"
    if not isinstance(history, list) or len(history) != stop:
        return f"，history 应是 {stop} 项的列表，一轮一项。"
    if isinstance(best, bool) or not isinstance(best, int):
        return f"，best 应是一个整数，你给的是 {type(best).__name__}。"
    if best == truth + 1:
        return f"，best 应是 {truth}，你给的是 {best}：从 0 数起，并列取最早的。"
    return None if best == truth else f"，best 应是 {truth}，你给的是 {best}。"


def _wrong_state(model: nn.Module, kept: dict[str, Tensor], best: int) -> str | None:
    if not torch.allclose(model.get_parameter("weight"), kept["weight"]):
        return (
            f"，模型里的参数不是下标 {best} 那一轮的：state_dict() 的张量和模型共用内存，"
            "留之前要 clone，返回之前要装回。"
        )
    if not torch.equal(model.get_buffer("epochs"), kept["epochs"]):
        return "，参数装回了，缓冲区没有：批归一化攒的平均不在 parameters() 里。"
    return None
