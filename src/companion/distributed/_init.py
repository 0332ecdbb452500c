"""加入进程组，离开进程组。同一个脚本，torchrun 启动时是其中一个进程，单独跑时就是自己一个。"""

import atexit
import os
import sys
import threading
import time
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from companion.device import pick_device
from companion.distributed._ranks import is_distributed
from companion.errors import ArgumentError

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun 设好的环境变量
_JOINS = count(1)  # 本进程第几次加入


def init(*, timeout_s: float = 120, backend: str | None = None) -> torch.device:
    """本进程该用的设备；由 torchrun 启动时，先加入进程组，退出时自动离开。

    没有环境变量 ``RANK``，就是单独运行：什么也不做，返回 ``pick_device()``。有加速器时，每个进程用
    编号与 ``LOCAL_RANK`` 相同的那一个；进程比加速器多，就全部用 CPU。

    Args:
        timeout_s: 一次通信最多等几秒，到时间报错（torch 的默认值是 gloo 30 分钟、NCCL 10 分钟）。
        backend: 通信后端。默认 CPU 上的张量用 gloo，加速器上的用它自己的（如 NCCL）；
            给 ``"gloo"`` 就只用 CPU。

    Raises:
        ArgumentError: 有 ``RANK``，却缺了别的环境变量。

    出处：``torch.distributed.init_process_group``。
    """
    if "RANK" not in os.environ:
        return pick_device()
    if missing := [name for name in _NEEDED if name not in os.environ]:
        raise ArgumentError(
            f"应有环境变量 {'、'.join(_NEEDED)}，实际缺 {'、'.join(missing)}。"
            "请用 companion.distributed.launch 或 torchrun 启动，它们会设好。"
        )
    device = torch.device("cpu") if backend == "gloo" else _local_device()
    if is_distributed():
        return device
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group(
        backend or _backend(device),
        store=_fresh_store(timeout),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timeout,
        device_id=None if device.type == "cpu" else device,
    )
    atexit.register(_leave)
    return device


def shutdown() -> None:
    """离开进程组，此后又是单进程；没有进程组时什么也不做。脚本结束时会自动调用。"""
    if is_distributed():
        dist.destroy_process_group()


def _leave() -> None:
    """脚本结束时离开；是因为出错才结束的，就不打招呼：别的进程可能正等着，打招呼也会等住。"""
    if not hasattr(sys, "last_value"):  # 没有人接住的异常会留在这里
        shutdown()
        _let_threads_finish()


def _let_threads_finish(patience_s: float = 5) -> None:
    """等通信库的线程放下最后一次通信的张量；最多等 ``patience_s`` 秒。

    释放张量要用 Python 的锁。解释器已经开始收场时才去拿，那个线程会被强行结束，整个进程随之
    异常退出（SIGABRT）。离开进程组也不保证它们停下：模型还活着，就还拿着进程组。
    """
    deadline, quiet = time.monotonic() + patience_s, 0
    while quiet < 5 and time.monotonic() < deadline:  # 接连几次都没有线程在跑，才算都放下了
        time.sleep(0.01)  # 睡着时别的线程拿得到锁
        quiet = 0 if _others_running() else quiet + 1


def _others_running() -> bool:
    """本进程有没有别的线程在跑；只有 Linux 看得到，其余系统当作没有。"""
    me = str(threading.get_native_id())
    others = (task for task in Path("/proc/self/task").glob("*") if task.name != me)
    return any(_state(task) in "RD" for task in others)


def _state(task: Path) -> str:
    """线程的状态，如 ``"S"`` 是在等；已经没有这个线程，也算在等。"""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "S"


def _local_device() -> torch.device:
    """本进程的那个加速器。几个进程共用一个会互相等死，所以不够分时大家都用 CPU。"""
    device = pick_device()
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank + 1))
    if device.type == "cpu" or local_size > torch.accelerator.device_count():
        return torch.device("cpu")
    return torch.device(device.type, local_rank)


def _backend(device: torch.device) -> str:
    """如 ``"cpu:gloo,某加速器:它的后端"``：小消息走 CPU，大张量在加速器上直接传。"""
    if device.type == "cpu":
        return "cpu:gloo"
    return f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"


def _fresh_store(timeout: timedelta) -> Any:
    """各进程互相找到对方用的存储，名字按第几次启动、第几次加入分开。

    torchrun 重启进程，或者 ``shutdown`` 之后再 ``init``，用的都是同一个存储，里面还留着上一次的
    地址；不分开的话，会去连已经关了的地址，任务繁忙时常常因此失败。
    """
    agent_serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=os.environ["RANK"] == "0" and not agent_serves,
        timeout=timeout,
        multi_tenant=not agent_serves,
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    name = f"attempt-{attempt}-join-{next(_JOINS)}-of-{os.environ['WORLD_SIZE']}"
    return dist.PrefixStore(name, store)  # type: ignore[attr-defined]
