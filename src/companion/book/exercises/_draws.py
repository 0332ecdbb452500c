"""抽出来的数像不像说好的分布。判题的种子是定的，门槛是五个标准差：对的答案不会被冤枉。"""

import torch
from torch import Tensor


def unfair(rolls: Tensor) -> str | None:
    """十万次掷得匀不匀、前后有没有关系；公平的骰子几乎不会被冤枉（五个标准差）。"""
    n = len(rolls)
    if missing := sorted(set(range(1, 7)) - set(rolls.tolist())):
        return f"掷了 {n} 次，从没出现过 {missing}。"
    for point in range(1, 7):
        share = (rolls == point).sum().item() / n
        if abs(share - 1 / 6) > 5 * (5 / 36 / n) ** 0.5:
            return f"掷了 {n} 次，{point} 点占 {share:.1%}：每个点数应占六分之一。"
    twenty = 6 ** torch.arange(20)
    windows = ((rolls - 1).unfold(0, 20, 1) * twenty).sum(1)
    if len(windows.unique()) < len(windows):
        return f"掷了 {n} 次，同一串 20 个点数出现了两回：每一次都要新掷，不能重复用。"
    pairs = torch.bincount((rolls[:-1] - 1) * 6 + rolls[1:] - 1, minlength=36)
    if chi_square(pairs) > 35 + 5 * 70**0.5 or chi_square(torch.bincount(rolls)[1:]) < 1e-3:
        return f"掷了 {n} 次，看得出上一次影响了下一次：各次之间应当没有关系。"
    return None


def not_normal(noise: Tensor, scale: float) -> str | None:
    """除以 `scale` 之后，这些数像不像独立的标准正态；五个标准差之外才说不像。"""
    n, flat = noise.numel(), noise.flatten()
    if len(flat.unique()) < 0.9 * n:
        return "有的噪声重复了：每个数都要单独抽一个，不和别处共用，也不取整。"
    if abs(flat.mean()) > 5 * n**-0.5:
        return f"噪声除以 scale 之后，平均是 {flat.mean():.3f}，标准正态的平均是 0。"
    if abs(flat.std() - 1) > 5 * (2 * n) ** -0.5:
        return f"scale={scale} 时，标准差应是 {scale}，你的是 {scale * flat.std():.3f}。"
    tenths = torch.special.ndtr(flat).mul(20).long().clamp(0, 19)  # 正态的 20 等分
    if chi_square(torch.bincount(tenths, minlength=20)) > 19 + 5 * 38**0.5:
        return "平均和标准差都对，可噪声的分布不是正态：每个数都加了 randn 的噪声吗？"
    for lag in (1, noise.shape[1]):
        if abs((flat[lag:] * flat[:-lag]).mean()) > 5 * n**-0.5:
            return "相邻的噪声有关系：每个数都要单独抽，不排序，不共用。"
    return None


def chi_square(counts: Tensor) -> float:
    """各格的个数离“一样多”有多远；几乎总在 (格数 - 1) 上下几个 sqrt(2 × 格数) 之内。"""
    even = counts.sum() / len(counts)
    return float((counts - even).square().sum() / even)
