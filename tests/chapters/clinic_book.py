"""一本只有诊所的小书：一章、一页诊所、覆盖表；测试逐处弄坏它。"""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

CHAPTER = {
    "title": "(ch-tensors)=\n# 张量",
    "sec-reduce": "(sec-reduce)=\n## ★ 归约：消掉一维\n\n对一维求和，就少一维。参看{myth}`C049`。",
    "t046-sum": ("print(torch.ones(2, 3).sum(0))", "tensor([2., 2., 2.])\n"),
    "sec-device": "(sec-device)=\n## ☆ 设备",
    "c057-ask": ("print(torch.accelerator.is_available())", "False\n"),
}
CLINIC = {
    "title": "# 张量的误解\n\n每一条都自成一体，从搜索来的人不必先读别的。",
    "theme-reduce": "## 归约",
    "c049-belief": """(c049)=
### 「`argmax()` 给我行号和列号」

:::{admonition} 误解 C049
:class: myth
最大值在第 0 行第 1 列，`argmax()` 应当给 (0, 1)。
:::""",
    "c049-proof": (
        "t = torch.tensor([[1, 9], [3, 4]])\n"
        'print("以为 (0, 1)，其实", t.argmax().item())\n'
        "assert t.argmax() == 1",
        "以为 (0, 1)，其实 1\n",
    ),
    "c049-truth": "不说 `dim`，它先把张量摊平再找。见{ref}`sec-reduce`。",
    "spelling": "(spelling)=\n### 拼写与名字",
    "names-proof": ('print("torch.numpy", hasattr(torch, "numpy"))', "torch.numpy False\n"),
}
COVERAGE = {
    "C049": "A1_clinic_tensors c049-proof",
    "C117": "A1_clinic_tensors names-proof",
    "C057": "01_tensors c057-ask",
    "T046": "01_tensors t046-sum",
}
Cells = dict[str, str | tuple[str, str]]


def notebook(cells: Cells) -> nbformat.NotebookNode:
    """``{单元 id: 正文}`` 或 ``{单元 id: (代码, 存下的输出)}`` 变成笔记本。"""
    made = []
    for name, content in cells.items():
        if isinstance(content, str):
            made.append(new_markdown_cell(content, id=name))
            continue
        source, text = content
        outputs = [new_output("stream", name="stdout", text=text)] if text else []
        made.append(new_code_cell(source, id=name, outputs=outputs))
    return new_notebook(
        cells=made, metadata={"language_info": {"name": "python", "pygments_lexer": "python"}}
    )


def write(
    root: Path,
    clinic: Cells | None = None,
    chapter: Cells | None = None,
    coverage: dict[str, str] | None = None,
    beliefs: str = 'C057 = "设备只有 cpu 和 cuda 两种"\n',
) -> Path:
    """把小书写到 ``root``；给了哪一份就用哪一份，其余是好的。"""
    pages = {"01_tensors": chapter or CHAPTER, "A1_clinic_tensors": clinic or CLINIC}
    for folder in ("chapters", "site", "tests"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, cells in pages.items():
        text = nbformat.writes(notebook(cells))
        (root / "chapters" / f"{name}.ipynb").write_text(text, encoding="utf-8")
    files = [{"file": f"chapters/{name}"} for name in pages]
    toc = {"format": "jb-book", "root": "intro", "chapters": files}
    (root / "_toc.yml").write_text(json.dumps(toc), encoding="utf-8")
    rows = (
        f"{key}: {{chapter: {v.split()[0]}, cell: {v.split()[1]}}}"
        for key, v in (coverage or COVERAGE).items()
    )
    (root / "tests" / "coverage.yml").write_text("\n".join(rows), encoding="utf-8")
    (root / "site" / "beliefs.toml").write_text(beliefs, encoding="utf-8")
    return root
