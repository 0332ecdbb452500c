"""固定的运行环境：线程数与指令集都定死，每次算出同样的比特；进度只印整行，输出才能对比。"""

import platform
import sys

__all__ = ["ENVIRONMENT", "SAME_BITS"]

# 只有这里的浮点输出保证逐字相同；别处只看跑通
SAME_BITS = (sys.platform, platform.machine(), sys.version_info[:2]) == ("linux", "x86_64", (3, 11))

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "COMPANION_PROGRESS": "plain",
}
