"""数代码：一个作业有几行、几个词元。各家用同一把尺子，先用同一个格式化器排好。"""

import ast
import io
import tokenize
from pathlib import Path

__all__ = ["code_size"]

BLANK = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def code_size(path: Path) -> dict[str, int]:
    """返回 ``{"lines": 有代码的行数, "tokens": 词元数}``；空行、注释、文件开头的说明不算。"""
    text = path.read_text(encoding="utf-8")
    first = ast.parse(text).body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    skipped = (first.end_lineno or 0) if is_docstring else 0
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in BLANK and token.start[0] > skipped
    ]
    lines = {row for token in tokens for row in range(token.start[0], token.end[0] + 1)}
    return {"lines": len(lines), "tokens": len(tokens)}
