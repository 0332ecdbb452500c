"""指标：一批一批地 ``update``，最后 ``compute`` 一次。

比例都在 0 到 1 之间，都按样本算，所以最后一批短一点也不会算错。``update`` 不把数值读回来；要等 GPU
的只有 ``compute`` 和 ``state_dict``。约定与 torchmetrics 相同，它的指标可以直接混用。

一族一个文件：``_mean`` 平均，``_classes`` 数对错（``_layout`` 读输出和目标，``_tally`` 数），
``_ranking`` 看排序，``_regression`` 看差多少；``_history`` 是一轮一行的
记录，``fit`` 和 ``Run`` 都用它。
"""

from companion.metrics._classes import F1, Accuracy, ConfusionMatrix, Perplexity, Precision, Recall
from companion.metrics._history import History
from companion.metrics._mean import Mean
from companion.metrics._protocol import Metric
from companion.metrics._ranking import AUC
from companion.metrics._regression import MAE, R2

__all__ = [
    "AUC",
    "F1",
    "MAE",
    "R2",
    "Accuracy",
    "ConfusionMatrix",
    "History",
    "Mean",
    "Metric",
    "Perplexity",
    "Precision",
    "Recall",
]
