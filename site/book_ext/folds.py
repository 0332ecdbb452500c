"""折叠块：带 ``dropdown`` 类的提示与解答写成 ``<details>``，不要脚本也能展开。"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.locale import admonitionlabels


class fold(nodes.General, nodes.Element):
    """折叠块；第一个子节点是 ``fold_title``。"""


class fold_title(nodes.General, nodes.TextElement):
    """折叠块的标题，点它展开。"""


def is_dropdown(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Element) and "dropdown" in node["classes"]


def made(node: nodes.Element) -> fold:
    """一个提示块的折叠块；没写标题的用该类提示的名字（如「提示」）。"""
    content, name = list(node.children), str(admonitionlabels.get(node.tagname, "展开"))
    if isinstance(content[0], nodes.title):
        name = content.pop(0).astext()
    kind = [] if node.tagname == "admonition" else [node.tagname]
    title = fold_title("", name, classes=["admonition-title"])
    classes = ["admonition", *kind, *node["classes"]]
    return fold("", title, *content, ids=node["ids"], classes=classes)


def make_folds(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if app.builder.format != "html":
        return
    for node in list(doctree.findall(is_dropdown)):
        node.replace_self(made(node))


def setup(app: Sphinx) -> None:
    app.add_node(fold)
    app.add_node(fold_title)
    app.connect("doctree-resolved", make_folds, priority=600)
