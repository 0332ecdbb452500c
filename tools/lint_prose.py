"""检查正文的语气：套话、感叹号、表情符号、过多的粗体。"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.lint_chapter import Chapter, Finding, prose_lines

__all__ = ["RULES", "prose_problems"]

CLICHES = re.compile(
    r"值得注意的是|综上所述|众所周知|让我们来|在本节中我们将|强大的|赋能|不仅[^。；\n]*而且"
)
EXCLAMATION = re.compile(r"！|(?<![\[\w<])!(?![\[=])|(?<=[\u4e00-\u9fff])!")
EMOJI = re.compile(
    r"[\U0001f000-\U0001faff\u2600-\u2604\u2607-\u26ff\u2705\u274c\u2728\u2753-\u2757]"
)
BOLD = re.compile(r"\*\*[^*\n]+\*\*")


def prose_problems(source: str) -> Iterator[str]:
    """逐条返回一段正文的问题；代码、公式、链接地址不算正文。"""
    for line in prose_lines(source):
        if found := CLICHES.search(line):
            yield f"套话“{found[0]}”；删掉，直接说事"
        if EXCLAMATION.search(line):
            yield f"正文里有感叹号：{line.strip()[:30]}"
        if found := EMOJI.search(line):
            yield f"正文里有表情符号 {found[0]}"
        if len(bolds := BOLD.findall(line)) > 1:
            yield f"一段里最多一处粗体，现有 {len(bolds)} 处：{'、'.join(bolds)}"


def voice(chapter: Chapter) -> Iterator[Finding]:
    """正文没有套话、感叹号、表情符号，一段最多一处粗体。"""
    for cell in chapter.prose:
        yield from (Finding(cell.id, problem) for problem in prose_problems(cell.source))


RULES = (voice,)
