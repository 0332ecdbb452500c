"""小图片的残差网络。形状后缀：B 批量，C 通道，H 高，W 宽，K 类别。"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from companion.errors import ArgumentError, check_shape


class BasicBlock(nn.Module):
    """两层 3×3 卷积，加上一条什么也不学的捷径：``relu(卷积(x) + x)``。

    通道变多、步幅是 2 时，捷径隔一个像素取一个，多出来的通道补零，所以捷径没有参数
    （原文的选项 A）。

    Args:
        n_in, n_out: 进、出的通道数，``n_out`` 不小于 ``n_in``。
        stride: 第一层卷积的步幅，1 或 2。
    """

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.extra = stride, n_out - n_in
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """形状 ``(B, n_out, H / stride, W / stride)``，除不尽时向上取整。"""
        y_BCHW: Tensor = self.bn1(self.conv1(x_BCHW)).relu()
        y_BCHW = self.bn2(self.conv2(y_BCHW))
        return (y_BCHW + self.shortcut(x_BCHW)).relu()

    def shortcut(self, x_BCHW: Tensor) -> Tensor:
        """捷径那一支，形状与卷积那一支相同。"""
        x_BCHW = x_BCHW[:, :, :: self.stride, :: self.stride]
        return F.pad(x_BCHW, (0, 0, 0, 0, 0, self.extra)) if self.extra else x_BCHW


class ResNet(nn.Module):
    """CIFAR 上的残差网络，默认 20 层、269 722 个参数，认 32×32 左右的彩色图。

    一层卷积；三段，每段 ``(depth - 2) / 6`` 块，通道数 16、32、64，后两段开头把高宽减半；
    全局平均；一层全连接。

    Args:
        num_classes: 类别数 K。
        in_channels: 输入的通道数，彩色图是 3。
        depth: 有参数的层数，6n + 2：20、32、44、56、110。
        width: 第一段的通道数。

    Raises:
        ArgumentError: ``depth`` 不是 6n + 2。

    出处：He 等，《Deep Residual Learning for Image Recognition》（arXiv 1512.03385）4.2 节。
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, depth: int = 20, width: int = 16
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ArgumentError(f"depth 应为 6n + 2（8、14、20、32……），实际是 {depth}。")
        self.in_channels, n = in_channels, (depth - 2) // 6
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        widths = [width] * (n + 1) + [2 * width] * n + [4 * width] * n
        self.blocks = nn.ModuleList(
            BasicBlock(n_in, n_out, stride=1 if n_in == n_out else 2)
            for n_in, n_out in pairwise(widths)
        )
        self.head = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # 每过一层 ReLU，方差不变
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """类别得分，形状 ``(B, K)``。

        Args:
            x_BCHW: 图片，形状 ``(B, in_channels, H, W)``，浮点；高宽不限。

        Raises:
            ShapeError: 不是四维，或通道数不对。
        """
        check_shape("inputs", x_BCHW, f"B {self.in_channels} H W", hint="通道数是建模型时定的。")
        x_BCHW = self.bn(self.conv(x_BCHW)).relu()
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        logits_BK: Tensor = self.head(x_BCHW.mean(dim=(2, 3)))
        return logits_BK
