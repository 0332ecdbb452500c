"""第 3 章各题的典型错误答案，合自 `chapter03/`。"""

from tests.exercises.chapter03 import PARTS, gathered

WRONG = gathered("WRONG")
NAMED = [row for part in PARTS for row in getattr(part, "NAMED", [])]
