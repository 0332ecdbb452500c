"""小小一本书走完构建：公式错了报页面与原文；章首、折叠、编号都在页面里。"""

from __future__ import annotations

import importlib
import io
import re
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.chapters import clinic_book

ROOT = Path(__file__).resolve().parents[2]
application = pytest.importorskip("sphinx.application", reason="没有装建站的依赖")
sys.path.insert(0, str(ROOT / "site"))
translator = importlib.import_module("book_ext.translator")
BASE = "https://pytorch.readers.cn/book/"

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


def sphinx(folder: Path, source: Path, *documents: str, **more: Any) -> str:
    """把 ``source`` 里的几页建到 ``folder / "out"``，返回警告；``more`` 是另外的设置。"""
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
        **more,
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


TRACE = ["-" * 75, "ValueError      Traceback (most recent call last)", "ValueError: 太长"]
FORMS = f"""# 各种写法

`(n, 4, 3)` 和 `{"x" * 40}`，说 `<b>`。

|  | 和 |
| --- | --- |
| 甲 | 3 |

![一张图](a.png)

## 一节

```{{eval-rst}}
.. py:function:: fit(model: Module, epochs: int, patience: int | None = None) -> None

   :param model: 网络
   :param epochs: 轮数

.. py:function:: short(a, b)
```
"""


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """公开地址已定的一本书的网站：``forms.html`` 里有各种写法，``cell.html`` 是一格代码。"""
    folder = tmp_path_factory.mktemp("public")
    (source := folder / "书").mkdir()
    (source / "forms.md").write_text(FORMS, encoding="utf-8")
    (source / "a.png").write_bytes(translator.PNG + struct.pack(">I4sII", 13, b"IHDR", 550, 370))
    code = nbformat.v4.new_code_cell("f()", metadata={"tags": ["hide-input"]})
    code.outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=TRACE)]
    cells = [nbformat.v4.new_markdown_cell("# 一格"), code]
    text = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
    (source / "cell.ipynb").write_text(text, encoding="utf-8")
    more = {"html_baseurl": BASE, "html_title": "一本书", "html_use_index": False}
    more |= {
        "toc_object_entries": False,
        "smartquotes": False,
        "python_maximum_signature_line_length": 40,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        sphinx(folder, source, "forms", "cell", **more)
    return folder / "out"


@pytest.fixture
def forms(public: Path) -> str:
    return (public / "forms.html").read_text(encoding="utf-8")


@pytest.fixture
def cell(public: Path) -> str:
    return (public / "cell.html").read_text(encoding="utf-8")


def test_an_image_says_its_size_before_it_is_there(forms: str):
    (image,) = re.findall(r"<img [^>]*>", forms)
    half = {f'width="{550 // translator.SHARP}"', f'height="{370 // translator.SHARP}"'}
    known = {*half, 'loading="lazy"', 'alt="一张图"', 'src="_images/a.png"'}
    assert known <= set(image.split()) and "style" not in image


def test_wide_tables_scroll_and_empty_heads_are_no_headings(forms: str):
    table = forms[forms.index('<div class="table-box"><table') : forms.index("</table>\n</div>")]
    assert "<td></td>" in table and table.count("<th ") == 1


def test_a_traceback_loses_its_head_and_keeps_its_colours(cell: str):
    assert "most recent call last" not in cell and "-----" not in cell
    assert '<span class="ne">ValueError</span>' in cell


def test_a_hidden_cell_says_what_a_click_does(cell: str):
    assert re.search(r'<details class="[^"]*hide[^"]*">\s*<summary><span class="collapsed">', cell)
    assert "Toggle" not in cell


def test_short_code_does_not_break_in_the_middle(forms: str):
    short, long = (
        re.search(rf'<code class="([^"]*)"><span class="pre">{text}', forms)
        for text in (r"\(n,", "x{40}")
    )
    assert short and long
    assert "short" in short[1].split() and "short" not in long[1].split()


def test_the_contents_of_a_page_drop_its_title(forms: str):
    contents = forms[forms.index('<details class="toc-fold">') :].split("</details>")[0]
    assert re.findall(r'href="([^"]*)"', contents) == ["#一节"]


def test_a_parameter_of_the_interface_page_is_followed_by_a_chinese_colon(forms: str):
    assert "<strong>model</strong>：网络" in forms and " -- " not in forms


def test_the_lines_of_a_signature_are_spans_and_not_a_list_without_terms(forms: str):
    lines = forms[forms.index('<span class="sig-lines">') :].split("</dt>")[0]
    assert lines.count('<span><em class="sig-param">') == 3 and "<dl" not in lines
    text = re.sub(r"<[^>]*>", "", forms[forms.index('id="short"') :].split("<a class")[0])
    assert text.split(">", 1)[1].strip() == "short(a, b)"


def test_a_heading_link_has_a_chinese_name_and_no_tip(forms: str):
    assert '<a class="headerlink" href="#一节" aria-label="此处的链接">' in forms
    assert 'class="headerlink" title=' not in forms


def test_a_public_page_says_its_title_and_picture_to_others(forms: str, public: Path):
    said = dict(re.findall(r'<meta property="og:([^"]*)" content="([^"]*)">', forms))
    assert (said["title"], said["site_name"]) == ("各种写法", "一本书")
    assert said["url"] == f"{BASE}forms.html" in forms.split('rel="canonical"')[1]
    assert said["description"].startswith("(n, 4, 3) 和") and "&lt;b&gt;" in said["description"]
    size = translator.png_size(public / said["image"].removeprefix(BASE))
    assert size == (int(said["image:width"]), int(said["image:height"])) == (1200, 630)


def test_the_map_of_a_site_lists_no_page_that_is_not_to_be_found(forms: str, public: Path):
    listed = re.findall(r"<loc>(.*?)</loc>", (public / "sitemap.xml").read_text(encoding="utf-8"))
    pages = {
        page.relative_to(public).as_posix(): page.read_text(encoding="utf-8")
        for page in public.rglob("*.html")
    }
    assert {f"{BASE}{name}" for name, html in pages.items() if "noindex" not in html} == set(listed)
    assert "noindex" in pages["search.html"] and "noindex" in pages["404.html"]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("base", ["", "https://example.org/book/"])
def test_without_a_public_address_a_page_says_none(tmp_path: Path, base: str):
    (source := tmp_path / "书").mkdir()
    (source / "a.md").write_text("# 甲\n\n一句话。\n", encoding="utf-8")
    sphinx(tmp_path, source, "a", html_baseurl=base)
    html = (tmp_path / "out" / "a.html").read_text(encoding="utf-8")
    assert '<meta property="og:title" content="甲">' in html
    assert '<meta property="og:description" content="一句话。">' in html
    assert not re.search(r"og:image|og:url|canonical|twitter|https?://", html)
    assert not (tmp_path / "out" / "sitemap.xml").exists()


@pytest.mark.filterwarnings("default")
def test_a_page_of_the_clinic_offers_its_notebook_like_a_chapter(tmp_path: Path):
    clinic_site(tmp_path, "# 误解索引\n")
    page = tmp_path / "out" / "chapters" / "A1_clinic_tensors.html"
    (link,) = re.findall(r'<a href="([^"]*)" download>', page.read_text(encoding="utf-8"))
    notebook = nbformat.reads((page.parent / link).read_text(encoding="utf-8"), as_version=4)
    nbformat.validate(notebook)
    assert "给我行号和列号" in str(notebook.cells) and ":::" not in str(notebook.cells)
    index = (tmp_path / "out" / "chapters" / "A0_clinic.html").read_text(encoding="utf-8")
    assert "book-facts" not in index
