"""检查代码单元与输出：长短、写法、图、过时接口、不可复现的输出。"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tools.lint_chapter import Chapter, Finding
from tools.notebooks import Notebook, tags
from tools.steps import display_width

__all__ = ["RULES"]

SETUP_LINES = 6
CELL_LINES = 25
COLUMNS = 80
STORED_BYTES = 100_000
IGNORED_SHARE = 0.05
HAN = re.compile(r"[\u4e00-\u9fff]")
SETUP = """try:
    from companion import __book__  # 本书的伴学包
except ImportError:
    %pip install -q "paodetong[EXTRAS] @ URL"
"""
BARE_INSTALL = re.compile(r"pip3?\s+install\s+(-\S+\s+)*[\"']?companion\b")
UNREPEATABLE = {
    "内存地址": re.compile(r"\b0x[0-9a-fA-F]{5,}"),
    "绝对路径": re.compile(
        r"(?<![\w.:/])/(home|root|tmp|usr|opt|work|workspace|Users|var|mnt|content)/"
        r"|\b[A-Za-z]:\\\\?\w"
    ),
    "时刻或用时": re.compile(
        r"\b\d{1,2}:\d{2}:\d{2}\b|\b20\d\d-\d\d-\d\d\b|\d\s*(毫秒|微秒|纳秒|秒)"
        r"|\d\s*(ms|µs|μs|us|ns)\b|\d\.\d+\s*s\b|\bit/s\b"
    ),
}
DEPRECATED = {
    r"\btorch\.(symeig|eig|lstsq|solve|qr|matrix_rank|chain_matmul)\(": "torch.linalg 里的同类函数",
    r"\btorch\.jit\.(script|trace)\b": "torch.compile 或 torch.export",
    r"\btorch\.cuda\.amp\b": "torch.amp",
    r"\b(?<!\.)Variable\(": "张量本身",
    r"\b(?!F\.|v2\.|functional\.|img\.|image\.)\w+\.resize\(": "reshape",
    r"\binit\.(uniform|normal|constant|xavier_\w+l|kaiming_\w+l|xavier_uniform|kaiming_uniform"
    r"|orthogonal|sparse|eye|dirac)\(": "带下划线结尾的同名函数",
    r"\btorch\.(Float|Double|Half|Int|Long|Byte)?Tensor\(": "torch.tensor 或 torch.empty",
    r"\bsize_average\s*=": "reduction=",
    r"\bpretrained\s*=\s*True": "weights=",
    r"\btorch\.sparse\.FloatTensor\b": "torch.sparse_coo_tensor",
    r"\btorch\.set_default_tensor_type\b": "torch.set_default_dtype",
    r"\bF\.(upsample|sigmoid|tanh)\(": "F.interpolate、torch.sigmoid、torch.tanh",
}
COMMENT = re.compile(r"#.*$", flags=re.MULTILINE)
ESCAPES = {"\a": "a", "\b": "b", "\t": "t", "\v": "v", "\f": "f", "\r": "r"}


def setup_cell(chapter: Chapter) -> Iterator[Finding]:
    """第一个代码单元是准备单元，装的是本书自己的包。"""
    if not chapter.code:
        return
    first = chapter.code[0]
    if first.id != "setup":
        yield Finding(first.id, "第一个代码单元应是准备单元，id 为 setup")
        return
    if (lines := first.source.count("\n") + 1) > SETUP_LINES:
        yield Finding("setup", f"准备单元应不超过 {SETUP_LINES} 行，现有 {lines} 行")
    expected = SETUP.replace("URL", chapter.wheel_url)
    if re.sub(r"paodetong\[[\w,]+\]", "paodetong[EXTRAS]", first.source).find(expected) != 0:
        yield Finding("setup", f"准备单元的前四行应是：\n{expected}")


def cell_size(chapter: Chapter) -> Iterator[Finding]:
    """单元不超过 25 行，每行不超过 80 列。"""
    for cell in chapter.code:
        lines = cell.source.splitlines()
        if len(lines) > CELL_LINES:
            yield Finding(cell.id, f"代码应不超过 {CELL_LINES} 行，现有 {len(lines)} 行；拆开它")
        width = max(map(display_width, lines))
        if width > COLUMNS and cell.id != "setup":
            yield Finding(cell.id, f"代码应不超过 {COLUMNS} 列，最宽 {width} 列；折行")


def trailing_semicolon(chapter: Chapter) -> Iterator[Finding]:
    """没有行尾分号：nbval 不认它，照样打印对象。"""
    for cell in chapter.code:
        if any(line.rstrip().endswith(";") for line in cell.source.splitlines()):
            yield Finding(cell.id, "行尾不要分号；让函数返回 None")


def figures(chapter: Chapter) -> Iterator[Finding]:
    """图有名字、中文图题和中文替代文字。"""
    for cell in chapter.code:
        if not cell.id.startswith("fig-"):
            if any("<Figure size" in text for text in stored_texts(cell)):
                yield Finding(cell.id, "画了图，id 却不以 fig- 开头")
            continue
        mystnb = cell.metadata.get("mystnb", {})
        figure, alt = mystnb.get("figure", {}), mystnb.get("image", {}).get("alt", "")
        if figure.get("name") != cell.id:
            yield Finding(cell.id, f"mystnb.figure.name 应等于单元 id，现为 {figure.get('name')!r}")
        if not HAN.search(figure.get("caption", "")):
            yield Finding(cell.id, "缺中文图题 mystnb.figure.caption")
        if not HAN.search(alt):
            yield Finding(cell.id, "缺中文替代文字 mystnb.image.alt")


def repeatable_outputs(chapter: Chapter) -> Iterator[Finding]:
    """存下的输出每次都一样：没有地址、绝对路径、时刻和用时。"""
    for cell in chapter.code:
        text = "\n".join(stored_texts(cell))
        for what, pattern in UNREPEATABLE.items():
            if found := pattern.search(text):
                yield Finding(cell.id, f"输出里有{what}：{found[0]!r}；换一种打印法")


def stored_size(chapter: Chapter) -> Iterator[Finding]:
    """一章存下的输出不超过 100 KB。"""
    total = sum(len(json.dumps(cell.outputs, ensure_ascii=False).encode()) for cell in chapter.code)
    if total > STORED_BYTES:
        yield Finding("（全章）", f"存下的输出应不超过 {STORED_BYTES} 字节，现有 {total}")


def ignored_outputs(chapter: Chapter) -> Iterator[Finding]:
    """不比较输出的单元少于 5%，并写明理由。"""
    ignored = [cell for cell in chapter.code if "nbval-ignore-output" in tags(cell)]
    for cell in ignored:
        comment = cell.source.lstrip().splitlines()[0]
        reason = cell.metadata.get("nbval_reason") or (comment if comment[0] == "#" else "")
        if not HAN.search(reason):
            yield Finding(cell.id, "nbval-ignore-output 要在 nbval_reason 或首行注释里写理由")
    if ignored and len(ignored) >= IGNORED_SHARE * len(chapter.code):
        share = f"{len(ignored)}/{len(chapter.code)}"
        yield Finding(ignored[-1].id, f"不比较输出的单元应少于 5%，现有 {share}")


def deprecated_api(chapter: Chapter) -> Iterator[Finding]:
    """过时接口只出现在标了 deprecated-demo 的单元里。"""
    for cell in chapter.code:
        if "deprecated-demo" in tags(cell):
            continue
        source = COMMENT.sub("", cell.source)
        for pattern, replacement in DEPRECATED.items():
            if found := re.search(pattern, source):
                yield Finding(cell.id, f"{found[0].rstrip('(')} 已过时，改用{replacement}")


def bare_install(chapter: Chapter) -> Iterator[Finding]:
    """不写 pip install companion：索引上的同名包是别人的。"""
    for cell in chapter.cells:
        if BARE_INSTALL.search(cell.source):
            yield Finding(cell.id, "companion 在索引上是别人的包；写本书轮子的地址")


def invisible_characters(chapter: Chapter) -> Iterator[Finding]:
    """单元、图题和替代文字里没有看不见的字符：公式里的 ``\\theta`` 少抄一道转义，就成了制表符。"""
    for cell in chapter.cells:
        mystnb = cell.metadata.get("mystnb", {})
        caption, alt = mystnb.get("figure", {}).get("caption"), mystnb.get("image", {}).get("alt")
        for line in "\n".join([cell.source, caption or "", alt or ""]).split("\n"):
            for place, char in enumerate(line):
                if not char.isprintable() and char != "\u3000":
                    near = line[max(0, place - 8) : place + 8]
                    meant = f"，多半是 \\{ESCAPES[char]} 少了一道转义" if char in ESCAPES else ""
                    yield Finding(cell.id, f"{near!r} 里有看不见的字符 {char!r}{meant}；删掉或改写")


def stored_texts(cell: Notebook) -> list[str]:
    """返回单元存下的全部文字输出；HTML 只算标签之间的字。"""
    texts = []
    for output in cell.outputs:
        texts += [output.get("text", ""), output.get("evalue", "")]
        for mime, text in output.get("data", {}).items():
            texts.append(re.sub(r"<[^>]*>", " ", text) if mime == "text/html" else str(text))
    return texts


RULES = (
    setup_cell,
    cell_size,
    trailing_semicolon,
    figures,
    repeatable_outputs,
    stored_size,
    ignored_outputs,
    deprecated_api,
    bare_install,
    invisible_characters,
)
