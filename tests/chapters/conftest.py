"""每章单独打开走一遍的报告：要用时才走，一章只走一次。"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest

from tools.alone import desk, walk
from tools.notebooks import chapter_paths


@pytest.fixture(scope="session")
def report_of() -> Iterator[Callable[[str], dict[str, str]]]:
    paths = {path.stem: path for path in chapter_paths()}
    with desk() as place:
        yield functools.cache(lambda chapter: walk(paths[chapter], place))
