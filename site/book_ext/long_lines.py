"""手机上放不下的代码行做上记号：样式表让它在窄屏和打印时折行、续行缩进，电脑上没有变化。"""

from __future__ import annotations

import re
from html import unescape

from .tooling import tool

__all__ = ["mark_long_lines"]

FITS = 40  # 最窄的手机（320 像素）上放得下的列数
CODE = re.compile(
    r'(<div class="highlight-(?:ipython3|python|bash|bat) [^>]*>'
    r'<div class="highlight"><pre>)(.*?)(</pre>)',
    re.S,
)


def marked(line: str) -> str:
    """一行代码的 HTML（含行末的换行）；放不下的包进 ``long``，写明它缩进几格。"""
    text = unescape(re.sub(r"<[^>]*>", "", line)).rstrip()
    if tool("steps").display_width(text) <= FITS:
        return line
    indent = len(text) - len(text.lstrip(" "))
    return f'<span class="long" style="--indent:{indent}ch">{line}</span>'


def mark_long_lines(body: str) -> str:
    """HTML 里的代码，长行都做上记号；输出不动，它的列要对齐。"""

    def block(found: re.Match[str]) -> str:
        lines = found[2].splitlines(keepends=True)
        return found[1] + "".join(map(marked, lines)) + found[3]

    return CODE.sub(block, body)
