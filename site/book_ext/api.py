"""伴学包的接口页：去掉没有自己说明的成员；中文里的代码不必隔空格；签名和参数写成读得顺的样子。"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

EMPTY = "Alias for field number"  # NamedTuple 的字段：Python 自带的说明，等于没说
LITERAL = re.compile(r"``[^`]+``")


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """要不要跳过这个成员；``None`` 是听 autodoc 的。"""
    return True if (getattr(obj, "__doc__", None) or "").startswith(EMPTY) else None


def loosen(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """代码两边各加一个看不见的空格：RST 要求有，紧跟着汉字或全角括号的才认得出来。"""
    lines[:] = [LITERAL.sub(r"\\ \g<0>\\ ", line) for line in lines]


def parameters(given: addnodes.desc_parameterlist) -> list[nodes.Node]:
    """一个签名的括号和参数。分行的写成一行一个：Sphinx 用没有 ``dt`` 的 ``dl``，读屏软件不认。"""
    split = given.get("multi_line_parameter_list", False)
    inside = nodes.inline(classes=["sig-lines"] if split else [])
    for i, parameter in enumerate(given.children):
        comma = "," if split else ", " if i < len(given) - 1 else ""
        line = nodes.emphasis("", "", *parameter.children, classes=["sig-param"])
        inside += nodes.inline("", "", line, nodes.Text(comma))
    paren = [nodes.inline("", mark, classes=["sig-paren"]) for mark in "()"]
    return [paren[0], inside, paren[1]]


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for given in list(doctree.findall(addnodes.desc_parameterlist)):
        if all(isinstance(one, addnodes.desc_parameter) for one in given):
            given.replace_self(parameters(given))
    for field in doctree.findall(nodes.field_body):
        for text in list(field.findall(nodes.Text)):
            if text == " -- ":  # 参数名和说明之间
                text.parent.replace(text, nodes.Text("："))


def setup(app: Sphinx) -> None:
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", loosen, priority=600)  # 在 napoleon 之后
    app.connect("doctree-resolved", resolve)
