"""固定的运行环境：线程数与指令集都定死，同一台机器上每次算出同样的比特。"""

__all__ = ["ENVIRONMENT"]

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
}
