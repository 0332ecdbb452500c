"""全部测试共用的环境，要赶在 torch 之前。"""

import os
import signal

# 多线程算过之后再 fork，子进程会卡死在线程库里；直接运行 pytest 时没有 make 设的这一项
os.environ.setdefault("OMP_NUM_THREADS", "1")
# 在 nohup 或后台脚本里 SIGINT 是被忽略的，子进程会照抄；先恢复它
signal.signal(signal.SIGINT, signal.default_int_handler)
