"""在 JavaScript 引擎里跑组件的脚本。"""

import html
import json
import re

from py_mini_racer import MiniRacer

from companion.book import Widget
from companion.book.widgets._html import ASSETS


def load(name: str) -> MiniRacer:
    """装好一个组件脚本的 JavaScript 引擎；W 是脚本登记的第一个组件。"""
    engine = MiniRacer()
    engine.eval("var window = {};" + (ASSETS / f"{name}.js").read_text(encoding="utf-8"))
    engine.eval("var W = window.companionWidgets[0];")
    return engine


def call(engine: MiniRacer, function: str, *args: object):
    arguments = ", ".join(json.dumps(arg) for arg in args)
    return json.loads(engine.eval(f"JSON.stringify({function}({arguments}))"))


def numbers_in(widget: Widget):
    """组件带给脚本的数。"""
    return json.loads(html.unescape(re.search(r'data-numbers="([^"]*)"', widget.body)[1]))
