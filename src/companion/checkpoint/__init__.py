"""存档：要么完整、经得起核对，要么根本不出现；坏的不加载，好的不丢失。

一个存档是一个文件夹，如 ``save-00007-step-120``：7 是序号，120 是训练到的步数。里面有
``state.pt`` 和 ``manifest.json``；后者写着格式版本、每个文件的大小和 sha256，还有 ``info``。

- ``writing``  写：临时名，落盘，清单，改名
- ``reading``  读：先逐个文件核对，再加载张量
- ``folder``   放存档的目录：列出、清理旧的
- ``manifest`` 清单：写、核对
- ``values``   把状态换成普通的值
- ``weights``  只要权重：safetensors 的导出和导入
- ``sharded``  FSDP2 的分片存档，用的时候另外导入；``dcp`` 是它的张量读写
- ``disk``     落盘和校验和
"""

from companion.checkpoint.folder import clean, prune, saves
from companion.checkpoint.manifest import FORMAT, verify
from companion.checkpoint.reading import Save, load_checkpoint, newest_good
from companion.checkpoint.values import plain
from companion.checkpoint.weights import check_matches, export_weights, import_weights
from companion.checkpoint.writing import save_checkpoint, staging

__all__ = [
    "FORMAT",
    "Save",
    "check_matches",
    "clean",
    "export_weights",
    "import_weights",
    "load_checkpoint",
    "newest_good",
    "plain",
    "prune",
    "save_checkpoint",
    "saves",
    "staging",
    "verify",
]
