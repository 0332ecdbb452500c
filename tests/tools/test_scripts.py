"""网站发出去的脚本和样式，Chromium 78 都认得：没有更新的语法、成员和写法。

真在那样的引擎里跑的检查见 tests/site/test_old_engines.py。
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pygments.lexers import JavascriptLexer
from pygments.token import Comment, Error, String

ROOT = Path(__file__).resolve().parents[2]
SITE, WIDGETS = ROOT / "site", ROOT / "src" / "companion" / "book" / "_js"
SCRIPTS = sorted([*SITE.glob("assets/*.js"), *SITE.glob("templates/*.js"), *WIDGETS.glob("*.js")])
STYLES = sorted([*SITE.glob("assets/*.css"), *WIDGETS.glob("*.css")])
LACKS = tomllib.loads(
    (ROOT / "tests" / "site" / "chromium_78_lacks.toml").read_text(encoding="utf-8")
)
MEMBERS = set(" ".join(LACKS["members"].values()).split()) - set(LACKS["elsewhere"].split())
SYNTAX = {
    "可选链 ?.": r"\?\.(?!\d)",
    "空值合并 ??": r"\?\?",
    "逻辑赋值 ||= &&=": r"(\|\||&&)=",
    "私有方法 #名字()": r"#[\w$]+\s*\(",
    "静态块 static {}": r"\bstatic\s*\{",
    "模块顶层的 await": r"(^|[;}\n])await\b",
    "正则的 d 标志": r"REGEX[a-z]*d",
    "切词器也不认得的写法": "UNREADABLE",
    "更新的成员": rf"(?<!\.\.)\.\s*({'|'.join(sorted(MEMBERS))})\b",
    "更新的全局名字": rf"(?<![\w.$])({'|'.join(LACKS['members']['window'].split())})\b",
}
STYLE = {
    ":is、:where": r":(?:is|where)\(",
    ":not 里不止一个简单选择器": r":not\([^)]*[, ]",
    "inset": r"\binset:",
    "一写两边的 -inline、-block": r"(?:margin|padding|border|inset)-(?:inline|block):",
    "min、max、clamp": r"[\s:(](?:min|max|clamp)\(",
    "aspect-ratio": r"\baspect-ratio:",
    "dvh 一类的单位": r"\d[dsl]v[hw]\b",
    "color-mix、oklch 一类的颜色": r"\b(?:color-mix|oklch|oklab|lch|lab|light-dark)\(",
    "嵌套、@layer、@container": r"&|@layer|@container",
}
# 不认得其中一个，整条规则就作废；所以只许这样的选择器自己写一条。
LONELY = re.compile(r":has\(|:focus-visible")


def code_of(script: str) -> str:
    """去掉注释和字符串的脚本；正则写成 ``REGEX标志``。"""
    kept = []
    script = script.replace("=> /", "= /")  # 切词器不知道箭头后面可以是正则
    for kind, text in JavascriptLexer().get_tokens(script):
        if kind in String.Regex:
            text = "REGEX" + text[text.rindex("/") + 1 :]
        elif kind in Comment or (kind in String and kind not in String.Interpol):
            text = " "
        kept.append("UNREADABLE" if kind in Error else text)
    return "".join(kept)


def too_new(script: str) -> list[str]:
    code = code_of(script)
    return [f"{name}：{m[0]}" for name, p in SYNTAX.items() for m in re.finditer(p, code)]


def too_new_style(style: str) -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", style, flags=re.S)
    found = [f"{name}：{m[0]}" for name, p in STYLE.items() for m in re.finditer(p, text)]
    for selectors in re.findall(r"([^{}]+)\{", text):
        parts = selectors.split(",")
        if len({bool(LONELY.search(part)) for part in parts}) > 1:
            found.append(f"和别的选择器写在一起：{selectors.strip()}")
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_uses_nothing_newer_than_chromium_78(path: Path) -> None:
    assert too_new(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.name)
def test_style_uses_nothing_that_chromium_78_would_drop(path: Path) -> None:
    assert too_new_style(path.read_text(encoding="utf-8")) == []


def test_no_line_that_may_not_break_stands_amid_words_that_may() -> None:
    """Chromium 78 遇上它会排个没完；只许写在 78 不认的 @supports 里，或者给表格的格子。"""
    for path in SITE.glob("assets/*.css"):
        text = re.sub(r"@supports \(overflow-wrap: anywhere\) \{.*?\} \}", "", path.read_text())
        for selectors in re.findall(r"([^{}]+)\{[^{}]*white-space: nowrap", text):
            assert re.search(r"t[hd](:[\w-]+)?$", selectors.strip()), (path.name, selectors)


NEWER = ["a?.b", "a?.[0]", "a ?? b", "a ??= b", "a ||= b", "a &&= b", "class A { #f() {} }"]
NEWER += ["class A { static { f(); } }", "/a/d.test(x)", "x = /a/v.test(y)"]
NEWER += ["list.at(-1)", "a.replaceAll(x, y)"]
NEWER += ["node\n  .replaceChildren(a)", "Object.hasOwn(a, b)", "structuredClone(a)", "`${a?.b}`"]
OLDER = ["a ? .5 : 1", '"a?.b"', "// a ?? b", "/a??b/.test(x)", "`a ?? b`", "a || b", "{ ...a }"]
OLDER += [
    "try { f(); } catch { g(); }",
    "list.flatMap(f)",
    "list.map(f)",
    "[...at]",
    "f = (a) => /^(-?\\d+)??$/",
]
OLDER += ["async () => { await f(); }"]


@pytest.mark.parametrize("script", NEWER)
def test_newer_script_is_seen(script: str) -> None:
    assert too_new(script) != []


@pytest.mark.parametrize("script", OLDER)
def test_older_script_is_let_through(script: str) -> None:
    assert too_new(script) == []


NEWER_STYLES = ["a:is(b, c) {}", "a:not(b, c) {}", "a:not(b *) {}", "a { inset: 0; }"]
NEWER_STYLES += ["a { margin-inline: auto; }", "a { width: min(1px, 2vw); }", "a { height: 9dvh; }"]
NEWER_STYLES += ["a:hover, a:focus-visible {}", "a { color: color-mix(in srgb, red, blue); }"]
OLDER_STYLES = ["a:not(b) {}", "a:focus-visible, b:focus-visible {}"]
OLDER_STYLES += ["a { width: calc(1px + 2vw); }"]
OLDER_STYLES += ["a { box-shadow: inset 0 0 1px red; }", "a { grid: minmax(0, 1fr) / 1fr; }"]


@pytest.mark.parametrize("style", NEWER_STYLES)
def test_newer_style_is_seen(style: str) -> None:
    assert too_new_style(style) != []


@pytest.mark.parametrize("style", OLDER_STYLES)
def test_older_style_is_let_through(style: str) -> None:
    assert too_new_style(style) == []
