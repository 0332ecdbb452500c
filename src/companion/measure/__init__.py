"""测量：花了多少时间和内存，模型有多大；不画图，也不改被量的东西。

- ``_profile``   ``measure`` 计时，``memory`` 量内存，``op_table`` 列出各个算子的时间
- ``_summary``   ``summary``：逐层的形状、参数个数、FLOPs
"""

from companion.measure._profile import Memory, Op, OpTable, Timing, measure, memory, op_table
from companion.measure._summary import Layer, Summary, summary

__all__ = [
    "Layer",
    "Memory",
    "Op",
    "OpTable",
    "Summary",
    "Timing",
    "measure",
    "memory",
    "op_table",
    "summary",
]
