"""一个正文单元的读者版：MyST 的指令、角色、标签换成普通 Markdown 和 ``<details>``。

认得的写法都列在这里。别的一律是错误：新的章节用了新写法，构建就停下，不会漏给读者。
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tools.notebooks import ToolError
from tools.reader_words import Book, anchor

__all__ = ["CLOSE", "OPEN", "block", "details", "joined", "markdown"]

OPEN, CLOSE = "\0解答开始\0", "\0解答结束\0"  # 解答跨几个单元，先记下两头
FENCE = re.compile(r"([ \t]*)(:{3,}|`{3,}|~{3,})(.*)")
DIRECTIVE = re.compile(r"\{([\w:-]+)\}[ \t]*(.*)")
OPTION = re.compile(r":([\w-]+):[ \t]*(.*)")
LABEL = re.compile(r"^\(([\w-]+)\)=[ \t]*$", re.MULTILINE)
STRANGE = re.compile(r"^(?:\{[^}\n]*\}[ \t]*$|%|\+\+\+).*|\]\{[.#].*", re.MULTILINE)
MATH = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
INLINE = re.compile(
    r"\{(?P<role>[a-zA-Z][\w:+-]*)\}`(?P<text>[^`]+)`"
    r"|(?P<code>(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|(?P<math>\$\$.+?\$\$|(?<!\\)\$[^$\n]+\$)"
    r"|(?P<image>!?)\[(?P<words>(?:`[^`\n]*`|[^\]`])*)\]\((?P<to>[^)\s]*)\)",
    re.DOTALL,
)
TITLED = re.compile(r"(.+?)\s*<([\w-]+)>", re.DOTALL)
NOTES = {"note": "注", "tip": "提示", "warning": "注意", "important": "要紧", "seealso": "另见"}


def markdown(text: str, document: str, book: Book) -> str:
    """``document`` 这一页里一段 MyST 的读者版。解答的两头写成 ``OPEN`` 与 ``CLOSE``。

    Raises:
        ToolError: 有读不懂的写法、没有的标签。
    """
    lines, out, prose = text.split("\n"), [], []
    at = 0
    while at < len(lines):
        fence = FENCE.fullmatch(lines[at])
        if fence is None:
            prose.append(lines[at])
            at += 1
            continue
        end = _closing(lines, at, fence[2])
        directive = DIRECTIVE.fullmatch(fence[3].strip())
        if directive is None and fence[2][0] != ":":
            out += [_prose(prose, document, book), "\n".join(lines[at : end + 1])]
        elif directive is None or fence[1]:
            raise ToolError(f"读不懂 {lines[at].strip()!r}：指令写成 :::{{名字}}，从行首写起。")
        else:
            inside = _directive(directive[1], directive[2], lines[at + 1 : end], document, book)
            out += [_prose(prose, document, book), inside]
        prose, at = [], end + 1
    return joined([*out, _prose(prose, document, book)])


def joined(pieces: Iterable[str]) -> str:
    """几段连起来，中间空一行；空的不算。"""
    return "\n\n".join(stripped for piece in pieces if (stripped := piece.strip("\n")))


def details(summary: str, body: str) -> str:
    """折叠块；正文前后空一行，里面的 Markdown 才会排版。"""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def block(language: str, text: str) -> str:
    """一块代码；里面有三个反引号就用四个包。"""
    fence = "````" if "```" in text else "```"
    return f"{fence}{language}\n{text}\n{fence}"


def _closing(lines: list[str], start: int, fence: str) -> int:
    """围栏在哪一行结束：同样的符号，至少一样多。"""
    for at in range(start + 1, len(lines)):
        line = lines[at].strip()
        if len(line) >= len(fence) and not line.strip(fence[0]):
            return at
    raise ToolError(f"{lines[start].strip()!r} 没有结束；补上一行 {fence}。")


def _directive(name: str, argument: str, lines: list[str], document: str, book: Book) -> str:
    """一条指令的读者版。"""
    options: dict[str, str] = {}
    while lines and (option := OPTION.fullmatch(lines[0].strip())):
        options[option[1]] = option[2].strip()
        lines = lines[1:]
    body = "\n".join(lines)
    if name == "math":
        return f"$$\n{body.strip()}\n$$"
    body = markdown(body, document, book)
    title = _inline(argument, document, book)
    if name in ("exercise", "exercise-start"):
        return joined([_exercise(options.get("label", ""), document, book), body])
    if name in ("exercise-end", "solution-start", "solution-end"):
        return {"solution-start": OPEN, "solution-end": CLOSE}.get(name, "")
    if name == "tab-set":
        return body
    if name == "tab-item":
        return joined([f"**{title}**", body])
    summary = {"hint": "提示", "solution": "解答", "admonition": title, **NOTES}.get(name)
    if summary is None:
        raise ToolError(f"读不懂指令 {{{name}}}；在 tools/reader_prose.py 里写明读者版怎样显示它。")
    folded = "dropdown" in options.get("class", "").split() or name in ("hint", "solution")
    return details(summary, body) if folded else _quoted(summary, body)


def _exercise(label: str, document: str, book: Book) -> str:
    """练习的标题，编号与网站一致。"""
    target = book.targets.get(label)
    if target is None or target.document != document:
        raise ToolError(f"练习要有自己的 :label:，实际是 {label!r}；没有它就编不了号。")
    return f"{anchor(label)}\n\n### {target.heading}"


def _quoted(title: str, body: str) -> str:
    """带粗体标题的引用块；公式并成一行，不然 JupyterLab 把行首的 > 也当成公式。"""
    body = MATH.sub(lambda math: f"$${' '.join(math[1].split())}$$", body)
    lines = joined([f"**{title}**", body]).split("\n")
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _prose(lines: list[str], document: str, book: Book) -> str:
    """指令之外的文字：标签行换成锚点，角色和链接换成读得懂的字。"""
    text = LABEL.sub(lambda label: anchor(label[1]) + "\n", "\n".join(lines))
    if strange := STRANGE.search(INLINE.sub("x", text)):
        raise ToolError(f"读不懂 {strange[0]!r}：读者版不认这种写法。")
    return re.sub(r"\n{3,}", "\n\n", _inline(text, document, book))


def _inline(text: str, document: str, book: Book) -> str:
    def replaced(found: re.Match[str]) -> str:
        if found["code"] or found["math"]:
            return found[0]
        if found["role"]:
            return _role(found["role"], found["text"], document, book)
        return _link(found, document, book)

    return re.sub(r"(?<=\S) (?=〔)", "", INLINE.sub(replaced, text))


def _role(role: str, text: str, document: str, book: Book) -> str:
    """``{ref}``、``{myth}``、``{chapter}``、``{cite}``。"""
    if role == "ref":
        titled = TITLED.fullmatch(text)
        return book.link(document, *((titled[2], titled[1]) if titled else (text,)))
    if role == "myth":
        return book.myth(document, text)
    if role == "chapter":
        return book.chapter(text)
    if role == "cite":
        return book.cite(text)
    raise ToolError(f"读不懂 {{{role}}}`{text}`；在 tools/reader_prose.py 里写明读者版怎样显示它。")


def _link(found: re.Match[str], document: str, book: Book) -> str:
    """普通的链接：术语只留字，书内的同 ``{ref}``，网址照旧。"""
    words, to = found["words"], found["to"]
    if re.match(r"https?://|data:|mailto:", to):
        return found[0]
    if found["image"]:
        raise ToolError(f"图 {to} 不在读者手里；改用代码单元画，或写完整的网址。")
    if to.startswith("#term-"):
        return words
    if to.startswith("#"):
        return book.link(document, to[1:], words)
    raise ToolError(f"链接 {to!r} 出了书就打不开；改成 #标签 或完整的网址。")
