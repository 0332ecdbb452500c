"""模型：每个一个文件，从头读到尾；不知道训练、数据和画图的存在。

- ``_mlp``     ``MLP``：多层感知机
- ``_cnn``     ``SmallCNN``：给 8×8 数字的卷积网络
- ``_lenet``、``_resnet``  ``LeNet``、小 ``ResNet``
- ``_rnn``     手写的 ``LSTM`` 和循环网络分类器
- ``_gpt``     小 ``GPT``
"""

from companion.models._cnn import SmallCNN
from companion.models._gpt import GPT, Block, CausalAttention
from companion.models._lenet import LeNet
from companion.models._mlp import MLP
from companion.models._resnet import BasicBlock, ResNet
from companion.models._rnn import LSTM, LSTMCell, RNNClassifier

__all__ = [
    "GPT",
    "LSTM",
    "MLP",
    "BasicBlock",
    "Block",
    "CausalAttention",
    "LSTMCell",
    "LeNet",
    "RNNClassifier",
    "ResNet",
    "SmallCNN",
]
