"""全部测试共用的：在 nohup 或后台脚本里 SIGINT 是被忽略的，子进程会照抄；先恢复它。"""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
