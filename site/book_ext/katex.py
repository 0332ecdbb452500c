"""公式在构建时由 KaTeX 排好，页面里只有 HTML 与 MathML，没有数学脚本。"""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from py_mini_racer import MiniRacer
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

VENDOR = Path(__file__).resolve().parents[1] / "vendor" / "katex"
CSS = "katex/katex.min.css"
OTHER_FORMATS = re.compile(r',url\([^)]*\.(?:woff|ttf)\) format\("[a-z]+"\)')


class FormulaError(ExtensionError):
    """公式无法解析；消息里有页面、行号与公式原文。"""


@cache
def engine() -> MiniRacer:
    """已装入 KaTeX 的 JavaScript 引擎，整个构建共用一个。"""
    racer = MiniRacer()
    racer.eval((VENDOR / "katex.min.js").read_text(encoding="utf-8") + ";0")
    racer.eval("""function render(text, display) {
        try {
            return JSON.stringify({html: katex.renderToString(
                text, {displayMode: display, output: "htmlAndMathml", strict: "error"})});
        } catch (error) { return JSON.stringify({error: String(error.message)}); }
    }; 0""")
    return racer


@cache
def render(text: str, display: bool) -> str:
    """公式 ``text`` 排好的 HTML；``display`` 为真时独占一行。解析失败抛 ``ValueError``。"""
    result = json.loads(engine().eval(f"render({json.dumps(text)}, {json.dumps(display)})"))
    if "error" in result:
        raise ValueError(result["error"])
    return str(result["html"])


def plain(text: str) -> str:
    """公式 ``text`` 里读得出的字，给搜索用；取自 KaTeX 写的 MathML。"""
    tree = ElementTree.fromstring(render(aligned(text), display=False))
    return "".join(tree.find(".//{*}semantics")[0].itertext())


def rendered(self: HTML5Translator, node: nodes.Element, *, display: bool) -> str:
    """节点里公式的 HTML；失败时报出页面与公式原文。"""
    text = node.astext()
    try:
        return render(aligned(text) if display else text, display)
    except ValueError as error:
        where = f"{self.builder.current_docname}:{node.line or '?'}"  # type: ignore[attr-defined]
        raise FormulaError(
            f"{where} 的公式 KaTeX 排不出来：{text!r}\n原因：{error}\n"
            "请改写公式；汉字要放进 \\text{…}。"
        ) from error


def aligned(text: str) -> str:
    """含换行 ``\\\\`` 而没有环境的公式，包进 ``aligned``；其余原样返回。"""
    has_break = r"\\" in text and r"\begin{" not in text
    return rf"\begin{{aligned}}{text}\end{{aligned}}" if has_break else text


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(f'<span class="math">{rendered(self, node, display=False)}</span>')
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math math-block", tabindex="0"))
    self.body.append(rendered(self, node, display=True))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "此公式的链接")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def copy_assets(app: Sphinx) -> None:
    """把样式表与 woff2 字体放进网站；样式表里别的字体格式没有随书带，去掉。"""
    if app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "katex")
    shutil.copytree(VENDOR / "fonts", target / "fonts", dirs_exist_ok=True)
    css = (VENDOR / "katex.min.css").read_text(encoding="utf-8")
    (target / "katex.min.css").write_text(OTHER_FORMATS.sub("", css), encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_block, None))
    app.connect("builder-inited", copy_assets)
