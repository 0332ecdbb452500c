"""多个进程一起训练：没有初始化时一切照单进程办。

- ``_launch``  从笔记本里启动几个进程
- ``_init``    加入、离开进程组
- ``_wrap``    包装模型：DDP、FSDP2
- ``_ranks``   我是第几个进程，大家对一句话
"""

from companion.distributed._init import init, shutdown
from companion.distributed._launch import launch
from companion.distributed._ranks import (
    any_rank,
    barrier,
    gather_objects,
    is_distributed,
    is_main,
    on_main,
    rank,
    say,
    world_size,
)
from companion.distributed._wrap import (
    all_finite,
    bare_parameters,
    bare_state,
    defer_sync,
    is_fully_sharded,
    is_wrapped,
    load_bare,
    local_part,
    unwrap,
    wrap,
)

__all__ = [
    "all_finite",
    "any_rank",
    "bare_parameters",
    "bare_state",
    "barrier",
    "defer_sync",
    "gather_objects",
    "init",
    "is_distributed",
    "is_fully_sharded",
    "is_main",
    "is_wrapped",
    "launch",
    "load_bare",
    "local_part",
    "on_main",
    "rank",
    "say",
    "shutdown",
    "unwrap",
    "world_size",
    "wrap",
]
