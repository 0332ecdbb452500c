"""伴学包的接口页：autodoc 认得出的成员里，去掉没有自己说明的那些。"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

EMPTY = "Alias for field number"  # NamedTuple 的字段：Python 自带的说明，等于没说


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """要不要跳过这个成员；``None`` 是听 autodoc 的。"""
    return True if (getattr(obj, "__doc__", None) or "").startswith(EMPTY) else None


def tight_markup(app: Sphinx) -> None:
    """让 ``代码``（后面紧跟汉字或全角括号）也认得出来；RST 本来要求空格。"""
    app.env.settings["character_level_inline_markup"] = True


def setup(app: Sphinx) -> None:
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("builder-inited", tight_markup)
    app.connect("autodoc-skip-member", skip)
