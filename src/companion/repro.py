"""可复现：固定随机种子，存取随机数发生器的状态，写出这次运行的环境。"""

import importlib
import json
import os
import platform
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import torch

from companion.device import device_name, pick_device
from companion.errors import ArgumentError

__all__ = [
    "Environment",
    "RandomSource",
    "environment",
    "generator_state",
    "random_state",
    "restore_generator_state",
    "restore_random_state",
    "seed_everything",
    "versions",
]

RandomSource = torch.Generator | random.Random | np.random.Generator | np.random.RandomState


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


def random_state() -> dict[str, Any]:
    """Python、NumPy、torch（含全部用到的加速器）的全局随机数发生器此刻的状态。

    键是 ``python``、``numpy``、``torch``、``accelerators``；里面只有列表、数和张量，可以存进文件。
    """
    version, numbers, gauss = random.getstate()
    legacy: Any = np.random.get_state()  # 五项：名字、624 个数、位置、存着一个高斯数吗、那个数
    _, key, position, has_gauss, cached = legacy
    return {
        "python": [version, torch.tensor(numbers), gauss],  # 625 个整数；装在张量里存得快
        "numpy": [torch.tensor(key.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "accelerators": _accelerator_states(),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """什么也不返回：让各个全局发生器回到 ``random_state()`` 记下的那一刻。

    加速器比记下时少，多出来的状态就不用。
    """
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    key, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    module, count = _accelerators()
    for i, saved in enumerate(state["accelerators"][:count]):
        module.set_rng_state(saved, i) if count > 1 else module.set_rng_state(saved)


def generator_state(source: RandomSource) -> Any:
    """自己的一个发生器此刻的状态；只有数、字符串、字节和列表，可以存进文件，可以用 == 比较。"""
    if isinstance(source, torch.Generator):
        return source.get_state().numpy().tobytes()
    if isinstance(source, random.Random):
        version, numbers, gauss = source.getstate()
        return [version, list(numbers), gauss]
    if isinstance(source, np.random.RandomState):
        return json.dumps(source.get_state(legacy=False), default=np.ndarray.tolist)
    return json.dumps(source.bit_generator.state, default=np.ndarray.tolist)


def restore_generator_state(source: RandomSource, state: Any) -> None:
    """什么也不返回：让 ``source`` 回到 ``generator_state()`` 记下的那一刻；要是同一种发生器。"""
    if isinstance(source, torch.Generator):
        source.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    elif isinstance(source, random.Random):
        source.setstate((state[0], tuple(state[1]), state[2]))
    elif isinstance(source, np.random.RandomState):
        source.set_state(json.loads(state))
    else:
        source.bit_generator.state = json.loads(state)


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


def _accelerators() -> tuple[Any, int]:
    """加速器的模块（如 ``torch.cuda``）和个数；没有加速器时是 ``(None, 0)``。"""
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return None, 0
    return torch.get_device_module(device), torch.accelerator.device_count()


def _accelerator_states() -> list[torch.Tensor]:
    """每个加速器的发生器状态。还没有用过加速器就是 []：问它会启动它，白等几秒。"""
    module, count = _accelerators()
    if not count or not getattr(module, "is_initialized", lambda: True)():
        return []
    if count == 1:  # 苹果芯片的 get_rng_state 不收编号
        return [module.get_rng_state()]
    return [module.get_rng_state(i) for i in range(count)]


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # 容器和任务系统分到的核，常比机器的核少
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, Any]:
    """companion 的版本，此刻的时间，环境。"""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    version = importlib.import_module("companion").__version__
    return {"companion": version, "date": now, "environment": asdict(environment())}
