"""第 1 章各题的典型错误答案：类型和形状多半是对的，错的是提示里点名的那件事。"""

import torch

WRONG = {
    "read_shape": [(2, 3), (3, 2, 1), [2, 3, 1]],
    "dice": [
        lambda n: torch.randint(1, 6, (n,)),  # 上界取不到
        lambda n: torch.randint(0, 6, (n,)),
        lambda n: torch.rand(n) * 5 + 1,
        lambda n: torch.arange(n) % 6 + 1,
    ],
    "safe_difference": [
        lambda a, b: (a - b).float(),  # 减完再转
        lambda a, b: (a.to(torch.int8) - b.to(torch.int8)).float(),
        lambda a, b: a.double() - b.double(),
    ],
    "count_bytes": [60_000 * 28 * 28, 60_000 * 28 * 28 * 32, 60_000 * 28 * 28 * 8],
    "center_crop": [
        lambda images: images[:, 3:7, 3:7],
        lambda images: images[:, 2:6][:, :, [2, 3, 4, 5]],  # 列表会抄
        lambda images: images[:, ::2, ::2],
    ],
    "pick_per_row": [
        lambda s, k: s[:, k],  # 全部组合
        lambda s, k: s[:, k[0]],
        lambda s, k: s[torch.arange(len(k)).flip(0), k],
    ],
    "contiguous_strides": [
        lambda shape: tuple(torch.empty(shape).stride()[::-1]),
        lambda shape: tuple(shape),
        lambda shape: (*shape[1:], 1),  # 只乘了一维
    ],
    "patches": [
        lambda image: image.reshape(4, 4, 2, 2),
        lambda image: image.view(4, 2, 4, 2).permute(2, 0, 3, 1),
        lambda image: image.view(4, 2, 4, 2).permute(0, 2, 1, 3).contiguous(),
    ],
    "class_means": [
        lambda x, y, k: torch.stack([x[y == c].sum(0) for c in range(k)]),
        lambda x, y, k: torch.stack([x[y == c].mean(0) for c in range(k)], dim=1),
        lambda x, y, k: torch.stack([x.mean(0)] * k),
    ],
    "squared_error": [
        lambda p, t: (p - t).square().mean(),  # 广播成 (3, 3)
        lambda p, t: (p.flatten() - t.flatten()).square().mean(),  # 个数不同也算
        lambda p, t: (p.flatten() - t.flatten()).square().sum(),
    ],
    "standardize_rows": [
        lambda t: (t - t.mean(1)) / t.std(1) if t.shape[0] == t.shape[1] else t,  # 对到列上
        lambda t: (t - t.mean(0)) / t.std(0),
        lambda t: (t - t.mean(1, True)) / t.std(1, correction=0, keepdim=True),
    ],
    "recognise_l1": [
        lambda x, m: (x[:, None] - m).sum(-1).argmin(1),  # 正负抵消
        lambda x, m: (x[:, None] - m).abs().sum(-1).argmin(0),
        lambda x, m: (x[:, None] - m).abs().sum(-1).argmax(1),
    ],
    "pairwise": [
        lambda a, b: b.square().sum(1) - 2 * a @ b.T,  # 少一项
        lambda a, b: torch.cdist(a, b),
        lambda a, b: (a[:, None] - b).square().sum(-1),  # 对，但造了三维的结果
        lambda a, b: a.square().sum(1)[: len(b)].sum() - 2 * a @ b.T + b.square().sum(1),
    ],
    "shares_memory": [
        lambda a, b: a.data_ptr() == b.data_ptr(),  # 起点不同就漏掉
        lambda a, b: a.flatten()[0].item() == b.flatten()[0].item() or a.numel() > b.numel(),
    ],
    "safe_tensor": [
        lambda array: torch.from_numpy(array).float(),  # 已是 float32 时不抄
        lambda array: torch.tensor(array),
    ],
    "noise_like": [
        lambda t, scale: t + scale * torch.randn(t.shape, dtype=t.dtype),  # 设备没跟着走
        lambda t, scale: t + scale * torch.rand_like(t),
        lambda t, scale: t.float() + scale * torch.randn(t.shape),
    ],
}
