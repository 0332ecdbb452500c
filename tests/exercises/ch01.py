"""第 1 章各题的典型错误答案：类型和形状多半是对的，错的是提示里点名的那件事。"""

import torch


def _scores(x, known_x):
    return x @ known_x.T - known_x.square().sum(1) / 2


def _vote(labels):
    return (labels[:, :, None] == torch.arange(3)).sum(1)


def _in_parts(guess):
    """一次 200 行地猜。"""
    return lambda x, *known: torch.cat([guess(rows, *known) for rows in x.split(200)])


@_in_parts
def _larger_wins(x, known_x, y, k):
    votes = _vote(y[_scores(x, known_x).topk(k).indices])
    return 2 - votes.flip(1).argmax(1)


@_in_parts
def _broadcast(x, known_x, y, k):
    distances = (x[:, None] - known_x).square().sum(-1)
    return _vote(y[distances.topk(k, largest=False).indices]).argmax(1)


@_in_parts
def _no_bias(x, known_x, y, k):
    return _vote(y[(x @ known_x.T).topk(k).indices]).argmax(1)


@_in_parts
def _indices_vote(x, known_x, y, k):
    return _scores(x, known_x).topk(k).indices.mode(1).values


@_in_parts
def _indices_counted(x, known_x, y, k):
    return _vote(_scores(x, known_x).topk(k).indices).argmax(1)


@_in_parts
def _votes_returned(x, known_x, y, k):
    return _vote(y[_scores(x, known_x).topk(k).indices]).amax(1)


def _whole_blocks_only(x, known_x, y, k):
    blocks = [x[200 * i : 200 * i + 200] for i in range(len(x) // 200)]
    return torch.cat([_vote(y[_scores(b, known_x).topk(k).indices]).argmax(1) for b in blocks])


def _same_shapes_only(p, t):
    if p.shape != t.shape:
        raise ValueError("形状不同")
    return (p - t).square().mean()


def _in_place(t):
    t -= t.mean(1, keepdim=True)
    return t.div_(t.std(1, keepdim=True))


def _one_by_one(s, k):
    return torch.stack([s[i, k[i]] for i in range(len(k))])


def _rank(x, r, centre=0.0, back=0.0):
    """减掉 `centre`，留 r 个方向，加回 `back`。"""
    Q = torch.linalg.svd(x - centre, full_matrices=False).Vh[:r].T
    return back + (x - centre) @ Q @ Q.T


def _last_directions(x, r):
    flat = x - x.mean(0)
    Q = torch.linalg.svd(flat, full_matrices=False).Vh[-r:].T
    return x.mean(0) + flat @ Q @ Q.T


def _coordinates(x, r):
    flat = x - x.mean(0)
    return flat @ torch.linalg.svd(flat, full_matrices=False).Vh[:r].T


def _columns_of_vh(x, r):
    flat = x - x.mean(0)
    Q = torch.linalg.svd(flat).Vh[:, :r]
    return x.mean(0) + flat @ Q @ Q.T


def _without_sizes(x, r):
    u, _, vh = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    return x.mean(0) + u[:, :r] @ vh[:r]


def _whole_projected(x, r):
    Q = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:r].T
    return x @ Q @ Q.T


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
        lambda images: images[:, 2:6, 2:6],
        lambda images: images[:, 2:-2, 2:-2],
    ],
    "pick_per_row": [
        lambda s, k: s[:, k],  # 全部组合
        lambda s, k: s[:, k[0]],
        lambda s, k: s[torch.arange(len(k)).flip(0), k],
        lambda s, k: s[k],
        lambda s, k: s[k, torch.arange(len(k))],
    ],
    "contiguous_strides": [
        lambda shape: tuple(torch.empty(shape).stride()[::-1]),
        lambda shape: tuple(shape),
        lambda shape: (*shape[1:], 1),  # 只乘了一维
    ],
    "patches": [
        lambda image: image.reshape(4, 4, 2, 2),
        lambda image: image.view(4, 2, 4, 2).permute(2, 0, 3, 1),
        lambda image: image.unfold(0, 2, 2).unfold(1, 2, 2).contiguous(),
        lambda image: image.view(4, 2, 4, 2).permute(0, 2, 1, 3),  # 块数写死了
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
        _same_shapes_only,
    ],
    "standardize_rows": [
        lambda t: (t - t.mean(1)) / t.std(1) if t.shape[0] == t.shape[1] else t,  # 对到列上
        lambda t: (t - t.mean(0)) / t.std(0),
        lambda t: (t - t.mean(1, True)) / t.std(1, correction=0, keepdim=True),
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
    "broadcast_shapes": [
        [(5, 1, 4), (8, 1, 6, 1), (3,), (2, 3)],  # 都抄第一个
        [(5, 3, 4), (8, 7, 6, 5), (3, 3), (2, 3)],
        ["报错", (8, 7, 6, 5), (3, 3), "报错"],
        [(5, 3, 4), (8, 7, 6, 1), (3, 3), "报错"],
        [(5, 3, 4), (8, 7, 6, 5), (3, 3)],
        [(5, 3, 4), (8, 7, 6, 5), 9, "报错"],
        [(5, 3, 4), (8, 7, 6, 5), (3, 3), "对不上"],
    ],
    "expand": [
        (6, 6, 1, 5, 0),  # 没有 b
        (1, -3, 1, 5, 0),  # 漏了一半
        (8.5, 10.5, 1, 5, 0),
        (1, 5, 3.5, 1.5, 0),
        (3.5, 2.5, 1, 5, 0),
        (3.5, 1.5, 1, 5**0.5, 0),
        (3.5, 1.5, 1, 5, 1),
        (3.5, 1.5, 0),
    ],
    "neighbours": [
        lambda x, kx, y, k: y[_scores(x, kx).argmax(1)],  # 只取最近的一个
        _larger_wins,
        lambda x, kx, y, k: _vote(y[_scores(x, kx).topk(k).indices]).argmax(1),  # 一次算完
        lambda x, kx, y, k: _vote(y[_scores(x, kx).topk(k, largest=False).indices]).argmax(1),
        _broadcast,
        lambda x, kx, y, k: _vote(y[_scores(x, kx).topk(k).indices]).argmax(1).float(),
        _no_bias,
        _indices_vote,
        _whole_blocks_only,
    ],
    "outer_terms": [
        ([[10, -2], [15, -3]], [[4, 1], [0, 0]], [[14, -1], [15, -3]]),  # 两项放反
        ([[4, 0], [1, 0]], [[10, 15], [-2, -3]], [[14, -1], [15, -3]]),  # 转置
        ([[4, 5], [8, 10]], [[0, 0], [3, -3]], [[14, -1], [15, -3]]),  # 行乘列
        ([[4, 5], [0, 0]], [[2, -2], [3, -3]], [[6, 3], [3, -3]]),  # 列乘列
        ([[4, 1], [8, 2]], [[0, 0], [15, -3]], [[4, 1], [23, -1]]),  # 行乘行
        ([[4, 1], [0, 0]], [[10, -2], [15, 3]], [[14, -1], [15, 3]]),
        ([[4, 1], [0, 0]], [[10, -2], [15, -3]], [[14, -1], [15, 3]]),
        ([[4, 2], [0, 0]], [[10, -2], [15, -3]], [[14, -1], [15, -3]]),
        ([[4, 1], [0, 0]], [[10, -2], [15, -3]]),
        ([[4, 1], [0, 0]], [[10, -2], [15, -3]], 29),
        ([4, 1], [[10, -2], [15, -3]], [[14, -1], [15, -3]]),
    ],
    "keep_directions": [
        lambda x, r: x.clone(),
        lambda x, r: _rank(x, r),  # 没减平均
        lambda x, r: _rank(x, r, x.mean(0)),  # 没加回来
        lambda x, r: _rank(x, r, x.mean(1, keepdim=True), x.mean(1, keepdim=True)),
        _last_directions,
        _coordinates,
        _without_sizes,
        _whole_projected,
        lambda x, r: x.mean(0) + _whole_projected(x, r),
        lambda x, r: x - _rank(x, r, x.mean(0)),  # 留了该扔的
        lambda x, r: _rank(x, r + 1, x.mean(0), x.mean(0)),
        _columns_of_vh,
    ],
    "rate_limit": [
        (1, 6, 1 / 3, 0.8, -0.2),
        (12, 1, 1 / 6, -1.4, 0.8),
        (5, 2, 0.4, 0, 0.6),  # 对角线上的数
        (6, 1, 2, -0.2, 0.8),
        (6, 1, 1 / 6, -0.2, 0.8),
        (6, 1, 2 / 7, -0.2, 0.8),
        (6, 1, 3, -0.2, 0.8),
        (6, 1, 1 / 3, 0.2, 0.8),
        (6, 1, 1 / 3, 0.8, -0.2),
        (6, 1, 1 / 3, -1.2, -0.2),  # 忘了 1
        (6, 1, 1 / 3),
    ],
}

NAMED = [  # 题名，答错的样子，✗ 后面应有和不应有的话
    ("neighbours", _no_bias, "得分里少了", "手算一遍"),
    ("neighbours", _indices_vote, "序号", "手算一遍"),
    ("neighbours", _indices_counted, "序号", "手算一遍"),
    ("neighbours", _votes_returned, "票数", "序号"),
    ("neighbours", _whole_blocks_only, "最后不满 200 行的", "torch.cat"),
    ("pick_per_row", lambda s, k: s[k], "位置", "IndexError"),
    ("pick_per_row", lambda s, k: s[k, torch.arange(len(k))], "位置反了", "IndexError"),
    ("pick_per_row", _one_by_one, "循环", "3 行要"),
    ("standardize_rows", _in_place, ".clone()", "detach"),
    ("squared_error", lambda p, t: (p.squeeze() - t.squeeze()).square().mean(), "答案", "标签"),
    ("squared_error", _same_shapes_only, "个数相同", "出错"),
]
