"""指标：一批一批地 ``update``，最后 ``compute`` 一次。

比例都在 0 到 1 之间，都按样本算，所以最后一批短一点也不会算错。``update`` 只在设备上累加，
不把数值读回来；要等 GPU 的只有 ``compute`` 和 ``state_dict``。约定与 torchmetrics 相同，它的指标
可以直接混用。一族一个文件：``mean`` 平均，``classes`` 数对错，``ranking`` 看排序。
"""

from companion.metrics.classes import F1, Accuracy, ConfusionMatrix
from companion.metrics.mean import Mean, Perplexity
from companion.metrics.protocol import Metric
from companion.metrics.ranking import AUC

__all__ = ["AUC", "F1", "Accuracy", "ConfusionMatrix", "Mean", "Metric", "Perplexity"]
