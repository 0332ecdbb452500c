"""第 3 章的测试材料，一部分一个文件；每个文件都有 WRONG、SPECS、ANSWERS、MEASURED、JUDGED。"""

import importlib
import pkgutil

PARTS = [
    importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
]


def gathered(kind):
    """把各部分同名的字典合成一个。"""
    return {name: value for part in PARTS for name, value in getattr(part, kind).items()}
