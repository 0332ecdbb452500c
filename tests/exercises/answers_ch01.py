"""第 1 章每道先猜的答案，由 torch 当场算出；写成与题目选项相同的文字。"""

import torch

from companion.data import load_digits


def _fp16_count():
    total = torch.tensor(0.0, dtype=torch.float16)
    for _ in range(10_000):
        total += 1
    return str(int(total))


def _fp16_order():
    big, one = torch.tensor(2048.0).half(), torch.tensor(1.0).half()
    left, right = (big + one) + one, big + (one + one)
    return f"不等：左 {left:.0f}，右 {right:.0f}" if left != right else "相等，都是 2050"


def _shares(a, b):
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _fancy():
    t = torch.zeros(3, 2)
    t[0:2].fill_(1)
    t[[0, 1]].fill_(9)
    return f"{t[0, 0]:.0f}"


def _mean_of_integers():
    try:
        return str(torch.tensor([1, 2]).mean().item())
    except RuntimeError:  # NotImplementedError 是它的子类
        return "报错"


def _late_float():
    digits = load_digits()
    x, y = digits.images.flatten(1).float(), digits.labels
    m = torch.stack([x[:1000][y[:1000] == k].mean(0) for k in range(10)])
    raw, template = digits.images.flatten(1)[1000:, None], m.round().to(torch.uint8)
    right = (raw - template).float().square().sum(-1).argmin(1) == y[1000:]
    return "两成多" if 0.2 < right.float().mean() < 0.3 else "别的"


def _copied():
    t = torch.arange(12).reshape(3, 4)
    made = {
        "`t[:, ::2]`": t[:, ::2],
        "`t.T[1:]`": t.T[1:],
        "`t.T.reshape(-1)`": t.T.reshape(-1),
        "`t.view(2, 6).unsqueeze(0)`": t.view(2, 6).unsqueeze(0),
    }
    (copied,) = [name for name, v in made.items() if not _shares(v, t)]
    return copied


def _silent():
    generator = torch.Generator().manual_seed(0)
    right = []
    for n in (1, 2, 3, 4):
        p, t = torch.randn(n, 1, generator=generator), torch.randn(n, generator=generator)
        truth = (p[:, 0] - t).square().mean()
        right += [n] if torch.isclose((p - t).square().mean(), truth) else []
    return "n = 1" if right == [1] else "别的"


def _mask():
    a, b = torch.zeros(3), torch.zeros(3)
    mask = torch.tensor([True, False, True])
    a[mask] += 1
    b[mask].add_(1)
    return "`t[mask] += 1`" if a.sum() == 2 and b.sum() == 0 else "别的"


def _rebind():
    t = torch.zeros(2)
    a = t.numpy()
    t = t + 1
    return "没变" if a.sum() == 0 and t.sum() == 2 else "别的"


def _alias():
    t = torch.zeros(2)
    alias = t
    t += 1
    return "变了" if alias.sum() == 2 else "别的"


def _numpy_shares():
    t = torch.zeros(2)
    a = t.numpy()
    a[0] = 1
    return "会" if t[0] == 1 else "不会，那是副本"


def _sparse():
    half = (torch.arange(10_000) % 2).float().reshape(100, 100)
    s = half.to_sparse()
    return "变大" if s.indices().nbytes + s.values().nbytes == 2.5 * half.nbytes else "别的"


def _repeated():
    s = torch.sparse_coo_tensor([[0, 0], [1, 1]], [2, 3], (2, 2), check_invariants=True)
    return "5，相加" if s.to_dense()[0, 1] == 5 else "别的"


def _draws():
    before = torch.get_rng_state()
    torch.empty(4)
    quiet = torch.equal(before, torch.get_rng_state())
    return "没初始化，什么都可能" if quiet else "四个随机数"


X, T, NAN = torch.arange(4.0).reshape(2, 2), torch.arange(6).reshape(2, 3), float("nan")
GRID = torch.tensor([[1, 9], [3, 4]])
BYTE = torch.tensor([5, 13], dtype=torch.uint8)
META = {"device": "meta"}
TERA = torch.empty(60_000, 1, 784, **META) - torch.empty(60_000, 784, **META)
GIGA = torch.empty(1000, 1, 512, **META) - torch.empty(2000, 512, **META)
MEASURED = {"race-ratio"}  # 答案是量出来的，章里的单元断言它超过 20 倍
JUDGED = {"silent-check"}  # 问的是先查哪里，没有可算的值

ANSWERS = {
    "ten-shape": str(tuple(torch.tensor([1, 2, 3]).shape)),
    "ten-int8": str((torch.tensor(127, dtype=torch.int8) + 1).item()),
    "ten-fp16": _fp16_count(),
    "ten-nan": str((torch.tensor(NAN) == torch.tensor(NAN)).item()),
    "ten-fancy": "是，和 `x[0:2]` 一样" if _shares(X[[0, 1]], X) else "不是，是副本",
    "ten-transpose": "0" if _shares(X.T, X) else "约 48 MB",
    "ten-broadcast": str(tuple((torch.ones(100, 1) - torch.ones(100)).shape)),
    "ten-argmax": str(GRID.argmax().item()),
    "ten-numpy": _numpy_shares(),
    "ten-mean": _mean_of_integers(),
    "shape-of-list": str(tuple(torch.tensor([[[1, 2]], [[3, 4]]]).shape)),
    "tensor-or-class": f"{torch.tensor([2, 3]).numel()} 个和 {torch.Tensor(2, 3).numel()} 个",
    "arange-length": str(len(torch.arange(1, 5, 1 / 3))),
    "empty-is": _draws(),
    "uint8-minus": str((BYTE[0] - BYTE[1]).item()),
    "fp16-order": _fp16_order(),
    "nan-max": str(torch.tensor([1.0, NAN, 3.0]).max().item()),
    "fancy-index": _fancy(),
    "transpose-stride": str(torch.empty(4000, 3000, **META).T.stride()),
    "repeat-direction": str(tuple(torch.ones(3, 1).repeat(1, 2).shape)),
    "reshape-not-transpose": "相等" if torch.equal(T.reshape(3, 2), T.T) else "不相等",
    "reduce-shape": str(tuple(load_digits().images.float().mean(dim=0).shape)),
    "argmax-dim": str(GRID.argmax(dim=0).tolist()),
    "cat-or-stack": "`torch.stack`" if torch.stack([T, T]).shape == (2, 2, 3) else "`torch.cat`",
    "broadcast-shape": str(tuple(torch.broadcast_shapes((5, 1, 4), (3, 1)))),
    "late-float": _late_float(),
    "matmul-shape": str(tuple((torch.rand(5, 2, 3) @ torch.rand(3, 4)).shape)),
    "oom-size": f"约 {TERA.nbytes / 1e12:.0f} TB",
    "numpy-rebind": _rebind(),
    "inplace-plus": _alias(),
    "device-auto": torch.ones(2).device.type.upper(),
    "sparse-memory": _sparse(),
    "coo-repeated": _repeated(),
    "final-keepdim": str(tuple(torch.ones(32, 3, 28, 28).mean(dim=(0, 2, 3), keepdim=True).shape)),
    "final-copy": _copied(),
    "final-uint8": "减法先在 uint8 里绕了回去" if (BYTE[0] - BYTE[1]).float() == 248 else "别的",
    "final-silent": _silent(),
    "final-memory": f"约 {GIGA.nbytes / 1e9:.1f} GB",
    "final-mask": _mask(),
}
