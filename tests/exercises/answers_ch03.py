"""第 3 章每道先猜的答案，合自 `chapter03/`。"""

from tests.exercises.chapter03 import PARTS, gathered

JUDGED: set[str] = set().union(*(part.JUDGED for part in PARTS))
MEASURED: set[str] = set().union(*(part.MEASURED for part in PARTS))
ANSWERS = {name: f() if callable(f) else f for name, f in gathered("ANSWERS").items()}
