"""导入什么也不做：不载入重的库，不动随机数，不改全局设置。"""

import json
import subprocess
import sys

PROBE = """
import json, logging, random, sys, warnings
import companion
light = not {"torch", "numpy"} & set(sys.modules)
import numpy, torch

def state():
    return [
        repr(torch.get_rng_state().tolist()), repr(random.getstate()),
        repr(numpy.random.get_state()), str(torch.get_default_dtype()),
        torch.get_num_threads(), torch.is_grad_enabled(), torch.cuda.is_initialized(),
        len(warnings.filters), len(logging.getLogger().handlers),
    ]

before, loaded = state(), set(sys.modules)
import importlib, pkgutil
names = [m.name for m in pkgutil.walk_packages(companion.__path__, "companion.")]
for name in names:
    importlib.import_module(name)
new = {m.split(".")[0] for m in set(sys.modules) - loaded} - set(sys.stdlib_module_names)
new -= {"companion", "numpy", "torch"}
print(json.dumps([light, len(names), before == state(), sorted(new)]))
"""


def probe():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE], capture_output=True, check=True, text=True
    )
    return json.loads(done.stdout)


def test_importing_every_module_changes_nothing_and_loads_no_third_library():
    light, modules, unchanged, new = probe()
    assert light, "import companion 本身不该载入 torch 或 numpy"
    assert modules > 10
    assert unchanged
    assert new == []
