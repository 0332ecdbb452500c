"""读者版笔记本：每种 MyST 写法换成什么，认不得的写法怎样拦下，全书一处也不漏。"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_notebook, new_output

from tools.clinic import Claim
from tools.lint_chapter import FENCED
from tools.notebooks import ROOT, ToolError, chapter_paths, read_notebook

pytest.importorskip("pybtex", reason="没有装建站的依赖")

from tools.reader_prose import markdown
from tools.reader_words import Book, Target, page_targets, read_book
from tools.readers import outputs, reader_notebook, reader_text, setup_source

HERE, OTHER, CLINIC = "chapters/01_tensors", "chapters/04_training", "chapters/A1_clinic"
BASE = "https://pytorch.readers.cn/"
PAGES = {HERE: "张量", OTHER: "训练", CLINIC: "误解诊所：张量"}
TARGETS = {
    "sec-shape": Target(HERE, "形状与 `dtype`"),
    "ex-pick": Target(HERE, "练习 1.3", "练习 1.3（笔算 · 5 分钟）"),
    "ch-training": Target(OTHER, "训练"),
    "sec-data": Target(OTHER, "三份数据"),
    "c049": Target(CLINIC, "「给我行号」"),
}
MYTHS = {
    "C049": Claim("C049", "给我行号", CLINIC, "c049", "sec-shape"),
    "C001": Claim("C001", "形状会自己变", HERE, "sec-shape", "sec-shape"),
}
CITES = {"zhou2016": "周志华 2016", "zhang2017": "Zhang 等 2017"}
BOOK = Book(PAGES, TARGETS, MYTHS, CITES)
PUBLIC = Book(PAGES, TARGETS, MYTHS, CITES, BASE)
SETUP = """try:
    from companion import __book__  # 本书的伴学包
except ImportError:
    %pip install -q "paodetong[plot] @ https://example.org/x/paodetong-0.1.0-py3-none-any.whl"
from companion.repro import seed_everything
seed_everything(0)"""
LINES = {
    "{ref}`sec-shape`": "[形状与 `dtype`](#sec-shape)",
    "{ref}`怎么看 <sec-shape>`": "[怎么看](#sec-shape)",
    "{ref}`ex-pick`": "[练习 1.3](#ex-pick)",
    "{ref}`ch-training`的循环": "第 4 章《训练》的循环",
    "{ref}`sec-data`里": "第 4 章《训练》的「三份数据」里",
    "{ref}`误解诊所 <c049>`": "《误解诊所：张量》的「给我行号」",
    "{ref}`这里 <sec-data>`": "这里（第 4 章《训练》的「三份数据」）",
    "[第 4 章](#ch-training)": "第 4 章《训练》",
    "[张量（tensor）](#term-tensor)": "张量（tensor）",
    "[官网](https://pytorch.org)": "[官网](https://pytorch.org)",
    "{myth}`C049`": "《误解诊所：张量》的「误解：给我行号」",
    "{myth}`C001`": "[误解：形状会自己变](#sec-shape)",
    "{chapter}`1`、{chapter}`04`": "第 1 章、第 4 章",
    "{chapter}`13`": "第 13 章（还没写）",
    "讲过 {cite}`zhou2016`。": "讲过〔周志华 2016〕。",
    "{cite}`zhou2016, zhang2017`": "〔周志华 2016；Zhang 等 2017〕",
    "写 ``{ref}`x` `` 和 `[a](#b)`": "写 ``{ref}`x` `` 和 `[a](#b)`",
    "$[a](b)$ 与\n$$\n[a](b)\n$$": "$[a](b)$ 与\n$$\n[a](b)\n$$",
    "(sec-shape)=\n## ★ 形状\n\n正文": '<a id="sec-shape"></a>\n\n## ★ 形状\n\n正文',
    "(a)=\n(b)=\n# 张量": '<a id="a"></a>\n\n<a id="b"></a>\n\n# 张量',
    "| 甲 | 乙 |\n|---|---|\n| `a` | $b$ |": "| 甲 | 乙 |\n|---|---|\n| `a` | $b$ |",
    "```text\n{ref}`x`\n(x)=\n```": "```text\n{ref}`x`\n(x)=\n```",
}
BLOCKS = {
    "math-def": (
        ":::{admonition} 定义与推导\n:class: math-def\n由{ref}`sec-shape`：\n\n"
        "$$\na \\\\\nb\n$$\n\n| x |\n|---|\n:::\n\n后文",
        "> **定义与推导**\n>\n> 由[形状与 `dtype`](#sec-shape)：\n>\n> $$a \\\\ b$$\n>\n"
        "> | x |\n> |---|\n\n后文",
    ),
    "myth": (
        ":::{admonition} 误解 C053\n:class: myth\n像是元组。\n:::",
        "> **误解 C053**\n>\n> 像是元组。",
    ),
    "folded": (
        ":::{admonition} 我们看到了什么\n:class: dropdown\n差不多。\n:::",
        "<details><summary>我们看到了什么</summary>\n\n差不多。\n\n</details>",
    ),
    "exercise": (
        ":::{exercise-start} 笔算 · 5 分钟\n:label: ex-pick\n:class: m5\n:::\n写出来。\n\n"
        ":::{hint}\n:class: dropdown\n看 `x`。\n:::",
        '<a id="ex-pick"></a>\n\n### 练习 1.3（笔算 · 5 分钟）\n\n写出来。\n\n'
        "<details><summary>提示</summary>\n\n看 `x`。\n\n</details>",
    ),
    "open exercise": (
        ":::{exercise} 笔算 · 5 分钟\n:label: ex-pick\n写三句话。\n:::",
        '<a id="ex-pick"></a>\n\n### 练习 1.3（笔算 · 5 分钟）\n\n写三句话。',
    ),
    "tabs": (
        "::::{tab-set}\n:::{tab-item} Linux\n```bash\nls\n```\n:::\n"
        ":::{tab-item} Windows\n```bat\ndir\n```\n:::\n::::",
        "**Linux**\n\n```bash\nls\n```\n\n**Windows**\n\n```bat\ndir\n```",
    ),
    "backticks": ("```{note}\n小心。\n```", "> **注**\n>\n> 小心。"),
    "math": (":::{math}\nx\n:::", "$$\nx\n$$"),
}
STRANGE = {
    ":::{dropdown} 标题\n字\n:::": r"指令 \{dropdown\}",
    "```{code-block} python\nx\n```": r"指令 \{code-block\}",
    ":::note\n字\n:::": ":::note",
    ":::{hint}\n字": "没有结束",
    "- 一\n  :::{hint}\n  字\n  :::": "从行首写起",
    "{doc}`intro`": r"\{doc\}",
    "{ref}`sec-gone`": "sec-gone",
    "{myth}`C999`": "C999",
    "{cite}`gone2000`": "gone2000",
    "[词](#gone)": "gone",
    "[词](glossary.md)": "glossary.md",
    "![图](img.png)": "img.png",
    "[字]{.red}": "red",
    "{.wide}\n字": "wide",
    "% 注释": "注释",
    "+++": r"\+\+\+",
    ":::{exercise} 笔算\n字\n:::": "label",
    ":::{exercise} 笔算\n:label: sec-data\n字\n:::": "sec-data",
}


@pytest.mark.parametrize("source", LINES, ids=range(len(LINES)))
def test_a_line_becomes_plain_markdown(source):
    assert markdown(source, HERE, BOOK) == LINES[source]


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_directive_becomes_plain_markdown(kind):
    source, expected = BLOCKS[kind]
    assert markdown(source, HERE, BOOK) == expected


@pytest.mark.parametrize("source", STRANGE)
def test_what_a_front_end_does_not_know_is_an_error(source):
    with pytest.raises(ToolError, match=STRANGE[source]):
        markdown(source, HERE, BOOK)


def test_with_a_public_address_other_pages_are_links():
    def turned(text):
        return markdown(text, HERE, PUBLIC)

    data = f"[第 4 章《训练》的「三份数据」]({BASE}chapters/04_training.html#sec-data)"
    assert turned("{ref}`sec-data`") == data
    clinic = f"{BASE}chapters/A1_clinic.html#c049"
    assert turned("{myth}`C049`") == f"[《误解诊所：张量》的「误解：给我行号」]({clinic})"
    assert turned("{ref}`诊所 <c049>`") == f"[诊所]({clinic})"
    assert turned("{ref}`sec-shape`") == markdown("{ref}`sec-shape`", HERE, BOOK)


def test_an_error_names_the_notebook_and_the_cell(text):
    with pytest.raises(ToolError, match=r"01_tensors\.ipynb 的单元 why：.*dropdown"):
        reader_notebook(new_notebook(cells=[text("why", ":::{dropdown} 甲\n:::")]), HERE, BOOK)


def solved(cell, text, *inside):
    cells = [
        text("pick-start", ":::{exercise-start} 笔算\n:label: ex-pick\n:::\n题"),
        cell("pick-try", "mine = ..."),
        text(
            "pick-end",
            ":::{exercise-end}\n:::\n\n:::{solution-start} ex-pick\n:class: dropdown\n:::",
        ),
        *inside,
        text("sol-end", "道理。\n\n:::{solution-end}\n:::\n\n后文"),
        cell("next", "1 + 1"),
    ]
    return reader_notebook(new_notebook(cells=cells), HERE, BOOK).cells


def test_a_solution_folds_with_its_code_and_what_it_printed(cell, text):
    code = cell("sol-pick", 'mine = 3\nprint("```")')
    code.outputs = [
        new_output("stream", text="```\n"),
        new_output("error", ename="ValueError", evalue="长度不等"),
    ]
    cells = solved(cell, text, code)
    assert [c.id for c in cells] == ["pick-start", "pick-try", "pick-end", "sol-end", "next"]
    assert cells[2].source == (
        '<details><summary>解答</summary>\n\n````python\nmine = 3\nprint("```")\n````\n\n印出：\n\n'
        "````text\n```\nValueError: 长度不等\n````\n\n道理。\n\n</details>"
    )
    assert cells[3].source == "后文"


def test_solutions_inside_one_cell_keep_the_words_around_them(text):
    answer = ":::{{solution-start}} ex-pick\n:::\n{}\n\n:::{{solution-end}}\n:::"
    one = text("one", f"前\n\n{answer.format('甲')}\n\n中\n\n{answer.format('乙')}\n\n后")
    (made,) = reader_notebook(new_notebook(cells=[one]), HERE, BOOK).cells
    folded = "<details><summary>解答</summary>\n\n{}\n\n</details>"
    assert made.source == f"前\n\n{folded.format('甲')}\n\n中\n\n{folded.format('乙')}\n\n后"


def test_words_before_a_solution_are_kept_once(cell, text):
    before = text("before", "前\n\n:::{solution-start} ex-pick\n:::")
    cells = [before, cell("sol", "x = 1"), text("end", ":::{solution-end}\n:::")]
    (made,) = reader_notebook(new_notebook(cells=cells), HERE, BOOK).cells
    folded = "<details><summary>解答</summary>\n\n```python\nx = 1\n```\n\n</details>"
    assert made.source == f"前\n\n{folded}"


@pytest.mark.parametrize("mark", ["start} ex-pick", "end}"])
def test_half_a_solution_is_an_error(text, mark):
    with pytest.raises(ToolError, match="的单元 half：解答"):
        cells = [text("half", f":::{{solution-{mark}\n:::")]
        reader_notebook(new_notebook(cells=cells), HERE, BOOK)


def test_a_stored_error_shows_its_message():
    (error,) = outputs([new_output("error", ename="TypeError", evalue="要整数", traceback=[])])
    assert error.traceback == ["TypeError: 要整数"]


def test_a_widget_keeps_its_words_and_loses_the_placeholders():
    html = (
        '<style data-companion="bet">bet</style>\n<div data-widget="bet">题</div>\n'
        '<script data-companion="bet">bet</script>'
    )
    stored = [new_output("execute_result", {"text/html": html, "text/plain": "题"})]
    (made,) = outputs(stored)
    assert (
        made.data["text/html"]
        == '<p>运行这一格，就能在这里作答。</p>\n<div data-widget="bet">题</div>'
    )
    assert made.data["text/plain"] == "题" and stored[0].data["text/html"] == html


def test_a_figure_that_is_not_stored_says_so_and_keeps_its_caption(cell):
    figure = {"figure": {"name": "fig-a", "caption": "一条线。"}, "image": {"alt": "下降的线"}}
    drawn = cell("fig-a", "plot()", "hide-input", mystnb=figure)
    drawn.outputs = [new_output("display_data", {"text/plain": "<Figure size 54x36 with 1 Axes>"})]
    book = Book(PAGES, dict(page_targets(HERE, new_notebook(cells=[drawn]))))
    code, caption = reader_notebook(new_notebook(cells=[drawn]), HERE, book).cells
    assert code.outputs[0].data["text/plain"] == "（图：下降的线。运行这一格，就画出来。）"
    assert (caption.id, caption.source) == (
        "fig-a-caption",
        '<a id="fig-a"></a>**图 1.1**　一条线。',
    )
    assert code.metadata == {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}


def test_exercises_are_numbered_by_chapter_and_labels_belong_to_their_heading(text):
    page = text("p", "(ch-a)=\n# 章\n\n```text\n# 不是标题\n```\n\n(x)=\n(y)=\n## ☆ 节")
    first = text("q", ":::{exercise-start} 笔算\n:class: m5\n:label: ex-a\n:::")
    second = text("r", ":::{exercise} 开放\n:label: ex-b\n字\n:::")
    found = dict(page_targets(HERE, new_notebook(cells=[page, first, second])))
    assert found["ch-a"].title == "章" and found["x"] == found["y"] == Target(HERE, "节")
    assert (found["ex-a"].title, found["ex-b"].heading) == ("练习 1.1", "练习 1.2（开放）")


def run_setup(folder: Path, source: str = SETUP) -> str:
    """在 ``folder`` 里用干净的解释器运行准备单元的读者版，返回报错的最后一行。"""
    (folder / "run.py").write_text(setup_source(source, public=False), encoding="utf-8")
    command = [sys.executable, "-S", "run.py"]  # -S：看不见装好的任何包
    environment = {"PYTHONUTF8": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def test_without_companion_the_set_up_cell_says_what_to_do(tmp_path):
    said = run_setup(tmp_path)
    assert said.startswith("Stop: 还没有装本书的伴学包") and 'pip install ".[book]"' in said


def test_a_readers_own_companion_file_is_named(tmp_path):
    (tmp_path / "companion.py").write_text("x = 1\n", encoding="utf-8")
    said = run_setup(tmp_path)
    assert str(tmp_path / "companion.py") in said and "重名" in said


def test_a_package_that_companion_needs_is_named(tmp_path):
    (tmp_path / "companion.py").write_text("import torch\n", encoding="utf-8")
    assert "torch 没有装" in run_setup(tmp_path)


def test_in_a_notebook_the_set_up_cell_prints_one_line(tmp_path):
    names: dict[str, type[Exception]] = {}
    before = setup_source(SETUP, public=False).split("try:")[0]
    exec(before, names)
    assert names["Stop"]("一行话")._render_traceback_() == ["一行话"]


def test_with_a_public_address_the_set_up_cell_installs_our_wheel_first():
    source = setup_source(SETUP, public=True)
    install = source.index('%pip install -q "paodetong[plot] @ https://example.org/x/paodetong')
    assert install < source.index("from companion import __book__")
    assert source.endswith("seed_everything(0)")


def test_a_set_up_cell_without_our_wheel_is_an_error():
    with pytest.raises(ToolError, match="pip install"):
        setup_source("import torch", public=False)


@cache
def whole_book() -> Book:
    return read_book()


def documents() -> list[str]:
    return [path.relative_to(ROOT).with_suffix("").as_posix() for path in chapter_paths()]


def is_kept(cells):
    """不在解答里的代码单元，按先后。"""
    inside, kept = False, []
    for cell in cells:
        if cell.cell_type == "code":
            kept += [] if inside else [cell]
        elif marks := re.findall(r"\{solution-(start|end)\}", cell.source):
            inside = marks[-1] == "start"
    return kept


@pytest.mark.parametrize("document", documents())
def test_no_myst_is_left_in_a_readers_notebook_of_the_book(document):
    source = read_notebook(ROOT / f"{document}.ipynb")
    made = nbformat.reads(reader_text(source, document, whole_book()), as_version=4)
    nbformat.validate(made)
    for cell in made.cells:
        if cell.cell_type == "markdown":
            assert cell.source.strip(), f"{cell.id} 是空的"
            left = re.search(
                r":::|\{\w[\w-]*\}`|^\([\w-]+\)=|\]\(#term|\0", FENCED.sub("", cell.source), re.M
            )
            assert left is None, f"{cell.id}：{left}"
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    kept = is_kept(source.cells)
    assert [cell.id for cell in code] == [cell.id for cell in kept]
    assert [c.source for c in code if c.id != "setup"] == [
        c.source for c in kept if c.id != "setup"
    ]
    stored = [output for cell in code for output in cell.outputs]
    assert all(output.traceback for output in stored if output.output_type == "error")
    assert "data-companion" not in str(stored) and "<Figure" not in str(stored)


@pytest.mark.parametrize("document", documents())
def test_the_links_inside_a_notebook_reach_one_anchor_of_it(document):
    made = reader_notebook(read_notebook(ROOT / f"{document}.ipynb"), document, whole_book())
    prose = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    anchors = re.findall(r'<a id="([\w-]+)"></a>', prose)
    assert len(anchors) == len(set(anchors)) > 0
    assert set(re.findall(r"\]\(#(.*?)\)", FENCED.sub("", prose))) <= set(anchors)


def test_the_same_source_gives_the_same_bytes_and_a_whole_language_info():
    document = documents()[0]
    source = read_notebook(ROOT / f"{document}.ipynb")
    text = reader_text(source, document, whole_book())
    assert text == reader_text(source, document, read_book())
    metadata = nbformat.reads(text, as_version=4).metadata
    assert metadata.language_info.file_extension == ".py"
    assert metadata.kernelspec.name == "python3"


def test_a_notebook_converts_to_a_python_script(cell):
    nbconvert = pytest.importorskip("nbconvert", reason="没有装 nbconvert")
    made = reader_notebook(new_notebook(cells=[cell("a", "x = 1")]), HERE, BOOK)
    body, resources = nbconvert.ScriptExporter().from_notebook_node(made)
    assert resources["output_extension"] == ".py" and "x = 1" in body
