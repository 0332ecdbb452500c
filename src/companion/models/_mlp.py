"""多层感知机。形状后缀：B 批量，D 当前一层的宽度。"""

from itertools import pairwise

from torch import Tensor, nn

from companion.errors import ArgumentError


class MLP(nn.Module):
    """全连接网络：``MLP(64, 128, 10)`` 是 64 进、一层 128 个隐藏单元、10 出。

    每两层之间一个 ReLU，最后一层之后没有。参数个数是 ``Σ (进 + 1) × 出``。

    Raises:
        ArgumentError: 宽度不到两个，或有宽度不是正数。
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ArgumentError(
                f"MLP 至少要两个正的宽度（进和出），如 MLP(64, 128, 10)；实际是 {sizes}。"
            )
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes))

    def forward(self, inputs: Tensor) -> Tensor:
        """得分，形状 ``(B, 最后一个宽度)``；``inputs`` 从第 1 维起展平，所以图片可以直接给。"""
        x_BD = inputs.flatten(start_dim=1)
        for layer in self.layers[:-1]:
            x_BD = layer(x_BD).relu()
        logits_BD: Tensor = self.layers[-1](x_BD)
        return logits_BD
