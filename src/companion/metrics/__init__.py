"""指标：一批一批地 ``update``，最后 ``compute`` 一次。

比例都在 0 到 1 之间，都按样本算，所以最后一批短一点也不会算错。``update`` 不逐批读数值，要等 GPU 的
只有 ``compute`` 和 ``state_dict``（``Mean`` 每 256 次读一回）。约定与 torchmetrics 相同，它的指标
可以直接混用。一族一个文件：``_mean`` 平均，``_classes`` 数对错，``_ranking`` 看排序。
"""

from companion.metrics._classes import F1, Accuracy, ConfusionMatrix
from companion.metrics._mean import Mean, Perplexity
from companion.metrics._protocol import Metric
from companion.metrics._ranking import AUC

__all__ = [
    "AUC",
    "F1",
    "Accuracy",
    "ConfusionMatrix",
    "Mean",
    "Metric",
    "Perplexity",
]
