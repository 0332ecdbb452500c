"""一次运行：套在你自己的循环上，存档、记录、断了接着练，结果一位不差。

- ``run``      ``Run``：循环和信号
- ``norun``    ``NoRun``：同样的接口，什么也不写
- ``session``  要存的全部，怎样存下，怎样恢复
- ``position`` 走到了哪里，那时的随机数
- ``order``    让加载器从第 k 批开始
- ``watch``    模型变了没有，是不是练坏了
- ``probe``    这个加载器能不能精确续上
- ``parts``    交给 Run 的对象，与存档对不对得上
- ``store``    目录里的存档
- ``records``、``sums``、``files``  记录：一步的、一轮的、文件里的
- ``lock``、``signals``、``words``  锁、信号、说的话
"""

from companion.run._history import History
from companion.run._norun import NoRun
from companion.run._run import Run

__all__ = ["History", "NoRun", "Run"]
