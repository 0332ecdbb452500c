"""组件共有的部分：带上样式和脚本的 HTML，以及给终端看的文字。"""

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "_js"
COMMON = "widget"


@dataclass(frozen=True, repr=False)
class Widget:
    """一个组件：`asset` 是脚本和样式的名字，`body` 是 HTML，`text` 是终端里的样子。"""

    asset: str
    body: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        styles = "".join(_tag("style", name, ".css") for name in (COMMON, self.asset))
        scripts = "".join(_tag("script", name, ".js") for name in (COMMON, self.asset))
        return f"{styles}\n{self.body}\n{scripts}"


def inline(text: str) -> str:
    """转义后的 HTML，反引号里的字变成代码。"""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _tag(tag: str, name: str, suffix: str) -> str:
    body = (ASSETS / (name + suffix)).read_text(encoding="utf-8").strip()
    return f'<{tag} data-companion="{name}">{body}</{tag}>'
