"""小小一本书走完构建：公式错了报页面与原文；章首、折叠、编号都在页面里。"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.chapters import clinic_book

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

## ☆ 另一节

:::{exercise-start} 笔算
:label: ex-pen
:class: m5
:::
写出结果。
:::{exercise-end}
:::
"""


def build(folder: Path, text: str) -> str:
    """构建只有一章 ``text`` 的书，返回那一页的 HTML。"""
    source = folder / "书"
    (source / "chapters").mkdir(parents=True)
    notebook = nbformat.writes(clinic_book.notebook({"page": text}))
    (source / "chapters" / "01_small.ipynb").write_text(notebook, encoding="utf-8")
    sphinx(folder, source, "chapters/01_small")
    return (folder / "out" / "chapters" / "01_small.html").read_text(encoding="utf-8")


def sphinx(folder: Path, source: Path, *documents: str) -> str:
    """把 ``source`` 里的几页建到 ``folder / "out"``，返回警告。"""
    listed = "\n".join(documents)
    index = f"# 首页\n\n```{{toctree}}\n{listed}\n```\n"
    (source / "index.md").write_text(index, encoding="utf-8")
    warnings = io.StringIO()
    settings = {
        "extensions": ["myst_nb", "sphinx_exercise", "book_ext"],
        "html_theme": "basic",
        "templates_path": [str(ROOT / "site" / "templates")],
        "html_math_renderer": "katex",
        "myst_enable_extensions": ["colon_fence", "dollarmath"],
        "nb_execution_mode": "off",
        "language": "zh_CN",
        "numfig": True,
        "myst_update_mathjax": False,
    }
    out = folder / "out"
    app = application.Sphinx(
        source, None, out, folder / "doctrees", "html", settings, status=None, warning=warnings
    )
    app.build()
    said = warnings.getvalue().splitlines()  # 同一个进程里建几次，Sphinx 就会抱怨登记了两遍
    return "\n".join(line for line in said if "already registered" not in line)


@pytest.mark.filterwarnings("default")  # Sphinx 与 docutils 自己的弃用提示
def test_bad_formula_stops_the_build_and_names_page_and_text(tmp_path: Path):
    with pytest.raises(Exception, match=r"chapters/01_small.*\\\\frac\{1"):
        build(tmp_path, "# 小章\n\n坏公式 $\\frac{1$。\n")


@pytest.mark.filterwarnings("default")
def test_chapter_page_has_facts_minutes_formulas_and_folds(tmp_path: Path):
    html = build(tmp_path, PAGE)
    assert "第 1 章" in html and "尚无执行记录" in html
    assert re.search(r'一节 <span class="book-minutes" title="估计：[^"]*">读 1 分钟</span>', html)
    assert "☆ 选读：读 <b>1</b> · 练 <b>5</b> 分钟" in html
    assert "katex/katex.min.css" in html and "mathjax" not in html.lower()
    assert '<details class="admonition hint dropdown">' in html
    assert '<span class="eqno">(1.1)' in html
    download = (tmp_path / "out" / "notebooks" / "01_small.ipynb").read_text(encoding="utf-8")
    assert "### 练习 1.1（笔算）" in download and "<summary>提示</summary>" in download
    assert ":::" not in download and "```{" not in download


@pytest.mark.filterwarnings("default")
def test_a_chapter_is_linked_and_one_that_is_not_there_is_said_to_be_unwritten(tmp_path: Path):
    html = build(tmp_path, "# 小章\n\n看{chapter}`1`和{chapter}`13`。\n")
    assert re.search(r'看<a class="reference[^>]* href="[^>]*><span[^>]*>第 1 章</span></a>', html)
    assert "和<span>第 13 章（还没写）</span>。" in html


def clinic_site(folder: Path, index: str, **changes: Any) -> tuple[str, str, str]:
    """构建诊所小书，返回 ``(索引页, 章节页, 警告)``。"""
    source = clinic_book.write(folder / "书", **changes)
    (source / "chapters" / "A0_clinic.md").write_text(index, encoding="utf-8")
    pages = ("chapters/01_tensors", "chapters/A0_clinic", "chapters/A1_clinic_tensors")
    said = sphinx(folder, source, *pages)
    html = [(folder / "out" / f"{page}.html").read_text(encoding="utf-8") for page in pages]
    return html[1], html[0], said


@pytest.mark.filterwarnings("default")
def test_the_index_and_the_role_lead_to_the_entry_in_the_readers_words(tmp_path: Path):
    index, chapter, said = clinic_site(tmp_path, "# 误解索引\n\n```{clinic-index}\n```\n")
    assert "WARNING" not in said
    code = r"<code[^>]*><span class=\"pre\">argmax\(\)</span></code>"
    entry = r'href="A1_clinic_tensors.html#c049">'
    assert re.search(rf"{entry}误解：{code} 给我行号和列号</a>", chapter)
    assert re.search(rf"{entry}{code} 给我行号和列号</a>", index)
    assert 'href="01_tensors.html#sec-reduce"' in index
    assert 'href="01_tensors.html#sec-device">设备只有 cpu 和 cuda 两种</a>' in index
    assert index.index("张量的误解</h2>".removesuffix("</h2>")) < index.index("C057")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("number", "reason"),
    [("C001", "误解 C001 链接不到：覆盖表里没有它"), ("C057", "它还没有一句原话")],
)
def test_a_myth_that_cannot_be_linked_is_a_warning(tmp_path: Path, number: str, reason: str):
    index = f"# 误解索引\n\n{{myth}}`{number}`\n"
    assert reason in clinic_site(tmp_path, index, beliefs="")[2]
