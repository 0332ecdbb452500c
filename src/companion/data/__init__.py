"""数据：随包带的手写数字，几种加载器，整批的变换，公开数据集的下载。

- ``_digits``    ``load_digits``、``digits_split``：1797 张 8×8 的手写数字，随包带着
- ``_loaders``   ``loaders``：从张量或数据集到能精确接着练的加载器
- ``_tensor_loader``、``_index_loader``  它给出的两种加载器：数据在内存里的，按编号取样本的
- ``_sampler``   每一轮的次序，只由种子和轮次决定；``_picks`` 用户给的 ``sampler``
- ``_random``    定种，借用全局的发生器
- ``_given``     给的数据能不能按编号取样本
- ``_augment``   整批的随机变换
- ``_trial``    ``random_in_samples``：样本里的随机数从哪里来
- ``_vision``    MNIST、Fashion-MNIST、CIFAR-10；``_download`` 取文件
"""

from companion.data._augment import Compose, Normalize, RandomCrop, RandomErase, RandomFlip
from companion.data._digits import Digits, digits_split, load_digits
from companion.data._download import data_folder, download
from companion.data._index_loader import IndexLoader
from companion.data._loaders import loaders
from companion.data._sampler import EpochSampler
from companion.data._tensor_loader import TensorLoader
from companion.data._trial import random_in_samples
from companion.data._vision import cifar10, fashion_mnist, mnist

__all__ = [
    "Compose",
    "Digits",
    "EpochSampler",
    "IndexLoader",
    "Normalize",
    "RandomCrop",
    "RandomErase",
    "RandomFlip",
    "TensorLoader",
    "cifar10",
    "data_folder",
    "digits_split",
    "download",
    "fashion_mnist",
    "load_digits",
    "loaders",
    "mnist",
    "random_in_samples",
]
