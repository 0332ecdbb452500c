"""小节的锚点：有标签的用标签，没有的用标题本身，不用会随增删移位的 ``id7``。"""

from __future__ import annotations

import re
from collections.abc import Collection

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

NUMBERED = re.compile(r"id\d+")


def slug(title: str, taken: Collection[str]) -> str:
    """标题 ``title`` 当锚点的样子；与 ``taken`` 里的撞了，后面加 -2、-3。"""
    base = re.sub(r"[\W_]+", "-", title).strip("-").lower() or "section"
    name, n = base, 2
    while name in taken:
        name, n = f"{base}-{n}", n + 1
    return name


class StableAnchors(SphinxTransform):
    """换掉 docutils 给中文标题编的号；在各种引用记下锚点（850）之前。"""

    default_priority = 840

    def apply(self, **kwargs: object) -> None:
        changed: dict[str, str] = {}
        labels = {id for name, id in self.document.nameids.items() if self._is_label(name)}
        for section in self.document.findall(nodes.section):
            ids = section["ids"]
            own = [name for name in ids if not NUMBERED.fullmatch(name)]
            own.sort(key=lambda name: name not in labels)  # 第一个是页面上的锚点
            title = section.next_node(nodes.title)
            if own == ids or title is None:
                continue
            own = own or [slug(title.astext(), self.document.ids)]
            changed |= dict.fromkeys(set(ids) - set(own), own[0])
            section["ids"] = own
            self.document.ids[own[0]] = section
        names = self.document.nameids
        names |= {name: changed[old] for name, old in names.items() if old in changed}
        self._rename_slugs(changed)

    def _is_label(self, name: str) -> bool:
        return bool(self.document.nametypes.get(name))

    def _rename_slugs(self, changed: dict[str, str]) -> None:
        """MyST 另记着每个标题的锚点，``[文字](#标题)`` 查的是它。"""
        for known in (
            getattr(self.document, "myst_slugs", {}),
            self.env.metadata[self.env.docname].get("myst_slugs", {}),
        ):
            for name, (line, old, text) in list(known.items()):
                known[name] = (line, changed.get(old, old), text)


def setup(app: Sphinx) -> None:
    app.add_transform(StableAnchors)
