"""可复现：固定随机种子，写出这次运行的环境。"""

import os
import platform
import random
from dataclasses import dataclass

import numpy as np
import torch

from companion.device import device_name, pick_device
from companion.errors import ArgumentError

__all__ = ["Environment", "environment", "seed_everything"]


def seed_everything(seed: int) -> None:
    """什么也不返回：给 Python、NumPy、torch（含全部加速器）的随机数发生器定同一个种子。

    Raises:
        ArgumentError: ``seed`` 不是 ``0`` 到 ``2**32 - 1`` 的整数（NumPy 只收这些）。
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ArgumentError(f"seed 应为 0 到 2**32 - 1 的整数，实际是 {seed!r}。")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Environment:
    """一次运行的环境。打印出来是一行；字段都是字符串或整数，可以存进实验记录。"""

    python: str
    torch: str
    numpy: str
    device: str  # 加速器的型号；没有加速器时是 "cpu"
    cores: int  # 本进程能用的 CPU 核数
    threads: int  # torch 在一个运算里用的线程数
    system: str  # 如 "Linux"
    machine: str  # 处理器架构，如 "x86_64"

    def __repr__(self) -> str:
        release = self.torch.partition("+")[0]  # "2.15.0+cu132" 的后半是怎么编译的，不占这一行
        where = f"CPU {self.cores} 核" + ("" if self.device == "cpu" else f" · {self.device}")
        return f"Python {self.python} · torch {release} · {where} · {self.system} {self.machine}"


def environment() -> Environment:
    """当前进程的环境，如 ``Python 3.11.7 · torch 2.15.0 · CPU 2 核 · Linux x86_64``。"""
    return Environment(
        python=platform.python_version(),
        torch=str(torch.__version__),
        numpy=np.__version__,
        device=device_name(pick_device()),
        cores=_usable_cores(),
        threads=torch.get_num_threads(),
        system=platform.system(),
        machine=platform.machine(),
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # 容器和任务系统分到的核，常比机器的核少
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
