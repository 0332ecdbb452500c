"""训练：三个普通函数 ``train_epoch``、``evaluate``、``fit``，和它们用的几个小东西。

``train_epoch`` 训练一轮，``evaluate`` 评估一遍，``fit`` 把它们连起来跑若干轮。三个都能单独用在
你自己的循环里，没有要继承的基类。一步怎么算，用下面两个参数之一说清楚：

- ``loss(outputs, targets)``：一批是 ``(inputs, targets)``，返回这批的平均损失。多数时候够用。
- ``step(model, batch) -> StepOut``：一批是什么样、损失怎么算，全由你定。

一步之内不把数值从设备上读回来（那会让 GPU 停下等 CPU）；损失每 256 步读一次，指标一轮一次。

一个文件一件事：

- ``_fit``       ``fit``：一轮一轮，验证、提前停、交给 Run
- ``_plan``      练多少、几次更新算一轮，看哪一列定好坏
- ``_checks``    第一步之前就看得出的错
- ``_epoch``     ``train_epoch``、``evaluate``：一批一批
- ``_step``      一批怎么变成一个损失
- ``_loss``      ``loss=`` 收什么样的目标，平均的是几个什么
- ``_pure``      别人写的损失可不可以多调用几次
- ``_update``    攒几批的梯度，裁剪，更新参数
- ``_means``     一轮的平均损失和各指标
- ``_progress``  进度条
- ``_rehearse``  开练之前先试一下：``dry_run``、``overfit_one_batch``
"""

from companion.metrics import History
from companion.train._epoch import evaluate, train_epoch
from companion.train._fit import fit
from companion.train._means import EpochMeans
from companion.train._rehearse import dry_run, overfit_one_batch
from companion.train._step import StepOut
from companion.train._update import Update

__all__ = [
    "EpochMeans",
    "History",
    "StepOut",
    "Update",
    "dry_run",
    "evaluate",
    "fit",
    "overfit_one_batch",
    "train_epoch",
]
