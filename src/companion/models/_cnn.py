"""8×8 灰度图的小卷积网络。形状后缀：B 批量，C 通道，H 高，W 宽，K 类别。"""

from torch import Tensor, nn

from companion.errors import check_shape


class SmallCNN(nn.Module):
    """三层卷积、一层全连接，19 338 个参数，认 8×8 的数字。

    前两层卷积看边和角，池化把 8×8 缩成 4×4，第三层看它们怎么拼。每层卷积后面跟批归一化，
    所以训练与预测要用 ``train()`` 和 ``eval()`` 切换。

    Args:
        num_classes: 类别数 K。
        width: 第一层的通道数；后两层是它的两倍。
        dropout: 全连接层之前随机丢掉的比例，0 到 1。
    """

    def __init__(self, num_classes: int = 10, width: int = 16, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, kernel_size=3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, kernel_size=3, padding=1)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1)
        self.norm3 = nn.BatchNorm2d(2 * width)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width * 4 * 4, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """类别得分，形状 ``(B, K)``。

        Args:
            x_BCHW: 灰度图，形状 ``(B, 1, 8, 8)``，浮点，取值 0 到 1。

        Raises:
            ShapeError: 不是这个形状。
        """
        check_shape("inputs", x_BCHW, "B 1 8 8", hint="缺通道维时写 inputs[:, None]。")
        x_BCHW = self.norm1(self.conv1(x_BCHW)).relu()  # (B, 16, 8, 8)
        x_BCHW = self.norm2(self.conv2(x_BCHW)).relu()  # (B, 32, 8, 8)
        x_BCHW = self.pool(x_BCHW)  # (B, 32, 4, 4)
        x_BCHW = self.norm3(self.conv3(x_BCHW)).relu()  # (B, 32, 4, 4)
        logits_BK: Tensor = self.head(self.dropout(x_BCHW.flatten(start_dim=1)))
        return logits_BK
