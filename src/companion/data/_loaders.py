"""训练和验证的加载器，一句话配好；次序和随机变换都能精确续上，不论几个子进程在取数据。"""

from collections.abc import Sequence
from typing import Any, overload

from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from companion.data._augment import Compose, Transform, as_compose
from companion.data._given import check_data, check_subset
from companion.data._index_loader import Collate, IndexLoader
from companion.data._sampler import EpochSampler, Picks
from companion.data._tensor_loader import TensorLoader
from companion.errors import ArgumentError, check_whole

Data = Dataset[Any] | Sequence[Any]
Loader = TensorLoader | IndexLoader


@overload
def loaders(
    train: Data,
    valid: None = None,
    *,
    batch_size: int,
    valid_batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    transform: Transform | Sequence[Transform] | None = None,
    drop_last: bool = False,
    collate_fn: Collate | None = None,
    sampler: Picks | None = None,
) -> Loader: ...


@overload
def loaders(
    train: Data,
    valid: Data,
    *,
    batch_size: int,
    valid_batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    transform: Transform | Sequence[Transform] | None = None,
    drop_last: bool = False,
    collate_fn: Collate | None = None,
    sampler: Picks | None = None,
) -> tuple[Loader, Loader]: ...


def loaders(
    train: Data,
    valid: Data | None = None,
    *,
    batch_size: int,
    valid_batch_size: int | None = None,
    workers: int = 0,
    seed: int = 0,
    transform: Transform | Sequence[Transform] | None = None,
    drop_last: bool = False,
    collate_fn: Collate | None = None,
    sampler: Picks | None = None,
) -> Loader | tuple[Loader, Loader]:
    """训练加载器；给了 ``valid`` 就是 ``(训练加载器, 验证加载器)``。

    训练的每轮重新打乱。验证的不打乱、不扔样本，``transform`` 里随机的那部分也不做。次序只由
    ``seed=`` 和轮次决定：``seed_everything`` 不改变它，换一个次序请换 ``seed=``。

    Args:
        train, valid: 张量的元组 ``(inputs, targets)``、``TensorDataset`` 或用 ``random_split`` 从它
            切出的一份，得到 ``TensorLoader``；其余能按编号取样本的数据集、样本的列表，得到
            ``IndexLoader``（也是 ``DataLoader``）。
        batch_size: 一批几个样本；``torchrun`` 之下是全部进程合起来的一批。
        valid_batch_size: 验证时的一批；不给就与 ``batch_size`` 相同。
        workers: 取样本的子进程数；``TensorLoader`` 用不到。
        seed: 打乱和随机变换用的种子，任意整数。
        transform: 对一批做的一个或一串变换，见 ``companion.data.augment``。只用于张量；别的数据集
            请把变换写在数据集里，用全局发生器抽的随机数照样能精确续上；数据集自带的发生器不能。
        drop_last: 扔掉训练里最后不满的一批。
        collate_fn: 把一批样本的列表拼成一批，训练和验证都用，如补齐长短不一的序列。给了它，内存里
            的张量也逐个取样本，得到 ``IndexLoader``；张量的列表就是样本的列表。
        sampler: 训练的编号由它逐个给出：torch 的 ``Sampler``，或一列编号（每轮照这个次序）。可以
            重复、可以不全，一轮有 ``len(sampler)`` 个。每轮开头按 ``seed`` 和轮次给全局的和它
            自带的发生器定种，抽完恢复：它原来的种子不起作用，断了也能精确续上。有 ``set_epoch``
            的，先告诉它轮次。重复取的样本，随机变换各抽各的。

    Raises:
        ArgumentError, DataError, ShapeError: 消息里写着怎么改。
    """
    steps = as_compose(transform)
    workers = check_whole("workers", workers, 0)
    how: Any = {"seed": seed, "workers": workers, "collate_fn": collate_fn}
    how |= {"transform": steps, "shuffle": sampler is None, "drop_last": drop_last}
    training = _loader(train, check_whole("batch_size", batch_size, 1), sampler=sampler, **how)
    if valid is None:
        return training
    size = batch_size if valid_batch_size is None else valid_batch_size
    how |= {"transform": steps.fixed(), "shuffle": False, "drop_last": False}
    return training, _loader(valid, check_whole("valid_batch_size", size, 1), sampler=None, **how)


def _loader(
    data: Data,
    batch_size: int,
    *,
    workers: int,
    collate_fn: Collate | None,
    transform: Compose,
    shuffle: bool,
    drop_last: bool,
    seed: int,
    sampler: Picks | None,
) -> Loader:
    how: Any = {"shuffle": shuffle, "drop_last": drop_last, "seed": seed, "sampler": sampler}
    tensors = _in_memory(data)
    if tensors is not None:
        loader = TensorLoader(*tensors, batch_size=batch_size, transform=transform, **how)
        if collate_fn is None:
            return loader
        data = TensorDataset(*loader.tensors)
    check_data(data, collate_fn is not None)
    if transform.transforms:
        name = f"{type(data).__name__}" + (" 加 collate_fn" if collate_fn else "")
        raise ArgumentError(
            f"transform 对整批张量做，实际的数据集是 {name}，一次给一个样本。"
            "请把变换写在数据集里（如 torchvision 数据集的 transform=）"
            + ("或 collate_fn 里。" if collate_fn else "，或先把数据读成张量。")
        )
    whole: Any = data
    return IndexLoader(whole, EpochSampler(len(whole), batch_size, **how), workers, collate_fn)


def _in_memory(data: Any) -> tuple[Tensor, ...] | None:
    """内存里现成的张量；不是这样的数据就是 ``None``。子类可能改写了取样本的办法，不算。"""
    if isinstance(data, tuple):
        return data
    if type(data) is TensorDataset:
        return data.tensors
    if (
        type(data) is Subset
        and not isinstance(data.dataset, tuple)
        and (whole := _in_memory(data.dataset)) is not None
    ):
        index = check_subset(data)
        return tuple(tensor[index.to(tensor.device)] for tensor in whole)
    return None
