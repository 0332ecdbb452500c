"""一次处理一批图的变换，每张图各抽各的随机数。

形状后缀：B 批量，C 通道，H 高，W 宽，K 每张图要几个随机数。

变换就是一个函数 ``transform(x_BCHW)``。要随机数的，另有一个整数属性 ``draws``，说明每张图要几个，
调用时多收一个 ``u_KB``：``[0, 1)`` 里的均匀分布，第 ``k`` 行第 ``i`` 列是第 ``i`` 张图的第 ``k``
个。随机数从外面给，所以同一张图在同一轮里抽到什么，与它分在哪一批、在哪个进程都无关
（``TensorLoader`` 按种子、轮次、编号来给）。自己写一个也只要这两样::

    class Brightness:
        draws = 1

        def __call__(self, x_BCHW, u_KB):
            return x_BCHW * (0.8 + 0.4 * u_KB[0].view(-1, 1, 1, 1))
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from companion.errors import ArgumentError, check_shape

Transform = Callable[..., Tensor]

_HINT = "缺通道维时写 images[:, None]。"


class Compose:
    """把几个变换依次做完；次序就是给的次序；里面还有 ``Compose`` 就摊平。

    Raises:
        ArgumentError: 有一个不能调用，或者给的是类、忘了写括号。
    """

    def __init__(self, *transforms: Transform) -> None:
        for transform in transforms:
            name = getattr(transform, "__name__", repr(transform))
            if isinstance(transform, type):
                raise ArgumentError(f"变换应是对象，实际是类 {name}。请加括号：{name}(…)。")
            if not callable(transform):
                raise ArgumentError(
                    f"变换应能调用：transform(images)，实际是 {name}。"
                    "例：transform=[RandomFlip(), Normalize(0.5, 0.5)]。"
                )
        self.transforms: list[Transform] = []
        for transform in transforms:
            inside = transform.transforms if isinstance(transform, Compose) else [transform]
            self.transforms.extend(inside)
        self.draws = sum(getattr(transform, "draws", 0) for transform in self.transforms)

    def __call__(self, x_BCHW: Tensor, u_KB: Tensor) -> Tensor:
        """变换后的一批；``u_KB`` 是 ``(draws, B)``，按次序分给各个变换。"""
        used = 0
        for transform in self.transforms:
            if draws := getattr(transform, "draws", 0):
                x_BCHW = transform(x_BCHW, u_KB[used : used + draws])
                used += draws
            else:
                x_BCHW = transform(x_BCHW)
        return x_BCHW

    def fixed(self) -> "Compose":
        """只留不随机的那些，验证时用。"""
        return Compose(*(t for t in self.transforms if not getattr(t, "draws", 0)))


def as_compose(transform: Transform | Sequence[Transform] | None) -> Compose:
    """一个变换、一串变换或 ``None``（什么也不做），都成为一个 ``Compose``。"""
    if isinstance(transform, Compose):
        return transform
    if transform is None or isinstance(transform, list | tuple):
        return Compose(*(transform or ()))
    return Compose(cast(Transform, transform))


class Normalize:
    """逐通道减均值、除标准差，返回 ``float32``；``uint8`` 的先除以 255，``float64`` 的仍是它。

    Args:
        mean, std: 各通道的均值和标准差，0 到 1 的刻度；只给一个数就用于全部通道。

    Raises:
        ArgumentError: 两者个数不同，或 ``std`` 里有不大于 0 的。
        ShapeError: 图不是 ``(B, C, H, W)``，或 C 与给的个数不同。

    出处：与 ``torchvision.transforms.v2.Normalize`` 相同，误差在舍入之内（合成了一乘一加）。
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        mean_C = torch.atleast_1d(torch.as_tensor(mean, dtype=torch.float64))
        std_C = torch.atleast_1d(torch.as_tensor(std, dtype=torch.float64))
        if mean_C.shape != std_C.shape or not bool((std_C > 0).all()):
            raise ArgumentError(
                f"mean 和 std 的个数应相同，std 应大于 0，实际是 {mean!r} 和 {std!r}。"
            )
        self.channels = len(mean_C)
        self._scale, self._shift = (v.view(-1, 1, 1) for v in (1 / std_C, -mean_C / std_C))
        self._ready: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """归一化后的一批，形状不变；不改动给的那一批。"""
        spec = "B C H W" if self.channels == 1 else f"B {self.channels} H W"
        check_shape("images", x_BCHW, spec, hint=_HINT)
        scale, shift = self._constants(x_BCHW.device, x_BCHW.dtype)
        if x_BCHW.is_floating_point():
            return (x_BCHW * scale).add_(shift)
        return x_BCHW.float().mul_(scale).add_(shift)

    def _constants(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """乘多少、加多少；每种设备和 dtype 只搬一次，免得每批都让 GPU 等一下。"""
        if (device, dtype) not in self._ready:
            scale = self._scale / 255 if dtype == torch.uint8 else self._scale
            kind = dtype if dtype.is_floating_point else torch.float32
            both = scale.to(kind).to(device), self._shift.to(kind).to(device)
            self._ready[device, dtype] = both
        return self._ready[device, dtype]


class RandomFlip:
    """每张图各以概率 ``p`` 左右翻转，形状和 dtype 不变。

    Raises:
        ArgumentError: ``p`` 不在 0 到 1 之间。
    """

    draws = 1

    def __init__(self, p: float = 0.5) -> None:
        _check_probability(p)
        self.p = p

    def __call__(self, x_BCHW: Tensor, u_KB: Tensor) -> Tensor:
        """翻转后的一批；``u < p`` 的图翻。"""
        check_shape("images", x_BCHW, "B C H W", hint=_HINT)
        column_W = torch.arange(x_BCHW.shape[3], device=x_BCHW.device)
        column_BW = torch.where((u_KB[0] < self.p)[:, None], column_W.flip(0), column_W)
        return x_BCHW.gather(3, column_BW[:, None, None].expand_as(x_BCHW))


class RandomCrop:
    """每张图四周先补 ``padding`` 圈，再随机裁回原来的大小：图在原地上下左右挪了几格。

    Args:
        padding: 补几圈，也就是最多挪几格。
        fill: 补的数。

    Raises:
        ArgumentError: ``padding`` 不是正整数。
    """

    draws = 2

    def __init__(self, padding: int, fill: float = 0) -> None:
        if not isinstance(padding, int) or padding < 1:
            raise ArgumentError(f"padding 应为不小于 1 的整数，实际是 {padding!r}。")
        self.padding, self.fill = padding, fill

    def __call__(self, x_BCHW: Tensor, u_KB: Tensor) -> Tensor:
        """裁好的一批，形状和 dtype 不变；两个随机数依次定上边和左边从哪里裁起。"""
        check_shape("images", x_BCHW, "B C H W", hint=_HINT)
        height, width = x_BCHW.shape[2:]
        padded = F.pad(x_BCHW, [self.padding] * 4, value=self.fill)
        top_B, left_B = _integers(u_KB, 2 * self.padding + 1)
        # 每一行像素在内存里连着。算出每一行从哪里起，一次取走 B·C·H 段，比逐个像素取快得多。
        maps = torch.arange(padded.shape[:2].numel(), device=x_BCHW.device).view(padded.shape[:2])
        rows_BCH = (maps * padded.shape[2] + top_B[:, None])[..., None]
        rows_BCH = rows_BCH + torch.arange(height, device=x_BCHW.device)
        starts_BCH = rows_BCH * padded.shape[3] + left_B[:, None, None]
        windows = padded.flatten().unfold(0, width, 1)  # 每个位置起的一段，只是视图
        return windows.index_select(0, starts_BCH.flatten()).view_as(x_BCHW)


class RandomErase:
    """每张图各以概率 ``p`` 涂掉一个随机的长方形，形状和 dtype 不变。

    Args:
        p: 涂的概率。
        scale: 长方形占整张图的面积，从小到大。
        ratio: 高与宽之比，从小到大。
        value: 涂成什么数。

    Raises:
        ArgumentError: ``p`` 不在 0 到 1 之间，或者 ``scale``、``ratio`` 不是从小到大的正数。

    出处：Zhong 等《Random Erasing Data Augmentation》，2017；放不下的长方形不重抽，截到图的边长。
    """

    draws = 5

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float = 0,
    ) -> None:
        _check_probability(p)
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise ArgumentError(
                "scale 和 ratio 应各是从小到大的两个正数，scale 不超过 1，实际是 "
                f"{scale} 和 {ratio}。"
            )
        self.p, self.scale, self.ratio, self.value = p, scale, ratio, value

    def __call__(self, x_BCHW: Tensor, u_KB: Tensor) -> Tensor:
        """涂过的一批；五个随机数依次定涂不涂、面积、高宽比、上边、左边。"""
        check_shape("images", x_BCHW, "B C H W", hint=_HINT)
        height, width = x_BCHW.shape[2:]
        chance_B, area_B, ratio_B, top_B, left_B = u_KB
        area_B = (area_B * (self.scale[1] - self.scale[0]) + self.scale[0]) * (height * width)
        ratio_B = ratio_B * (self.ratio[1] - self.ratio[0]) + self.ratio[0]
        tall_B = (area_B * ratio_B).sqrt().round().clamp(1, height)
        wide_B = (area_B / ratio_B).sqrt().round().clamp(1, width)
        rows_BH = _inside(_integers(top_B, height - tall_B + 1), tall_B, height)
        cols_BW = _inside(_integers(left_B, width - wide_B + 1), wide_B, width)
        mask_BHW = rows_BH[:, :, None] & cols_BW[:, None] & (chance_B < self.p)[:, None, None]
        return x_BCHW.masked_fill(mask_BHW[:, None], self.value)


def _integers(u: Tensor, count: int | Tensor) -> Tensor:
    """把 ``[0, 1)`` 的均匀分布变成 0 到 ``count - 1`` 的整数。

    不会得到 ``count``：u 最大是 1 - 2**-24，乘以整数再舍入，仍比那个整数小。
    """
    return (u * count).long()


def _inside(start_B: Tensor, length_B: Tensor, size: int) -> Tensor:
    """一条边上哪些位置落在 ``[start, start + length)`` 里，形状 ``(B, size)``，``bool``。"""
    place = torch.arange(size, device=start_B.device)
    return (place >= start_B[:, None]) & (place < (start_B + length_B)[:, None])


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ArgumentError(f"p 是概率，应在 0 到 1 之间，实际是 {p!r}。")
