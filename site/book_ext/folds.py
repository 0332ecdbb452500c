"""折叠块：带 ``dropdown`` 类的提示与解答写成 ``<details>``，不要脚本也能展开。"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.locale import admonitionlabels
from sphinx.writers.html5 import HTML5Translator


class fold(nodes.General, nodes.Element):
    """折叠块；第一个子节点是 ``fold_title``。"""


class fold_title(nodes.General, nodes.Element):
    """折叠块的标题，点它展开。"""


def title_and_content(node: nodes.Element) -> tuple[str, list[nodes.Node]]:
    """折叠块的标题文字与正文；没写标题的用该类提示的名字（如「提示」）。"""
    first = node.children[0]
    if isinstance(first, nodes.title):
        return first.astext(), node.children[1:]
    return str(admonitionlabels.get(node.tagname, "展开")), node.children


def make_folds(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if app.builder.format != "html":
        return
    for node in list(
        doctree.findall(lambda n: "dropdown" in getattr(n, "attributes", {}).get("classes", ()))
    ):
        text, content = title_and_content(node)
        kind = [] if node.tagname == "admonition" else [node.tagname]
        block = fold(ids=node["ids"], classes=["admonition", *kind, *node["classes"]])
        block += fold_title("", nodes.Text(text))
        block.extend(content)
        node.replace_self(block)


def visit_fold(self: HTML5Translator, node: fold) -> None:
    self.body.append(self.starttag(node, "details"))


def depart_fold(self: HTML5Translator, node: fold) -> None:
    self.body.append("</details>\n")


def visit_title(self: HTML5Translator, node: fold_title) -> None:
    self.body.append(self.starttag(node, "summary", "", CLASS="admonition-title"))


def depart_title(self: HTML5Translator, node: fold_title) -> None:
    self.body.append("</summary>\n")


def setup(app: Sphinx) -> None:
    app.add_node(fold, html=(visit_fold, depart_fold))
    app.add_node(fold_title, html=(visit_title, depart_title))
    app.connect("doctree-resolved", make_folds, priority=600)
