"""一次运行：套在你自己的循环上，存档、记录、断了接着练，结果一位不差。

一批的路（``_loop``）::

    run.batches(loader)
      place.open    第几轮；接着练的，随机数回到这一次的开头，order.start 跳过练过的批
      yield batch   你的循环体：前向、反向、更新、run.log
      _boundary     又来要下一批：done、step 加一。到时候该存了，或收到过信号？
                      梯度还攒着，等下一个边界；否则记下随机数，_save；收到过信号的，就走
      place.close   走完了：记下随机数。循环体走完一轮，log 收成一行，再 _save

一个存档的路（``_run._save``）::

    place（第几轮第几批、随机数）和 log 的和，各进程的收到一起；history
      saves.save    加上 objects 的状态，交给 checkpoint：写进临时目录、落盘、清单、改名
      saves.tidy    留最近的几个、最好的、没有 nan 的，别的删掉
      log.publish   给人看的 run.json、history.csv、TensorBoard；写不成只说一声

接着练：``_saves`` 从新到旧找完好又读得懂的，``_objects`` 先全部核对、再全部装好，``_place`` 把
随机数放回去。``_signals`` 只记下收到了什么，走不走由 ``_loop`` 在边界上定。
"""

from companion.run._run import Run

__all__ = ["Run"]
