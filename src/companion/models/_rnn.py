"""循环网络：手写的 LSTM，和用 torch 的层搭的序列分类器。

形状后缀：B 批量，T 时间步，D 输入的宽度，H 隐藏状态的宽度，G 四个门并排（4H），K 类别。
"""

import math

import torch
from torch import Tensor, nn

from companion.errors import check_choice, check_shape

_CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class LSTMCell(nn.Module):
    """手写的一步 LSTM，参数的名字、形状、初值与 ``nn.LSTMCell`` 相同。

    Args:
        n_in, n_hidden: 输入和隐藏状态的宽度 D、H。

    出处：Hochreiter、Schmidhuber（1997）；遗忘门见 Gers 等（2000）。
    """

    def __init__(self, n_in: int, n_hidden: int) -> None:
        super().__init__()
        self.n_in = n_in
        self.weight_ih = nn.Parameter(torch.empty(4 * n_hidden, n_in))
        self.weight_hh = nn.Parameter(torch.empty(4 * n_hidden, n_hidden))
        self.bias_ih = nn.Parameter(torch.empty(4 * n_hidden))
        self.bias_hh = nn.Parameter(torch.empty(4 * n_hidden))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(n_hidden), 1 / math.sqrt(n_hidden))

    def forward(self, x_BD: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """新的状态 ``(h_BH, c_BH)``。

        Args:
            x_BD: 这一步的输入，形状 ``(B, D)``。
            state: 上一步的 ``(h_BH, c_BH)``，形状都是 ``(B, H)``。

        Raises:
            ShapeError: 输入不是这个形状。
        """
        check_shape("inputs", x_BD, f"B {self.n_in}", hint="一次只给一个时间步。")
        h_BH, c_BH = state
        gates_BG = x_BD @ self.weight_ih.T + self.bias_ih + h_BH @ self.weight_hh.T + self.bias_hh
        write_BH, keep_BH, new_BH, show_BH = gates_BG.chunk(4, dim=1)
        c_BH = keep_BH.sigmoid() * c_BH + write_BH.sigmoid() * new_BH.tanh()
        return show_BH.sigmoid() * c_BH.tanh(), c_BH


class LSTM(nn.Module):
    """一层手写的 LSTM：把 ``LSTMCell`` 沿时间走一遍，结果同 ``nn.LSTM(batch_first=True)``。"""

    def __init__(self, n_in: int, n_hidden: int) -> None:
        super().__init__()
        self.n_in, self.n_hidden = n_in, n_hidden
        self.cell = LSTMCell(n_in, n_hidden)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """每一步的 ``h``，形状 ``(B, T, H)``；和最后的 ``(h_BH, c_BH)``。状态从 0 起。

        Args:
            x_BTD: 序列，形状 ``(B, T, D)``，浮点。

        Raises:
            ShapeError: 不是这个形状。
        """
        check_shape("inputs", x_BTD, f"B T {self.n_in}", hint="批量在前，时间在中间。")
        h_BH = c_BH = x_BTD.new_zeros(x_BTD.shape[0], self.n_hidden)
        steps = []
        for x_BD in x_BTD.unbind(dim=1):
            h_BH, c_BH = self.cell(x_BD, (h_BH, c_BH))
            steps.append(h_BH)
        return torch.stack(steps, dim=1), (h_BH, c_BH)


class RNNClassifier(nn.Module):
    """读完一个序列再分类：循环层，取最后一步的隐藏状态，一层全连接。

    Args:
        n_in: 每一步输入的宽度 D。
        n_hidden: 隐藏状态的宽度 H。
        num_classes: 类别数 K。
        cell: ``"lstm"``、``"gru"`` 或最朴素的 ``"rnn"``。
        num_layers: 叠几层。

    Raises:
        ArgumentError: ``cell`` 不是这三个之一。
    """

    def __init__(
        self, n_in: int, n_hidden: int, num_classes: int, cell: str = "lstm", num_layers: int = 1
    ) -> None:
        super().__init__()
        check_choice("cell", cell, _CELLS)
        self.n_in = n_in
        self.rnn = _CELLS[cell](n_in, n_hidden, num_layers, batch_first=True)
        self.head = nn.Linear(n_hidden, num_classes)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """类别得分，形状 ``(B, K)``。

        Args:
            x_BTD: 序列，形状 ``(B, T, D)``，浮点；短的在后面补齐，补什么都行。
            lengths_B: 各序列真正的长度，形状 ``(B,)``，``int64``，1 到 T；不给就是都有 T 步。

        Raises:
            ShapeError: 不是这个形状。
        """
        check_shape("inputs", x_BTD, f"B T {self.n_in}", hint="批量在前，时间在中间。")
        h_BTH, _ = self.rnn(x_BTD)
        if lengths_B is None:
            last_BH = h_BTH[:, -1]
        else:
            check_shape("lengths", lengths_B, f"{len(x_BTD)}", hint="一个序列一个长度。")
            last_BH = h_BTH[torch.arange(len(h_BTH), device=h_BTH.device), lengths_B - 1]
        logits_BK: Tensor = self.head(last_BH)
        return logits_BK
