"""第 1 章各题的约定：放开了什么，还有哪些对的写法该放过、错的写法该拒绝。"""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F

from tests.exercises.attacks import Spec

PYTHON_TUPLE = {"元组换成列表": "题面要元组"}


def _loop_means(x, y, k):
    out = torch.zeros(k, x.shape[1])
    for c in range(k):
        out[c] = x[y == c].mean(0)
    return out


def _index_add(x, y, k):
    sums = torch.zeros(k, x.shape[1]).index_add(0, y, x)
    return sums / torch.bincount(y, minlength=k)[:, None]


def _middle(images, dim):
    start = images.shape[dim] // 2 - 2
    return slice(start, start + 4)


def _center(images, start=lambda n: n // 2 - 2):
    top, left = (start(n) for n in images.shape[1:])
    return images.narrow(1, top, 4).narrow(2, left, 4)


def _pieces(image, rows=None, columns=None):
    rows, columns = rows or image.shape[0] // 2, columns or image.shape[1] // 2
    return image.view(rows, 2, columns, 2).transpose(1, 2)


def _stripes(t, scale):
    noise = torch.randn(t.shape[-1], dtype=t.dtype, device=t.device)  # 一列一个
    return t + scale * noise


def _mse(p, t, error=ValueError, check=True):
    p, t = p.flatten(), t.flatten()
    if check and len(p) != len(t):
        raise error("个数不同")
    return (p - t).square().mean()


def _by_eigh(x, r):
    flat = x - x.mean(0)
    Q = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -r:]
    return x.mean(0) + flat @ Q @ Q.T


def _by_outer(x, r):
    u, s, vh = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    return x.mean(0) + sum(s[k] * u[:, k, None] * vh[k] for k in range(r))


def _by_numpy(x, r):
    a = x.numpy()
    vh = np.linalg.svd(a - a.mean(0))[2][:r]
    return torch.from_numpy(a.mean(0) + (a - a.mean(0)) @ vh.T @ vh)


def _first_columns(x, r):
    kept = x.mean(0).repeat(len(x), 1)
    kept[:, :r] = x[:, :r]
    return kept


SPECS = {
    "read_shape": Spec(skip=PYTHON_TUPLE),
    "dice": Spec(
        random=True,
        accept=(
            lambda n: (torch.rand(n) * 6).long() + 1,
            lambda n: torch.from_numpy(np.random.randint(1, 7, n)),
            lambda n: torch.multinomial(torch.ones(6), n, replacement=True) + 1,
            lambda n: torch.randint(1, 7, (n,), dtype=torch.uint8),
            lambda n: torch.tensor(random.choices(range(1, 7), k=n)),
            lambda n: torch.ceil(6 * (1 - torch.rand(n))).int(),
        ),
        refuse=(
            lambda n: torch.where(torch.rand(n) < 0.5, 6, torch.randint(1, 7, (n,))),
            lambda n: (torch.rand(n) * 5).round().long() + 1,  # 1 和 6 只有一半
            lambda n: torch.randint(1, 4, (n,)) + torch.randint(0, 4, (n,)),
            lambda n: torch.randperm(n) % 6 + 1,  # 每个点数的次数不多不少
            lambda n: torch.randint(1, 7, (n // 50 + 1,)).repeat(60)[:n],
            lambda n: torch.normal(3.5, 1.7, (n,)).round().clamp(1, 6).long(),
            lambda n: (torch.arange(n) * 7919 + torch.randint(0, 99, ())) % 6 + 1,
        ),
    ),
    "safe_difference": Spec(
        accept=(
            lambda a, b: torch.sub(a.float(), b),
            lambda a, b: (a.to(torch.int16) - b.to(torch.int16)).float(),
            lambda a, b: -(b.double() - a.double()).to(torch.float32),
        ),
        refuse=(
            lambda a, b: (a.float() - b.float()).abs(),
            lambda a, b: (a.float() - b.float()).clamp(min=-128, max=127),
            lambda a, b: (a.float() / 255 - b.float() / 255) * 255 // 1,
            lambda a, b: (a.float() - b.float()).flatten()[None],
            lambda a, b: torch.stack([p.float() - q for p, q in zip(a[:1], b, strict=False)]),
        ),
    ),
    "count_bytes": Spec(),
    "center_crop": Spec(
        view=True,
        accept=(
            _center,
            lambda images: images[..., _middle(images, 1), _middle(images, 2)],
            lambda images: images.mT[:, _middle(images, 2)].mT[:, _middle(images, 1)],
            lambda images: images.unfold(1, 4, 1).unfold(2, 4, 1)[
                :, images.shape[1] // 2 - 2, images.shape[2] // 2 - 2
            ],
        ),
        refuse=(
            lambda images: images[:, 2:6, 2:6],
            lambda images: images[..., 2:-2, 2:-2],
            lambda images: images.narrow(1, 2, 4).narrow(2, 2, 4),
            lambda images: images[:, _middle(images, 1), _middle(images, 1)],
            lambda images: images[:, _middle(images, 2), _middle(images, 2)],
            lambda images: images[:, _middle(images, 2), _middle(images, 1)],
            lambda images: _center(images, lambda n: n // 4),
            lambda images: _center(images.float()),  # 本来是 float32 的不抄
            lambda images: _center(images).clone(),
            lambda images: images.as_strided((len(images), 4, 4), (64, 8, 1), 18),
            lambda images: _center(images).mT,
            lambda images: _center(images)[:1].expand(len(images), 4, 4),
        ),
    ),
    "pick_per_row": Spec(
        vectorised=True,
        accept=(
            lambda s, k: s.gather(1, k[:, None]).squeeze(1),
            lambda s, k: s[range(len(k)), k],
            lambda s, k: s[F.one_hot(k, s.shape[1]).bool()],
            lambda s, k: s.take(torch.arange(len(k)) * s.shape[1] + k),
            lambda s, k: torch.take_along_dim(s, k[:, None], 1)[:, 0],
            lambda s, k: s[:, k].diagonal(),
            lambda s, k: torch.from_numpy(s.numpy()[np.arange(len(k)), k.numpy()]),
            lambda s, k: torch.vmap(lambda row, i: row.index_select(0, i[None])[0])(s, k),
        ),
        refuse=(
            lambda s, k: torch.stack([s[i, k[i]] for i in range(len(k))]),
            lambda s, k: torch.stack(list(map(lambda row, i: row[i], s, k))),
            lambda s, k: torch.tensor([r[i] for r, i in zip(s.tolist(), k.tolist(), strict=True)]),
            lambda s, k: s.T[torch.arange(len(k)), k] if len(k) == s.shape[1] else s.max(1).values,
        ),
    ),
    "contiguous_strides": Spec(
        skip=PYTHON_TUPLE,
        accept=(
            lambda shape: torch.empty(shape, device="meta").stride(),
            lambda shape: tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))),
            lambda shape: tuple(np.cumprod((1, *shape[:0:-1]))[::-1]),
        ),
        refuse=(
            lambda shape: tuple(sorted(torch.empty(shape).stride(), reverse=True)[:3]),
            lambda shape: tuple(math.prod(shape[:i]) for i in range(len(shape))),
            lambda shape: tuple(4 * step for step in torch.empty(shape).stride()),  # 数成了字节
        ),
    ),
    "patches": Spec(
        view=True,
        accept=(
            _pieces,
            lambda image: image.unfold(0, 2, 2).unfold(1, 2, 2),
            lambda image: image.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).movedim(2, 1),
        ),
        refuse=(
            lambda image: _pieces(image, 4, 4),
            lambda image: _pieces(image, columns=image.shape[0] // 2),
            lambda image: _pieces(image, rows=image.shape[1] // 2),
            lambda image: _pieces(image.float()),  # 本来是 float32 的不抄
            lambda image: _pieces(image).mT,  # 块里的行列对调
            lambda image: _pieces(image).transpose(0, 1),
            lambda image: image.unfold(0, 2, 2).unfold(1, 2, 2).flip(0, 1),
            lambda image: image.unfold(0, 2, 1)[:4].unfold(1, 2, 1)[:, :4],  # 小块重叠
        ),
    ),
    "class_means": Spec(
        accept=(
            _loop_means,
            _index_add,
            lambda x, y, k: torch.stack(
                [x[y == c].sum(0) / max(1, (y == c).sum()) for c in range(k)]
            ),
            lambda x, y, k: torch.zeros(k, x.shape[1]).scatter_reduce(
                0, y[:, None].expand_as(x), x, "mean", include_self=False
            ),
            lambda x, y, k: (F.one_hot(y, k).float() / torch.bincount(y, minlength=k)).T @ x,
        ),
        refuse=(
            lambda x, y, k: torch.stack([x[y == c].mean(0) for c in y.unique()]),
            lambda x, y, k: torch.stack([x[y == c].mean(0) for c in range(int(y.max()) + 1)]),
            lambda x, y, k: torch.zeros(k, x.shape[1]).index_copy(0, y, x),  # 只剩每类最后一张
            lambda x, y, k: torch.zeros(k, x.shape[1]).index_reduce(0, y, x, "mean"),
            lambda x, y, k: torch.stack([x[y == c].sum(0) / (len(y) / k) for c in range(k)]),
            lambda x, y, k: torch.stack([x[y == c].median(0).values for c in range(k)]),
        ),
    ),
    "squared_error": Spec(
        accept=(
            _mse,
            lambda p, t: (
                F.mse_loss(p.view(-1), t.view(-1)) if p.numel() == t.numel() else _mse(p, t)
            ),
            lambda p, t: _mse(p, t, type("Mine", (ValueError,), {})),
        ),
        refuse=(
            lambda p, t: _mse(p, t).item(),
            lambda p, t: _mse(p, t, RuntimeError),
            lambda p, t: _mse(p, t, AssertionError),
            lambda p, t: _mse(p, t) if p.numel() >= t.numel() else _mse(p, t, check=False),
            lambda p, t: (p.flatten().sort().values - t.flatten().sort().values).square().mean(),
            lambda p, t: _mse(p, t)[None],
        ),
    ),
    "standardize_rows": Spec(
        accept=(
            lambda t: ((t.T - t.mean(1)) / t.std(1)).T,
            lambda t: (t - t.mean(1)[:, None]) / t.var(1)[:, None].sqrt(),
        ),
        refuse=(
            lambda t: (t - t.mean()) / t.std(),
            lambda t: (t - t.mean(1, True)) / t.std(),
            lambda t: (t - t.mean(1, True)) / t.var(1, keepdim=True),
            lambda t: (t - t.median(1, True).values) / t.std(1, keepdim=True),
            lambda t: t / t.std(1, keepdim=True),
            lambda t: (t.mean(1, True) - t) / t.std(1, keepdim=True),
            lambda t: (t - t.mean(1, True)) / (t.std(1, keepdim=True) + 0.01),
        ),
    ),
    "pairwise": Spec(
        accept=(
            lambda a, b: torch.cdist(a, b).square(),
            lambda a, b: (a @ a.T).diag()[:, None] - 2 * a @ b.T + (b @ b.T).diag(),
            lambda a, b: torch.stack([(row - b).square().sum(1) for row in a]),
        ),
        refuse=(
            lambda a, b: torch.from_numpy(((a.numpy()[:, None] - b.numpy()) ** 2).sum(-1)),
            lambda a, b: a.square().sum(1, True) + b.square().sum(1),
            lambda a, b: torch.cdist(a, b, p=1),
            lambda a, b: (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(-1),
        ),
    ),
    "shares_memory": Spec(
        accept=(
            lambda a, b: a.untyped_storage()._cdata == b.untyped_storage()._cdata,
            lambda a, b: a.untyped_storage() is b.untyped_storage(),
            lambda a, b: a.untyped_storage().data_ptr() - b.untyped_storage().data_ptr() == 0,
        ),
        refuse=(
            lambda a, b: np.shares_memory(a.numpy(), b.numpy()),
            lambda a, b: np.may_share_memory(a.numpy(), b.numpy()),
            lambda a, b: b._base is a or a is b,
            lambda a, b: (
                (a.numel() >= b.numel() and not b.is_contiguous()) or b.storage_offset() > 0
            ),
            lambda a, b: a is b,
            lambda a, b: a.storage_offset() != b.storage_offset() or a.data_ptr() == b.data_ptr(),
            lambda a, b: abs(a.data_ptr() - b.data_ptr()) < 1000,
            lambda a, b: a.untyped_storage().nbytes() == b.untyped_storage().nbytes(),
        ),
    ),
    "safe_tensor": Spec(
        accept=(
            lambda array: torch.from_numpy(array.astype(np.float32)),
            lambda array: torch.from_numpy(array).float().clone(),
            lambda array: torch.as_tensor(array.copy(), dtype=torch.float32),
        ),
        refuse=(
            lambda array: torch.tensor(array).half().float(),
            lambda array: torch.as_tensor(array, dtype=torch.float32),
            lambda array: torch.tensor(array.astype(np.int64), dtype=torch.float32),
            lambda array: torch.from_numpy(array).to(torch.float32),
            lambda array: torch.tensor(array.ravel(), dtype=torch.float32),
            lambda array: torch.tensor([[float(v) for v in row] for row in array]),
            lambda array: torch.tensor(array, dtype=torch.float32).view(2, 3),
            lambda array: torch.tensor(array, dtype=torch.float32).view(array.shape[0], -1),
        ),
    ),
    "noise_like": Spec(
        random=True,
        accept=(
            lambda t, scale: torch.empty_like(t).normal_().mul_(scale).add_(t),
            lambda t, scale: t + scale * torch.randn(t.shape, dtype=t.dtype, device=t.device),
            lambda t, scale: torch.randn_like(t) * scale + t,
            lambda t, scale: t + scale * torch.randn_like(t).abs() * torch.randn_like(t).sign(),
            lambda t, scale: t - scale * torch.randn_like(t),
            lambda t, scale: t + scale * torch.randn(t.shape).to(t),
            lambda t, scale: torch.add(t, torch.randn_like(t), alpha=scale),
            lambda t, scale: (
                torch.distributions.Normal(t, torch.ones_like(t)).sample() * scale + t * (1 - scale)
            ),
            lambda t, scale: t + scale * torch.from_numpy(np.random.randn(*t.shape)).to(t),
        ),
        refuse=(
            lambda t, scale: scale * torch.randn_like(t),  # 忘了 t
            lambda t, scale: t + scale * torch.randn_like(t[:, :1]),  # 一行一个
            _stripes,
            lambda t, scale: t + scale * (torch.rand_like(t) - 0.5) * 12**0.5,  # 均匀的
            lambda t, scale: t + scale**0.5 * torch.randn_like(t),
            lambda t, scale: t + scale * torch.randn_like(t).clamp(-2, 2),
            lambda t, scale: t * (1 + scale * torch.randn_like(t)),
            lambda t, scale: t + scale * torch.randn_like(t) * torch.randn_like(t),
            lambda t, scale: t + scale * torch.randn_like(t).cumsum(-1) / t.shape[-1] ** 0.5,
            lambda t, scale: t + scale * torch.randn(t.shape, device=t.device),  # 总是 float32
            lambda t, scale: t + torch.normal(0.0, scale, t.shape, device=t.device),
            lambda t, scale: t + scale * torch.randn_like(t, dtype=torch.float32),
            lambda t, scale: t + scale * torch.randn(*t.shape[:2], dtype=t.dtype, device=t.device),
            lambda t, scale: (t + scale * torch.randn_like(t)).clamp(-3, 3),
        ),
    ),
    "outer_terms": Spec(
        accept=(
            [[[4, 1], [0, 0]], ((10, -2), (15, -3)), [[14, -1], [15, -3]]],
            torch.tensor([[[4, 1], [0, 0]], [[10, -2], [15, -3]], [[14, -1], [15, -3]]]).unbind(),
            ([[4.0, 1.0], [0.0, 0.0]], np.array([[10, -2], [15, -3]]), [[14, -1], [15, -3]]),
        ),
        refuse=(
            ([[4, 1], [0, 0]], [[10, -2], [15, -3]], [[4, 2], [0, 9]]),  # 逐格相乘
            ([[14, -1], [15, -3]], [[0, 0], [0, 0]], [[14, -1], [15, -3]]),  # 和对，项不对
            ([[[4, 1], [0, 0]]], [[[10, -2], [15, -3]]], [[[14, -1], [15, -3]]]),
            ([[4, 1], [0, 0], [0, 0]], [[10, -2], [15, -3]], [[14, -1], [15, -3]]),
        ),
    ),
    "keep_directions": Spec(
        accept=(
            _by_eigh,
            _by_outer,
            _by_numpy,
            lambda x, r: (
                x.mean(0, keepdim=True)
                + (x - x.mean(0)) @ (v := torch.linalg.svd(x - x.mean(0)).Vh.mT[:, :r]) @ v.mT
            ),
        ),
        refuse=(
            _first_columns,
            lambda x, r: x.mean(0).expand_as(x),
            lambda x, r: _by_outer(x, 2),  # r 写死了
            lambda x, r: _by_outer(x, 1),
            lambda x, r: _by_outer(x, max(r - 1, 0)),
            lambda x, r: _by_outer(x.T, r).T,  # 行和列弄反
            lambda x, r: _by_outer(x[:, :4], min(r, 4)),
            lambda x, r: _by_outer(x, r).mean(0).expand_as(x),
            lambda x, r: _by_outer(x / x.std(0), r) * x.std(0),  # 多除了标准差
            lambda x, r: torch.cat([_by_outer(row[None], r) for row in x]),
            lambda x, r: x - x.mean(0),
            lambda x, r: _by_outer(x, r) - x.mean(),
        ),
    ),
    "rate_limit": Spec(
        accept=(
            (6, 1, 0.33, -0.2, 0.8),
            (6.0, 1.0, 2 / 6, 1 - 0.2 * 6, 1 - 0.2),
            [6, 1, 0.3333, -0.2, 0.8],
            (np.float64(6), 1, torch.tensor(1 / 3), -1 / 5, 4 / 5),
            torch.tensor([6, 1, 1 / 3, -0.2, 0.8]),
        ),
        refuse=(
            (6, 1, 0.3, -0.2, 0.8),
            (6, 1, 0.35, -0.2, 0.8),
            (6, -1, 1 / 3, -0.2, 1.2),
            (7, 1, 2 / 7, -0.4, 0.8),
            (6, 1, 1 / 3, -0.2, -0.8),
            (36, 1, 1 / 3, -0.2, 0.8),
            (6, 1, 1 / 9, -0.2, 0.8),
            (2, 1, 1, 0.6, 0.8),
            (1 / 3, -0.2, 0.8, 6, 1),
        ),
    ),
}
