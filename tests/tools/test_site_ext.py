"""站点扩展的纯函数：公式、阅读时间、事实、切词、切小节、组件与页面修整。"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("sphinx", reason="没有装建站的依赖")
nodes = pytest.importorskip("docutils.nodes", reason="没有装建站的依赖")
sys.path.insert(0, str(ROOT / "site"))


def part(name: str):
    return importlib.import_module(f"book_ext.{name}")


STATS = {
    "chapters/01_tensors": {
        "seconds": 12.3, "peak_mb": 410, "code_cells": 120,
        "date": "2026-11-21", "torch": "2.15.0", "python": "3.11.7",
    }
}  # fmt: skip


def test_formula_becomes_html_and_mathml_without_scripts():
    html = part("katex").render(r"\frac{1}{2}", display=False)
    assert "<mfrac>" in html and 'class="katex-html"' in html
    assert "<script" not in html


def test_unparsable_formula_is_refused_with_its_reason():
    with pytest.raises(ValueError, match="KaTeX parse error"):
        part("katex").render(r"\frac{1", display=True)


def test_han_characters_belong_in_text():
    with pytest.raises(ValueError, match="Unicode text character"):
        part("katex").render("行", display=False)
    assert "行" in part("katex").render(r"\text{行}", display=False)


def test_broken_lines_are_aligned_only_without_an_environment():
    aligned = part("katex").aligned
    assert aligned(r"a\\b").startswith(r"\begin{aligned}")
    assert aligned(r"\begin{align}a\\b\end{align}").startswith(r"\begin{align}")
    assert aligned("a") == "a"


def test_chapter_number_comes_from_the_file_name():
    number = part("chapters").chapter_number
    assert number("chapters/01_tensors") == 1 and number("chapters/00_setup") == 0
    assert number("glossary") is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://github.com/example/paodetong", True),
        ("https://example.org/paodetong/", True),
        ("https://book.example.org/x", True),
        ("https://github.com/someone/example", False),
        ("https://examples.io/x", False),
    ],
)
def test_placeholder_addresses_are_recognised(url: str, expected: bool):
    assert part("facts").is_placeholder(url) is expected


def test_colab_is_a_link_only_when_the_repository_is_public():
    link = part("facts").colab_link
    hidden = link({"repository_url": "https://github.com/example/x"}, "chapters/01_tensors")
    assert hidden == ""
    known = {"repository_url": "https://github.com/someone/book", "repository_branch": "main"}
    assert "/github/someone/book/blob/main/chapters/01_tensors.ipynb" in link(
        known, "chapters/01_tensors"
    )


def test_status_line_reports_the_recorded_run_and_nothing_else():
    facts = part("facts")
    assert facts.status_text(STATS) == "2026-11-21，torch 2.15.0：120 个单元全部跑通，共 12 秒。"
    assert not any(char.isdigit() for char in facts.status_text({}))


def test_missing_memory_is_left_out():
    stats = {**STATS["chapters/01_tensors"], "peak_mb": None}
    assert "内存" not in part("facts").measured(stats)
    assert "尚无执行记录" in part("facts").measured(None)


def test_stats_are_read_from_the_build_folder(tmp_path: Path):
    facts = part("facts")
    assert facts.read_stats(tmp_path) == {}
    (tmp_path / "_build").mkdir()
    (tmp_path / "_build" / "stats.json").write_text(json.dumps(STATS), encoding="utf-8")
    assert facts.read_stats(tmp_path) == STATS


def test_inline_widget_assets_are_replaced_by_file_names():
    body = (
        "<p>a</p><style data-companion='bet'>p{}</style>"
        '<script data-companion="bet">1</script><script data-companion="bet">1</script>'
        "<script>keep</script>"
    )
    left, names = part("outputs").shared(body)
    assert left == "<p>a</p><script>keep</script>"
    assert names == ["bet.css", "bet.js"]


def test_widget_assets_are_taken_from_where_the_package_keeps_them():
    assert (ROOT / part("outputs").SOURCE / "widget.js").is_file()


def test_sections_carry_their_anchor_title_terms_and_text():
    term = nodes.reference("", "视图（view）", refuri="../glossary.html#term-view")
    minutes = nodes.raw("", "<span>约 3 分钟</span>", format="html")
    title = nodes.title("", "", nodes.Text("广播 "), minutes)
    code = nodes.literal_block("", "x = 1")
    figure = nodes.figure("", nodes.image(uri="a.png"), nodes.caption("", "一条线"), ids=["fig"])
    options = nodes.raw("", "<div class='cw'><p>选项</p></div>", format="html")
    inner = nodes.section(
        "", title, nodes.paragraph("", "丙"), options, code, figure, ids=["sec-a"]
    )
    formula = nodes.math("", r"\frac{1}{n}")
    words = nodes.paragraph("", "", nodes.Text("甲"), term, nodes.Text("乙"), formula)
    outer = nodes.section("", nodes.title("", "张量"), words, inner, nodes.paragraph("", "丁"))
    outer["ids"] = ["top"]
    page = nodes.document(None, None, "", nodes.paragraph("", "外面"), outer)
    first, second = part("sections").split_sections(page, {"fig": "图 1.2"})
    assert (first.anchor, first.title, first.terms) == ("top", "张量", ["视图（view）"])
    assert first.prose.strip() == "甲视图（view）乙1n"
    assert (second.anchor, second.title.strip()) == ("sec-a", "广播")
    assert second.code.strip() == "x = 1"
    assert second.prose.split() == ["丙", "图", "1.2", "一条线", "丁"]


def test_an_image_that_is_no_png_is_named(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"GIF89a" + bytes(30))
    with pytest.raises(ValueError, match=r"a\.png"):
        part("translator").png_size(tmp_path / "a.png")


def test_a_summary_ends_at_the_end_of_a_sentence():
    def summary(text: str) -> str:
        section = nodes.section("", nodes.title("", "题"), nodes.paragraph("", text), ids=["a"])
        return part("public").description(nodes.document(None, None, "", section))

    assert summary("一句。" * 100) == "一句。" * 53
    assert summary("短。") == "短。"
    endless = summary("字" * 300)
    assert len(endless) == 160 and endless.endswith("…")


def test_tokens_are_letters_and_tell_words_apart():
    words = part("words")
    assert words.token("张量") == "fpcajbmp"  # 5f20 91cf，0 到 f 换成 a 到 p
    assert words.encoded("张量 view") == f" {words.token('张量')}  view"
    assert words.token("广播") in words.encoded("先看广播再看别的").split()


def test_long_words_are_also_found_by_their_parts():
    words = part("words")
    assert words.encoded("自动求导").split() == [words.token("自动求导")]
    assert words.token("求导") in words.inner_tokens("自动求导").split()


def test_synonyms_follow_the_message_a_section_shows():
    search, sections = part("search"), part("sections")
    section = sections.Section("a", prose="The size of tensor a must match the size of tensor b")
    assert "形状不匹配" in search.keywords(section, search.read_groups())
    assert search.keywords(sections.Section("b", prose="无关"), search.read_groups()) == []


@pytest.mark.parametrize(
    ("before", "after", "needless"),
    [
        ("汉", "字", True),
        ("。", "PyTorch", True),
        ("x", "（", True),
        ("汉", "x", False),
        ("a", "b", False),
    ],
)
def test_line_breaks_beside_chinese_leave_no_space(before: str, after: str, needless: bool):
    assert part("prose").is_needless(before, after) is needless


def test_a_heading_without_a_label_is_known_by_its_words():
    slug = part("anchors").slug
    assert slug("不报错的错", ()) == "不报错的错"
    assert slug("后三行：清零、求导", ()) == "后三行-清零-求导"
    assert slug("`zero_grad`", {"zero-grad", "zero-grad-2"}) == "zero-grad-3"
    assert slug("？", ()) == "section"


def test_a_heading_keeps_its_label_and_loses_its_number(tmp_path: Path):
    (tmp_path / "a.md").write_text(
        "(label)=\n# 甲\n\n## 乙\n\n见 [乙](#乙)、{ref}`label`\n\n## 乙\n", encoding="utf-8"
    )
    (tmp_path / "conf.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'site')!r})\n"
        "extensions = ['myst_parser', 'book_ext.anchors']\n"
        "root_doc, myst_heading_anchors = 'a', 2\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", tmp_path, tmp_path / "out"]
    subprocess.run(command, check=True)
    html = (tmp_path / "out" / "a.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="([^"]+)"', html) == ["label", "乙", "乙-2"]
    assert 'href="#乙"' in html or 'href="#%E4%B9%99"' in html
    assert 'id="id' not in html


def test_folder_of_the_cache_is_the_executors_when_it_exists(tmp_path: Path):
    notebooks = part("notebooks")
    assert notebooks.cache_path(tmp_path) == tmp_path / "_build" / ".jupyter_cache"
    assert notebooks.cache_path(ROOT).name.startswith(".jupyter_cache-")


CODE_BLOCK = (
    '<div class="highlight-{} notranslate"><div class="highlight"><pre>{}</pre></div></div>'
)


def test_code_line_too_long_for_a_phone_is_marked_with_its_indent():
    mark = part("long_lines").mark_long_lines
    code = '<span></span>f()\n    <span class="n">g</span>({})\n'
    block = CODE_BLOCK.format("ipython3", code)
    assert mark(block.format("x" * 33)) == block.format("x" * 33)  # 正好 40 列
    for long in ("x" * 34, "汉" * 17, "&lt;" * 34):
        start = '<span class="long" style="--indent:4ch">    <span class="n">g'
        assert f"f()\n{start}</span>({long})\n</span></pre>" in mark(block.format(long))


@pytest.mark.parametrize("language", ["myst-ansi", "ipythontb", "text"])
def test_output_is_not_marked_since_its_columns_line_up(language):
    block = CODE_BLOCK.format(language, "x" * 99)
    assert part("long_lines").mark_long_lines(block) == block


def test_code_in_a_docstring_needs_no_spaces_around_it():
    lines = ["不动 ``x``（默认）", "snake_case 原样"]
    part("api").loosen(None, "function", "f", None, None, lines)
    assert lines == ["不动 \\ ``x``\\ （默认）", "snake_case 原样"]


def test_fields_without_a_word_of_their_own_are_left_out():
    pair = type("Pair", (), {})
    alias = type("Alias", (), {"__doc__": "Alias for field number 0"})
    assert part("api").skip(None, "class", "a", alias(), False, None) is True
    assert part("api").skip(None, "class", "a", pair(), False, None) is None


def test_file_of_unknown_origin_is_named_and_unused_ones_are_dropped(tmp_path):
    shipped = part("shipped")
    for name in ("intro.html", "_static/book.css", "_static/katex/fonts/a.woff2", "pagefind/a/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('<script src="_static/jquery.js">', encoding="utf-8")
    for name in ("jquery.js", "searchtools.js"):
        (tmp_path / "_static" / name).write_text("", encoding="utf-8")
    (tmp_path / "searchindex.js").write_text("", encoding="utf-8")
    late = '<script src="_static/search.js">'
    (tmp_path / "search.html").write_text(late, encoding="utf-8")
    (tmp_path / "_static" / "search.js").write_text('load("search_plain.js")', encoding="utf-8")
    (tmp_path / "_static" / "search_plain.js").write_text("", encoding="utf-8")
    shipped.prune(tmp_path)
    assert (tmp_path / "_static" / "search_plain.js").exists()
    assert not (tmp_path / "_static" / "searchtools.js").exists()
    assert not (tmp_path / "searchindex.js").exists()
    assert shipped.uncovered(tmp_path) == ["_static/jquery.js"]


def test_licenses_are_full_texts_of_their_kind():
    for work in part("shipped").WORKS:
        text = work.text.read_text(encoding="utf-8")
        mark = "Permission is hereby granted" if work.license == "MIT" else "SIL OPEN FONT LICENSE"
        assert mark in text and len(text) > 900, work.slug


def test_policy_names_the_script_that_stands_in_the_page():
    page = part("page")
    digest = base64.b64encode(hashlib.sha256(page.theme_script().encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.policy() and '"' not in page.policy()
    assert "</" not in page.theme_script()


def test_sections_for_the_fallback_page_are_lists_of_texts():
    section = part("sections").Section("constructor", title="__proto__", prose='"</script>\u2028')
    search = part("search")
    script = search.sections_script([search.Found("a.html#constructor", "页", 2, section)])
    rows = json.loads(script.removeprefix("window.bookSections = ").rstrip(";\n"))
    assert rows == [["a.html#constructor", "__proto__", "页", '"</script>', "", ""]]


def test_the_table_of_routes_lists_what_is_written_and_nothing_else():
    routes = importlib.import_module("tools.routes")
    ways = [
        routes.Route("快", "一", (("00_a", ("sec-a", "sec-no")), ("03_c", ("sec-c",))), "不用装"),
        routes.Route("慢", "二", note="从头到尾", everything=True),
    ]
    lines = part("routes").route_lines(ways, {"00_a": {"sec-a"}, "01_b": {"sec-b"}})
    assert lines[2:] == [
        "| 快 | 第 0 章的{ref}`sec-a`：不用装 | 一 |",
        "| 慢 | 从头到尾；现在写好的是第 0、1 章 | 二 |",
    ]
