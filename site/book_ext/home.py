"""首页上会动的两样：一张真的手写数字，一道章节里的先猜。"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from companion.book import bet
from companion.data import load_digits

DARKEST = 16  # 格子里的数从 0 到 16


def digit_svg(number: int) -> str:
    """第 ``number`` 张手写数字的 SVG：一格一个方块，数越大越浓。"""
    digits = load_digits()
    label = int(digits.labels[number])
    cells = "".join(
        f'<rect x="{column}" y="{row}" width="1" height="1" opacity="{value / DARKEST:.2g}"/>'
        for row, line in enumerate(digits.images[number].tolist())
        for column, value in enumerate(line)
        if value
    )
    return (
        '<svg class="digit" viewBox="0 0 8 8" width="128" height="128" fill="currentColor" '
        f'role="img" aria-label="一张 8 乘 8 格的手写数字 {label}">{cells}</svg>'
    )


class DigitDirective(SphinxDirective):
    """```` ```{digit} 12 ````：第 12 张手写数字。"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", digit_svg(int(self.arguments[0])), format="html")]


class BetDirective(SphinxDirective):
    """```` ```{bet} ch00.untrained ````：题库里的一道先猜，不用内核也能答。"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        html = bet(self.arguments[0])._repr_html_()
        return [nodes.raw("", html, format="html")]


def setup(app: Sphinx) -> None:
    app.add_directive("digit", DigitDirective)
    app.add_directive("bet", BetDirective)
