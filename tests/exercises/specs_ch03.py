"""第 3 章各题的约定，合自 `chapter03/`。"""

from tests.exercises.chapter03 import gathered

SPECS = gathered("SPECS")
