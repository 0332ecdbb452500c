"""第 0 章每道先猜的答案，当场算出；写成与题目选项相同的文字。"""

from pathlib import Path

import torch
from torch import nn

from companion.data import digits_split
from companion.models import SmallCNN


def _untrained():
    torch.manual_seed(0)
    _, (images, labels) = digits_split()
    with torch.no_grad():
        right = sum(SmallCNN().eval()(images).argmax(1).eq(labels).float().mean() for _ in range(9))
    return f"{round(right.item() / 9, 1) * 100:.0f} 张左右"


def _parameter_count():
    layers = nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    return str(sum(p.numel() for p in nn.Sequential(*layers).parameters()))


def _two_linears():
    a, b, x = nn.Linear(4, 3), nn.Linear(3, 2), torch.randn(5, 4)
    merged = x @ (b.weight @ a.weight).T + b.weight @ a.bias + b.bias
    return "什么也没多" if torch.allclose(b(a(x)), merged, atol=1e-6) else "本事翻倍"


ANSWERS = {
    "untrained": _untrained(),
    "parameter-count": _parameter_count(),
    "two-linears": _two_linears(),
    "lua-files": f"{len(list(Path(torch.__file__).parent.rglob('*.lua')))} 个",
    "version-string": str("2.15.0" < "2.9.0"),
}
JUDGED = {"cuda-toolkit", "version-proves"}  # 要有显卡、或要换一种安装才能做的实验
MEASURED = set()
