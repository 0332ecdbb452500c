"""小小一本书走完构建：公式错了报页面与原文；章首、折叠、编号都在页面里。"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
application = pytest.importorskip("sphinx.application", reason="没有装建站的依赖")
sys.path.insert(0, str(ROOT / "site"))

PAGE = """# 小章

## ★ 一节

一句话，$x^2$。

$$
a \\\\ b
$$ (eq-two)

```{hint}
:class: dropdown
看这里。
```
"""


def build(folder: Path, text: str) -> str:
    """构建只有一章 ``text`` 的书，返回那一页的 HTML。"""
    source = folder / "书"
    (source / "chapters").mkdir(parents=True)
    (source / "index.md").write_text(
        "# 首页\n\n```{toctree}\nchapters/01_small\n```\n", encoding="utf-8"
    )
    (source / "chapters" / "01_small.md").write_text(text, encoding="utf-8")
    settings = {
        "extensions": ["myst_nb", "sphinx_exercise", "book_ext"],
        "html_theme": "basic",
        "templates_path": [str(ROOT / "site" / "templates")],
        "html_math_renderer": "katex",
        "myst_enable_extensions": ["dollarmath"],
        "nb_execution_mode": "off",
        "language": "zh_CN",
        "numfig": True,
        "myst_update_mathjax": False,
    }
    out = folder / "out"
    app = application.Sphinx(
        source, None, out, folder / "doctrees", "html", settings, status=None, warning=None
    )
    app.build()
    return (out / "chapters" / "01_small.html").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("default")  # Sphinx 与 docutils 自己的弃用提示
def test_bad_formula_stops_the_build_and_names_page_and_text(tmp_path: Path):
    with pytest.raises(Exception, match=r"chapters/01_small.*\\\\frac\{1"):
        build(tmp_path, "# 小章\n\n坏公式 $\\frac{1$。\n")


@pytest.mark.filterwarnings("default")
def test_chapter_page_has_facts_minutes_formulas_and_folds(tmp_path: Path):
    html = build(tmp_path, PAGE)
    assert "第 1 章" in html and "约 1 分钟" in html and "尚无执行记录" in html
    assert "katex/katex.min.css" in html and "mathjax" not in html.lower()
    assert '<details class="admonition hint dropdown">' in html
    assert '<span class="eqno">(1.1)' in html
