"""小 GPT：只看前文、预测下一个词元的 Transformer。

形状后缀：B 批量，T 时间步，D 宽度，H 头，E 每头的宽度（D = H × E），F 前馈的宽度，V 词表。
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from companion._common import eval_mode
from companion.errors import ArgumentError, ShapeError, check_shape


class CausalAttention(nn.Module):
    """多头自注意力，每个位置只看自己和前面。

    Args:
        width, heads: 宽度 D 和头数 H，``width`` 是 ``heads`` 的倍数。
        dropout: 训练时随机丢掉的注意力权重的比例。

    Raises:
        ArgumentError: ``width`` 不是 ``heads`` 的倍数。

    出处：Vaswani 等，《Attention Is All You Need》（arXiv 1706.03762）3.2 节。
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ArgumentError(f"width 应是 heads 的倍数，实际是 {width} 和 {heads}。")
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)  # 查询、键、值并排，一次算完
        self.out = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """形状与输入相同，``(B, T, D)``。"""
        q_BHTE, k_BHTE, v_BHTE = (
            part_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part_BTD in self.qkv(x_BTD).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        y_BHTE = F.scaled_dot_product_attention(
            q_BHTE, k_BHTE, v_BHTE, dropout_p=dropout, is_causal=True
        )
        y_BTD: Tensor = self.out(y_BHTE.transpose(1, 2).flatten(-2))
        return y_BTD


class Block(nn.Module):
    """一层 Transformer：注意力和前馈各一次，都先归一化、再加回原来的（pre-norm）。"""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, dropout)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """形状与输入相同，``(B, T, D)``。"""
        x_BTD = x_BTD + self.drop(self.attention(self.norm1(x_BTD)))
        hidden_BTF = F.gelu(self.up(self.norm2(x_BTD)))
        x_BTD = x_BTD + self.drop(self.down(hidden_BTF))
        return x_BTD


class GPT(nn.Module):
    """词元进，下一个词元的得分出；输出层与词嵌入共用一张表。

    参数个数是 ``(V + context)·D + depth·(12·D² + 13·D) + 2·D``。

    Args:
        vocab: 词表大小 V。
        context: 最长看多少个词元。
        width, heads, depth: 宽度 D、头数、层数。
        dropout: 训练时随机丢掉的比例。

    出处：Radford 等，《Language Models are Unsupervised Multitask Learners》（GPT-2，2019）。
    """

    def __init__(
        self,
        vocab: int,
        context: int,
        width: int = 64,
        heads: int = 4,
        depth: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.context = context
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(context, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)
        self.head.weight = self.tokens.weight
        self._initialise(depth)

    def _initialise(self, depth: int) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                into_stream = name.endswith(("out.weight", "down.weight"))
                # 残差一共加 2·depth 次，每次小一些，加完才和一层差不多大
                nn.init.normal_(parameter, std=0.02 / ((2 * depth) ** 0.5 if into_stream else 1))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """每个位置上下一个词元的得分，形状 ``(B, T, V)``。

        Args:
            tokens_BT: 词元编号，形状 ``(B, T)``，``int64``，T 不超过 ``context``。

        Raises:
            ShapeError: 不是两维，或太长。
        """
        check_shape("tokens", tokens_BT, "B T", hint="一条也要有批量这一维：tokens[None]。")
        length = tokens_BT.shape[1]
        if length > self.context:
            raise ShapeError(
                f"tokens 最长 {self.context}，实际是 {length}。请截短，或建模型时把 context 调大。"
            )
        places_T = torch.arange(length, device=tokens_BT.device)
        x_BTD = self.drop(self.tokens(tokens_BT) + self.positions(places_T))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits_BTV: Tensor = self.head(self.norm(x_BTD))
        return logits_BTV

    @torch.no_grad()
    def generate(
        self,
        tokens_BT: Tensor,
        count: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """在后面接上 ``count`` 个词元，形状 ``(B, T + count)``；期间是 eval 状态。

        每次把最后 ``context`` 个词元重算一遍，不留缓存。随机数来自自己的发生器，不动全局的。

        Args:
            tokens_BT: 开头，形状 ``(B, T)``，T 至少为 1，可以比 ``context`` 长。
            count: 接几个。
            temperature: 得分除以它再取概率；越小越保守，0 是每次都取最高的。
            top_k: 只在得分最高的几个里抽。
            seed: 随机种子。

        Raises:
            ArgumentError: ``temperature`` 是负数，或 ``top_k`` 小于 1。
        """
        if temperature < 0 or (top_k is not None and top_k < 1):
            raise ArgumentError(
                f"temperature 不能是负数，top_k 至少为 1；实际是 {temperature} 和 {top_k}。"
            )
        generator = torch.Generator(tokens_BT.device).manual_seed(seed)
        with eval_mode(self):
            for _ in range(count):
                logits_BV = self(tokens_BT[:, -self.context :])[:, -1]
                next_B1 = _choose(logits_BV, temperature, top_k, generator)
                tokens_BT = torch.cat([tokens_BT, next_B1], dim=1)
        return tokens_BT


def _choose(
    logits_BV: Tensor, temperature: float, top_k: int | None, generator: torch.Generator
) -> Tensor:
    """每行选一个词元，形状 ``(B, 1)``。"""
    if temperature == 0:
        return logits_BV.argmax(dim=-1, keepdim=True)
    if top_k is not None:
        least_B1 = logits_BV.topk(min(top_k, logits_BV.shape[-1])).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, float("-inf"))
    return torch.multinomial((logits_BV / temperature).softmax(dim=-1), 1, generator=generator)
