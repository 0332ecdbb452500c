"""test_distributed_exit.py 用两个进程跑的任务：通信完立刻结束，而通信库的线程几乎轮不到 CPU。"""

import os
import threading
from pathlib import Path

import torch
from torch import distributed as dist
from torch.distributed._functional_collectives import all_gather_single

from companion.distributed import init

init(timeout_s=60)
group = dist.group.WORLD  # 模型还活着时也是这样：进程组没有被删掉，它的线程就还在
for thread in (int(task.name) for task in Path("/proc/self/task").iterdir()):
    if thread != threading.get_native_id():
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
for _ in range(20):
    gathered = all_gather_single(torch.ones(3), 0, group).sum().item()
print("sum", gathered)
