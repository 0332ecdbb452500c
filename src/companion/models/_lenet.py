"""LeNet-5：第一个读懂手写数字的卷积网络。形状后缀：B 批量，C 通道，H 高，W 宽，K 类别。"""

from torch import Tensor, nn

from companion.errors import ArgumentError, check_shape


class LeNet(nn.Module):
    """两层卷积、三层全连接，61 706 个参数，认 28×28 的图片。

    卷积之后是 tanh 和平均池化，同原文；原文第二层卷积只连一部分通道，输出层是径向基函数，这里按
    现在的教法，全连上，输出就是得分。

    Args:
        num_classes: 类别数 K。
        in_channels: 输入的通道数，灰度图是 1。
        size: 图片的边长，至少 12。

    Raises:
        ArgumentError: ``size`` 小于 12，两次池化之后什么也不剩。

    出处：LeCun 等，《Gradient-Based Learning Applied to Document Recognition》（1998）。
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, size: int = 28) -> None:
        super().__init__()
        left = (size // 2 - 4) // 2  # 28 → 池化 14 → 卷积 10 → 池化 5
        if left < 1:
            raise ArgumentError(f"size 至少为 12，实际是 {size}。小图片请用 SmallCNN。")
        self.in_channels, self.size = in_channels, size
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.pool = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * left * left, 120)
        self.fc2 = nn.Linear(120, 84)
        self.head = nn.Linear(84, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """类别得分，形状 ``(B, K)``。

        Args:
            x_BCHW: 图片，形状 ``(B, in_channels, size, size)``，浮点。

        Raises:
            ShapeError: 不是这个形状。
        """
        expected = f"B {self.in_channels} {self.size} {self.size}"
        check_shape("inputs", x_BCHW, expected, hint="边长和通道数是建模型时定的。")
        x_BCHW = self.pool(self.conv1(x_BCHW).tanh())  # (B, 6, 14, 14)
        x_BCHW = self.pool(self.conv2(x_BCHW).tanh())  # (B, 16, 5, 5)
        x_BD = x_BCHW.flatten(start_dim=1)  # (B, 400)
        x_BD = self.fc2(self.fc1(x_BD).tanh()).tanh()  # (B, 84)
        logits_BK: Tensor = self.head(x_BD)
        return logits_BK
