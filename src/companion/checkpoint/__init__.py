"""存档：要么完整、经得起核对，要么根本不出现；坏的不加载，好的不丢失。

一个存档是一个文件夹，如 ``save-00007-step-120``：7 是序号，120 是训练到的步数。里面有
``state.pt`` 和 ``manifest.json``；后者写着格式版本、每个文件的大小和 sha256，还有 ``info``。

- ``_writing``  写：临时名，落盘，清单，改名
- ``_reading``  读：先逐个文件核对，再加载张量
- ``_folder``   放存档的目录：列出、清理旧的
- ``_manifest`` 清单：写、核对
- ``_values``   把状态换成普通的值
- ``_weights``  只要权重：safetensors 的导出和导入
- ``_sharded``  FSDP2 的分片存档；``_dcp`` 写张量、安排谁读哪一片，``_chunks`` 记着哪一片在哪里，
  ``_rest`` 是其余的
- ``_archive``  读 ``torch.save`` 写的文件：不该有的都不收
- ``_disk``     边写边算校验和，只碰普通文件
"""

from companion.checkpoint._folder import clean, prune, saves
from companion.checkpoint._manifest import FORMAT, read_info, verify
from companion.checkpoint._reading import Save, load_checkpoint, newest_good
from companion.checkpoint._sharded import (
    is_sharded,
    load_sharded,
    load_sharded_weights,
    save_sharded,
)
from companion.checkpoint._values import plain
from companion.checkpoint._weights import check_matches, export_weights, import_weights
from companion.checkpoint._writing import save_checkpoint

__all__ = [
    "FORMAT",
    "Save",
    "check_matches",
    "clean",
    "export_weights",
    "import_weights",
    "is_sharded",
    "load_checkpoint",
    "load_sharded",
    "load_sharded_weights",
    "newest_good",
    "plain",
    "prune",
    "read_info",
    "save_checkpoint",
    "save_sharded",
    "saves",
    "verify",
]
