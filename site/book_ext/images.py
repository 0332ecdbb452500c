"""页面里的图片：写明宽高，页面一出现就给它留好位置，链接和目录才跳得准；滚到附近才下载。"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from sphinx.application import Sphinx

IMAGE = re.compile(r'<img (?![^>]*\bwidth=)([^>]*\bsrc="[^"]*_images/([^"]+)"[^>]*)>')
STYLE = re.compile(r' style="width: \d+px; height: \d+px;"')  # 定死的高，手机上会把图压扁
PNG = b"\x89PNG\r\n\x1a\n"
SHARP = 2  # 图按两倍的像素画，屏幕上占一半：手机上才不糊


def png_size(path: Path) -> tuple[int, int]:
    """PNG 的宽和高，单位是像素。

    Raises:
        ValueError: 不是 PNG。
    """
    with path.open("rb") as file:
        head = file.read(24)
    if head[:8] != PNG:
        raise ValueError(f"书里的图应是 PNG，{path.name} 不是。")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def sized(app: Sphinx, body: str) -> str:
    """正文 HTML，每张图都写上它在屏幕上的宽高和惰性加载。"""
    sources = {name: Path(app.srcdir, path) for path, name in app.builder.images.items()}

    def with_size(found: re.Match[str]) -> str:
        width, height = (n // SHARP for n in png_size(sources[found[2]]))
        lazy = f'loading="lazy" decoding="async" width="{width}" height="{height}" '
        return f"<img {lazy}{STYLE.sub('', found[1])}>"

    return IMAGE.sub(with_size, body)
