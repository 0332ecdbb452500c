"""第 4 章每道先猜的答案，由 torch 当场算出；写成与题目选项相同的文字。"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from companion.data import digits_split
from companion.models import SmallCNN
from companion.train import train_epoch


def _nearest_on_writers():
    (x, y), (new, truth) = digits_split("writers")
    x, new = x.flatten(1), new.flatten(1)
    m = torch.stack([x[y == k].mean(0) for k in range(10)])
    right = (new[:, None] - m).square().sum(-1).argmin(1) == truth
    return f"明显更低，约 {right.float().mean():.0%}"


def _luckiest():
    g = torch.Generator().manual_seed(1)
    truth, people = (torch.randint(0, 10, size, generator=g) for size in ((100,), (1000, 100)))
    best = (people == truth).sum(1).max().item()
    return f"{round(best / 10) * 10} 道左右"


def _last_batch():
    return str([len(x) for (x,) in DataLoader(TensorDataset(torch.zeros(1077)), 64)][-1])


def _first_loss():
    torch.manual_seed(0)
    images, labels = digits_split()[1]
    with torch.no_grad():
        loss = F.cross_entropy(SmallCNN()(images), labels).item()
    return "2.3 左右" if abs(loss - 2.3) < 0.3 else f"{loss:.0f} 左右"


def _softmax_floor():
    sure = F.one_hot(torch.tensor([3]), 10).float()
    return f"{F.cross_entropy(sure, torch.tensor([3])).item():.2f}"


def _after_backward():
    w = nn.Parameter(torch.tensor(1.0))
    (3 * w).backward()
    return "1，没变" if w == 1 else f"{w.item():g}"


def _after_two():
    w = nn.Parameter(torch.tensor(1.0))
    (3 * w).backward()
    (3 * w).backward()
    return f"{w.grad.item():g}"


def _looking():
    model = SmallCNN()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model(torch.rand(8, 1, 8, 8))
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    only_norms = all(".running_" in k or "num_batches" in k for k in changed)
    return "有，批归一化攒的平均变了" if changed and only_norms else str(changed)


def _trained(with_train_epoch):
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(100, 1, 8, 8), torch.arange(100) % 10)
    loader = DataLoader(data, 64, shuffle=True, generator=torch.Generator().manual_seed(0))
    model = SmallCNN()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    if with_train_epoch:
        train_epoch(model, loader, loss=F.cross_entropy, optimizer=optimizer)
        return model.state_dict()
    for inputs, targets in loader:
        loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


def _same_bits():
    mine, theirs = _trained(False), _trained(True)
    return "一位不差" if all(torch.equal(mine[k], theirs[k]) for k in mine) else "有差别"


def _memorised():
    torch.manual_seed(0)
    (images, _), _ = digits_split()
    inputs, nonsense = images[:64], torch.randint(0, 10, (64,))
    model = SmallCNN()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        train_epoch(model, [(inputs, nonsense)], loss=F.cross_entropy, optimizer=optimizer)
    right = (model.eval()(inputs).argmax(1) == nonsense).sum().item()
    return "64 张全对" if right == 64 else f"{right} 张"


ANSWERS = {
    "same-score": _nearest_on_writers(),
    "lucky-best": _luckiest(),
    "last-batch": _last_batch(),
    "first-loss": _first_loss(),
    "softmax-floor": _softmax_floor(),
    "backward-moves": _after_backward(),
    "twice-backward": _after_two(),
    "looking-changes": _looking(),
    "same-bits": _same_bits(),
    "memorise-noise": _memorised(),
}
MEASURED = {"writers-score"}  # 要训练一个网络才知道，章节里的断言量它
JUDGED = set()
