"""第 4 章《训练》的检查器。每个都用几组不同的输入试，只试一组会放过碰巧对的答案。"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from companion._common import random_position
from companion.book.exercises._ch04_theory import wrong_l1_step, wrong_two_classes
from companion.book.exercises._common import close, mutates, require_number
from companion.book.exercises._draws import chi_square

Answer = Callable[..., Any]


def three_way(answer: Answer) -> str | None:
    before = random_position()
    for n, valid, test in ((10, 2, 3), (200, 40, 60)):
        parts = answer(n, valid, test, 0)
        if random_position() != before:
            return "全局的随机数被动过了：给 randperm 一个自己的 generator。"
        if wrong := _wrong_parts(parts, n, valid, test):
            return wrong
    if torch.equal(parts[0].sort().values, torch.arange(n - valid - test)):
        return "训练那份正好是开头的那些行：先把 n 个全部打乱，再切。"
    if any(not torch.equal(a, b) for a, b in zip(parts, answer(n, valid, test, 0), strict=True)):
        return "同一个种子，两次切得不一样。"
    if any(torch.equal(parts[0], answer(n, valid, test, seed)[0]) for seed in (1, 2, 5)):
        return "换了种子，切法没变。"
    return _wrong_shuffle(answer, torch.cat(list(parts)))


def _wrong_shuffle(answer: Answer, order: Tensor) -> str | None:
    """打乱得匀不匀：看相邻的差有没有规律，再换一百五十个种子，看每个下标落到各处的次数。"""
    gaps = order.diff() % len(order)
    if len(gaps.unique()) < len(order) // 3:  # 打乱的约有六成不同
        return "下标还排着队，相邻的差来回就是那几个：把 0 到 n-1 整个打乱，再切。"
    places = torch.zeros(10, 10)
    for seed in range(150):
        places[torch.arange(10), torch.cat(list(answer(10, 2, 3, seed)))] += 1
    if chi_square(places.flatten()) > 81 + 5 * 162**0.5:
        return "换了一百五十个种子，有的下标老在同样的位置：整个打乱一次就切，不再排序。"
    return None


def _wrong_parts(parts: Any, n: int, valid: int, test: int) -> str | None:
    """切出来的三份哪里不对；看形状、dtype、有没有重叠和遗漏。"""
    if not isinstance(parts, (tuple, list)) or len(parts) != 3:
        return "要返回三个张量：训练、验证、测试。"
    for part in parts:
        if not isinstance(part, Tensor) or part.dtype != torch.int64:
            kind = f"{part.dtype} 的张量" if isinstance(part, Tensor) else type(part).__name__
            return f"每一份都应是 int64 的下标张量，你的是 {kind}。"
        if part.ndim != 1:
            return f"每一份都应是一维的，你的形状是 {tuple(part.shape)}。"
    if (sizes := [len(p) for p in parts]) != [n - valid - test, valid, test]:
        return f"n={n} 时三份各有 {sizes} 个，应是 {[n - valid - test, valid, test]}。"
    together = torch.cat(list(parts))
    if len(together.unique()) != n:
        return f"三份合起来只有 {len(together.unique())} 个不同的下标，应有 {n} 个：重叠了。"
    if not torch.equal(together.sort().values, torch.arange(n)):
        return f"下标应是 0 到 {n - 1}。"
    return None


def num_steps(answer: Answer) -> str | None:
    for n, batch, epochs in ((128, 64, 1), (1077, 64, 3), (10, 4, 5), (3, 64, 2), (64, 64, 4)):
        for drop_last in (None, False, True):
            given = (n, batch, epochs) if drop_last is None else (n, batch, epochs, drop_last)
            whole, every = n // batch * epochs, -(-n // batch) * epochs
            got, truth = answer(*given), whole if drop_last else every
            require_number(got, int)
            if got == truth:
                continue
            told = "没写 drop_last" if drop_last is None else f"drop_last={drop_last}"
            where = f"{n} 张、每批 {batch}、{epochs} 轮、{told}：你得到 {got}"
            if drop_last and got == every:
                return f"{where}。零头那批这次不算。"
            if not drop_last and got == whole:
                return f"{where}，漏了短的那批。"
            if got == epochs:
                return f"{where}，那是一轮只改一次。每一批都改一次。"
            if n % batch == 0:
                return f"{where}，不对：正好分完，没有零头。"
            rest = "零头每轮都扔掉" if drop_last else "零头每轮都算一批"
            return f"{where}，不对。{rest}，不会攒到下一轮。"
    return None


def epoch_loss(answer: Answer) -> str | None:
    for losses, sizes in (([2.0, 2.5], [4, 4]), ([1.0, 1.2, 5.0], [2, 2, 1]), ([3.0, 0.5], [1, 9])):
        got = answer(losses, sizes)
        require_number(got, float)
        total = sum(loss * size for loss, size in zip(losses, sizes, strict=True))
        if close(got, total / sum(sizes)):
            continue
        where = f"损失 {losses}、张数 {sizes} 上得到 {got:.4g}"
        if close(got, sum(losses) / len(losses)):
            return f"{where}：各批一样重了，短的那批多占了分量。"
        if close(got, total):
            return f"{where}：这是总和，还没有除。"
        if close(got, total / len(losses)):
            return f"{where}：总和除以的是批数，该除以什么？"
        return f"{where}，不对：每批的损失各乘自己的张数，加起来，除以总张数。"
    return None


@mutates(0, 3)
def train_step(answer: Answer) -> str | None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 8, 5, generator=generator)
    targets = torch.randint(0, 4, (4, 8), generator=generator)
    (model, sgd), (reference, reference_sgd) = _twins()
    for step, (x, y) in enumerate(zip(inputs, targets, strict=True), start=1):
        start, modes = [p.detach().clone() for p in model.parameters()], _modes(model)
        untaught = F.cross_entropy(copy.deepcopy(reference)(x).softmax(1), y).item()
        during: list[list[bool]] = []
        hook = model.register_forward_pre_hook(lambda m, _, seen=during: seen.append(_modes(m)))
        got = answer(model, x, y, sgd)
        hook.remove()
        require_number(got, float)
        if any(now != modes for now in (*during, _modes(model))):
            return "进来时模型在 train 状态，前向或离开时不是：训练的一步不要 eval()。"
        if close(got, untaught):
            return "损失像是先做了一次 softmax。cross_entropy 收的是得分。"
        loss = F.cross_entropy(reference(x), y)
        reference_sgd.zero_grad()
        loss.backward()
        reference_sgd.step()
        if all(torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True)):
            return f"第 {step} 步之后，参数一个也没动。step 之前，.grad 里有东西吗？"
        if not _same(model.parameters(), reference.parameters()):
            return _why_different(step)
        if abs(got - loss.item()) > 1e-5:
            return f"参数更新对了，返回的损失是 {got:.6g}，更新之前的那个是 {loss:.6g}。"
        if not _same(model.buffers(), reference.buffers()):
            return "参数和损失都对，可是前向不止一次：批归一化攒的平均多动了。"
    return None


def _modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def _twins() -> list[tuple[nn.Module, torch.optim.Optimizer]]:
    """两个一模一样的小网络，各带各的优化器；有批归一化，eval 状态下算出来的就不同。"""
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    pair = model, copy.deepcopy(model)
    return [(one, torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.5)) for one in pair]


def _same(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(torch.allclose(a.float(), b.float(), atol=1e-6) for a, b in pairs)


def _why_different(step: int) -> str:
    if step == 1:
        return "第 1 步之后参数就和标准循环不一样：更新了几次？方向、大小对吗？"
    causes = ".grad 清零了吗？是同一个 optimizer 更新的吗，它和模型改过吗？"
    return f"第 1 步对，第 {step} 步不对：{causes}"


class _Probe(nn.Module):
    """输入就是得分；记下前向时是什么状态，train 状态下故意全猜错。"""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Dropout(0.5)
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, scores: Tensor) -> Tensor:
        self.modes.add((self.training or self.inner.training, torch.is_grad_enabled()))
        return -scores if self.training else self.inner(scores)


def accuracy(answer: Answer) -> str | None:
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    guesses = torch.tensor([0, 2, 2, 0, 0, 2, 2])  # 第 2、5 个错
    for n, batch, start in ((5, 5, False), (7, 4, False), (6, 4, True), (4, 3, True)):
        scores = F.one_hot(guesses[:n], 3).float() - 0.5
        right = (guesses == targets)[:n].float()
        model, truth = _Probe().train(start), right.mean().item()
        got = answer(model, DataLoader(TensorDataset(scores, targets[:n]), batch))
        if any(training for training, _ in model.modes):
            return "算分时模型在 train 状态，丢弃和批归一化会捣乱。"
        require_number(got, float)
        if close(got, truth):
            if any(grad for _, grad in model.modes):
                return "分数对了，可是前向还在记怎么求导，白占内存。"
            continue
        where = f"{n} 张、每批 {batch} 张，对了 {right.sum():g} 张，得到 {got:.4g}"
        if close(got, 100 * truth):
            return f"{where}：这是百分数，要 0 到 1 的比例。"
        if close(got, 1 - truth):
            return f"{where}：这是错的比例。"
        shares = [part.mean().item() for part in right.split(batch)]
        if close(got, sum(shares) / len(shares)):
            return f"{where}：短的那批和别的批一样重了。"
        return f"{where}，不对：每一批都数到了吗，除的是总张数吗？"
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
    ((2.0, 1.0, 4.0, 3.0, 5.0), 5, 2, 4, 1),
)


@mutates(0, 3)
def fit_until(answer: Answer) -> str | None:
    batch = [(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))]
    for losses, epochs, patience, stop, best in _SCRIPTS:
        model = _Scripted(losses)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        got = answer(model, batch, batch, sgd, epochs, patience)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            return "要返回两样：history 和 best。"
        wrong = (
            _wrong_stop(losses, got[1], stop, best, len(model.after))
            or _wrong_history(got[0], losses[:stop])
            or _wrong_best(got[1], best)
            or _wrong_state(model, best, ran_out=stop == epochs)
        )
        if wrong:
            where = f"验证损失依次是 {list(losses[:epochs])}、patience={patience} 时"
            return f"{where}，{wrong}"
    return None


def _wrong_stop(
    losses: tuple[float, ...], given: Any, stop: int, truth: int, ran: int
) -> str | None:
    if ran == stop:
        return None
    start = f"应训练 {stop} 轮，你训练了 {ran} 轮："
    if ran < stop:
        if given == 0 != truth:  # 假模型的准确率从头到尾是 0
            return f"{start}停早了。谁更好看损失，不看准确率；这里的准确率一直没变。"
        return f"{start}停早了。数一数离最好的一轮有几轮。"
    if isinstance(given, int) and truth < given < ran and losses[given] == losses[truth]:
        return f"{start}停晚了。并列取最早的：损失一样，不算更低。"
    return f"{start}停晚了。每轮的损失都和最好的比，不和上一轮比；数一数离最好的一轮有几轮。"


def _wrong_history(history: Any, losses: tuple[float, ...]) -> str | None:
    if not isinstance(history, list) or len(history) != len(losses):
        return f"history 应是 {len(losses)} 项的列表，一轮一项。"
    for row, loss in zip(history, losses, strict=True):
        if isinstance(row, list) and len(row) == 1:
            return (
                "history 的一项应是（损失，准确率）；my_fit 返回的是列表，用 += 接上，别 append。"
            )
        if not isinstance(row, (tuple, list)) or len(row) != 2:
            return f"history 的一项应是（损失，准确率），你的是 {type(row).__name__}。"
        if abs(float(row[0]) - loss) > 1e-3:
            return "history 里的损失对不上：每一项应是那一轮的（损失，准确率）。"
    return None


def _wrong_best(best: Any, truth: int) -> str | None:
    if isinstance(best, bool) or not isinstance(best, int):
        return f"best 应是一个整数，你给的是 {type(best).__name__}。"
    if best == truth + 1:
        return f"best 应是 {truth}，你给的是 {best}：从 0 数起，并列取最早的。"
    return None if best == truth else f"best 应是 {truth}，你给的是 {best}。"


def _wrong_state(model: _Scripted, best: int, ran_out: bool) -> str | None:
    """模型装着的是不是最好那一轮；`ran_out` 说轮数是用完的，不是提前停的。"""
    kept = model.after[best]
    if not torch.allclose(model.get_parameter("weight"), kept["weight"]):
        if ran_out:  # 提前停的那几次都装回了
            return f"模型里的参数不是下标 {best} 那一轮的：轮数用完的那条路也要装回。"
        return (
            f"模型里的参数不是下标 {best} 那一轮的：state_dict() 的张量和模型共用内存，"
            "留之前要 clone，返回之前要装回。"
        )
    if not torch.equal(model.get_buffer("epochs"), kept["epochs"]):
        return "参数装回了，缓冲区没有：批归一化攒的平均不在 parameters() 里。"
    return None


def two_classes(answer: Any) -> str | None:
    return wrong_two_classes(answer)


def l1_step(answer: Answer) -> str | None:
    return wrong_l1_step(answer)
