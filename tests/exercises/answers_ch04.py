"""第 4 章每道先猜的答案，由 torch 当场算出；写成与题目选项相同的文字。"""

import torch
import torch.nn.functional as F

from companion.data import digits_split
from companion.models import MLP, SmallCNN


def _nearest_on_writers():
    (x, y), (new, truth) = digits_split("writers")
    x, new = x.flatten(1), new.flatten(1)
    m = torch.stack([x[y == k].mean(0) for k in range(10)])
    right = (new[:, None] - m).square().sum(-1).argmin(1) == truth
    return f"约 {right.float().mean():.0%}，明显低了"


def _luckiest_again():
    g = torch.Generator().manual_seed(1)
    truth = torch.randint(0, 10, (2, 100), generator=g)
    right = (torch.randint(0, 10, (1000, 2, 100), generator=g) == truth).sum(-1)
    again = right[right[:, 0].argsort(descending=True)[:10], 1].float().mean().item()
    return "10 道上下，和随便挑的人一样" if abs(again - 10) < 2 else f"{again:.0f} 道上下"


def _first_loss():
    images, labels = digits_split()[1]
    x, w, b = images.flatten(1), torch.zeros(64, 10), torch.zeros(10)
    return f"ln 10，约 {F.cross_entropy(x @ w + b, labels).item():.2f}"


def _early_losses(clear):
    torch.manual_seed(0)
    (images, labels), _ = digits_split()
    model, losses = MLP(64, 32, 10), []
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    for x, y in list(zip(images.split(64), labels.split(64), strict=True))[:16]:
        loss = F.cross_entropy(model(x), y)
        if clear:
            sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    return sum(losses)


def _forgetting_early():
    return "漏掉的更低" if _early_losses(False) < _early_losses(True) else "不漏的更低"


def _looking():
    model = SmallCNN()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model(torch.rand(8, 1, 8, 8))
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    only_norms = all(".running_" in k or "num_batches" in k for k in changed)
    return "有，批归一化攒的平均变了" if changed and only_norms else str(changed)


def _hundred():
    torch.manual_seed(0)
    (images, labels), (new, truth) = digits_split()
    model, unseen = MLP(64, 256, 10), []
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(400):
        adamw.zero_grad()
        F.cross_entropy(model(images[:100]), labels[:100]).backward()
        adamw.step()
        with torch.no_grad():
            unseen.append(F.cross_entropy(model(new), truth).item())
    return "从谷底往上升" if unseen[-1] > 1.1 * min(unseen) else "走平"


def _memorised():
    torch.manual_seed(0)
    (images, labels), _ = digits_split()
    inputs, mixed = images[:1077], labels[:1077][torch.randperm(1077)]
    model = MLP(64, 512, 10)
    adamw = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(200):
        for rows in torch.randperm(1077).split(64):
            adamw.zero_grad()
            F.cross_entropy(model(inputs[rows]), mixed[rows]).backward()
            adamw.step()
        if torch.equal(model(inputs).argmax(1), mixed):
            return "能，多训练一阵子，总能背下来"
    return "不能"


def _fairest_to_ten():
    votes = torch.tensor([0.7, 0.2, 0.1])
    answers = {
        "(1, 0, 0)，多数说了算": torch.tensor([1.0, 0.0, 0.0]),
        "三类各三分之一，谁也不得罪": torch.full((3,), 1 / 3),
        "(0.7, 0.2, 0.1)，照着人数分": votes,
    }
    return min(answers, key=lambda text: -(votes * answers[text].log()).sum().item())


def _polynomial(degree, penalty):
    """12 个点、罚 penalty/2 倍的平方和，没见过的点上的误差。"""
    g = torch.Generator().manual_seed(0)
    t = torch.linspace(-1, 1, 12, dtype=torch.double)
    s = (3 * t).sin() + 0.2 * torch.randn(12, generator=g, dtype=torch.double)
    new = 2 * torch.rand(1000, generator=g, dtype=torch.double) - 1
    truth = (3 * new).sin() + 0.2 * torch.randn(1000, generator=g, dtype=torch.double)
    powers = torch.arange(degree + 1)
    x, eye = t[:, None] ** powers, torch.eye(degree + 1, dtype=torch.double)
    w = torch.linalg.solve(x.T @ x / 6 + penalty * eye, x.T @ s / 6)
    return F.mse_loss(new[:, None] ** powers @ w, truth).item()


def _small_penalty():
    assert (round(_polynomial(3, 0), 2), round(_polynomial(11, 0), 2)) == (0.05, 0.28)
    error = _polynomial(11, 1e-3)
    return "0.05 到 0.06，和 3 次的差不多" if 0.05 < error < 0.06 else f"{error:.2f}"


ANSWERS = {
    "same-score": _nearest_on_writers(),
    "lucky-best": _luckiest_again(),
    "first-loss": _first_loss(),
    "twice-backward": _forgetting_early(),
    "looking-changes": _looking(),
    "hundred": _hundred(),
    "memorise-noise": _memorised(),
    "ten-readers": _fairest_to_ten(),
    "small-penalty": _small_penalty(),
}
MEASURED = {"writers-score"}  # 要训练一个网络才知道，章节里的断言量它
JUDGED = set()
