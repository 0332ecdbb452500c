"""读者版笔记本：把一章换成只用普通 Markdown 和 HTML 的样子，JupyterLab、VS Code、Colab 都能显示。

源文件里的 MyST 写法（指令、角色、标签）那些前端一概不认。读不懂的写法是错误，不会漏给读者。
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell

from tools.notebooks import Notebook, ToolError, tags
from tools.reader_prose import CLOSE, OPEN, block, details, joined, markdown
from tools.reader_words import Book, anchor

__all__ = ["COMPANION", "outputs", "reader_notebook", "reader_text", "setup_source"]

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
        "version": "3.11",
    },
}
COMPANION = re.compile(r"""<(script|style) data-companion=["']([\w.-]+)["']>.*?</\1>""", re.DOTALL)
INSTALL = re.compile(r'^ +%pip install -q ("[^"\n]+ @ [^"\n]+")\n', re.MULTILINE)
HIDDEN = {
    "hide-input": {"source_hidden": True},
    "remove-input": {"source_hidden": True},
    "hide-cell": {"source_hidden": True, "outputs_hidden": True},
}
SETUP = '''\
from importlib.util import find_spec

class Stop(Exception):
    """只印一行话就停下，不印一大段英文。"""

    def _render_traceback_(self):
        return [str(self)]

{first}try:
    from companion import __book__  # 本书的伴学包
except ImportError as error:
    own, how = find_spec("companion"), {how!r}
    if error.name != "companion":
        raise Stop(f"伴学包要用的 {{error.name}} 没有装：{{how}}") from None
    if own:
        where = own.origin or "一个叫 companion 的文件夹"
        what = "和本书的伴学包重名，把它挡住了：给它改个名字，重启内核，再运行这一格。"
        raise Stop(f"{{where}} {{what}}") from None
    raise Stop(f"还没有装本书的伴学包：{{how}}") from None
'''
FIRST = 'if find_spec("companion") is None:\n    %pip install -q {wheel}\n'
HOW = "{do}，重启内核，再运行这一格。"


def reader_text(notebook: Notebook, document: str, book: Book) -> str:
    """读者版的文件内容：同样的输入，一个字节也不差。"""
    return nbformat.writes(reader_notebook(notebook, document, book), indent=1).rstrip("\n") + "\n"


def reader_notebook(notebook: Notebook, document: str, book: Book) -> Notebook:
    """返回 ``document`` 这一页的读者版，原对象不动。

    Raises:
        ToolError: 有读不懂的写法、没有的标签；消息里有笔记本和单元的名字。
    """
    cells: list[Notebook] = []
    for source in notebook.cells:
        cell = copy.deepcopy(source)
        try:
            if cell.cell_type == "markdown":
                cell.source = markdown(cell.source, document, book)
                cell.metadata = nbformat.from_dict({})
                cells.append(cell)
            else:
                cells += _code(cell, book)
        except ToolError as error:
            raise ToolError(f"{document}.ipynb 的单元 {source.id}：{error}") from error
    result = nbformat.v4.new_notebook(metadata=METADATA, cells=_folded(cells, document))
    nbformat.validate(result)
    return result


def _code(cell: Notebook, book: Book) -> list[Notebook]:
    """一个代码单元，后面跟着它的图注（有的话）。"""
    mystnb = cell.metadata.get("mystnb", {})
    figure = mystnb.get("figure", {})
    if cell.id == "setup":
        cell.source = setup_source(cell.source, public=bool(book.base))
    cell.outputs = outputs(cell.outputs, mystnb.get("image", {}).get("alt", ""))
    cell.execution_count = None
    jupyter = {
        key: value for tag in sorted(tags(cell)) for key, value in HIDDEN.get(tag, {}).items()
    }
    metadata = {"tags": sorted(tags(cell)), "jupyter": jupyter}
    cell.metadata = nbformat.from_dict({key: value for key, value in metadata.items() if value})
    if not figure.get("caption"):
        return [cell]
    name = figure.get("name", "")
    number = f"{anchor(name)}**{book.targets[name].title}**　" if name in book.targets else ""
    caption = number + figure["caption"]
    return [cell, new_markdown_cell(caption, id=f"{cell.id}-caption")]


def setup_source(source: str, public: bool) -> str:
    """准备单元的读者版：装不上、被读者自己的 ``companion.py`` 挡住，都只说一行中文。"""
    found = INSTALL.search(source)
    if found is None:
        raise ToolError("准备单元里没有 %pip install 那一行，不知道从哪里装伴学包。")
    do = (
        f"运行 %pip install {found[1]}"
        if public
        else '在本书仓库的根目录运行 python -m pip install ".[book]"'
    )
    first = FIRST.format(wheel=found[1]) if public else ""
    return SETUP.format(first=first, how=HOW.format(do=do)) + source[found.end() :]


def outputs(stored: Iterable[Any], alt: str = "") -> list[Any]:
    """一个单元存下的输出：报错能显示，组件不带脚本也能看，没存的图说一句话。"""
    kept = copy.deepcopy(list(stored))
    for output in kept:
        if output.output_type == "error":
            output.traceback = [f"{output.ename}: {output.evalue}"]
        data = output.get("data", {})
        if "data-companion=" in (html := data.get("text/html", "")):
            todo = "作答" if re.search(r'data-widget="(bet|quiz)"', html) else "动手操作"
            data["text/html"] = (
                f"<p>运行这一格，就能在这里{todo}。</p>\n{COMPANION.sub('', html).strip()}"
            )
        if data.get("text/plain", "").startswith("<Figure size"):
            what = f"图：{alt}。" if alt else ""
            data["text/plain"] = f"（{what}运行这一格，就画出来。）"
        if "execution_count" in output:
            output.execution_count = None
    return kept


def _folded(cells: Iterable[Notebook], document: str) -> list[Notebook]:
    """代码单元放不进 ``<details>``，所以解答里的代码写成文字，收进一个正文单元；空单元去掉。"""
    result: list[Notebook] = []
    solution: list[str] | None = None
    opened: Any = None
    for cell in cells:
        if cell.cell_type != "markdown":
            result.append(cell) if solution is None else solution.append(_printed(cell))
            continue
        pieces = []
        for piece in re.split(f"({OPEN}|{CLOSE})", cell.source):
            if piece == OPEN and solution is None:
                cell.source = joined([cell.source, *pieces] if cell is opened else pieces)
                result += [] if cell is opened else [cell]
                pieces, solution, opened = [], [], cell
            elif piece == CLOSE and solution is not None:
                opened.source = joined([opened.source, details("解答", joined(solution))])
                pieces, solution = [], None
            elif piece in (OPEN, CLOSE):
                raise ToolError(f"{document}.ipynb 的单元 {cell.id}：解答的开始和结束不成对。")
            else:
                (pieces if solution is None else solution).append(piece)
        if cell is opened:
            cell.source = joined([cell.source, *pieces])
        elif solution is None and (text := joined(pieces)):
            cell.source = text
            result.append(cell)
    if solution is not None:
        raise ToolError(f"{document}.ipynb 的单元 {opened.id}：解答没有结束。")
    return result


def _printed(cell: Notebook) -> str:
    """一个代码单元写成 Markdown：代码，和它印出的字。"""
    said = "".join(
        "\n".join(output.traceback)
        if output.output_type == "error"
        else output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    ).strip("\n")
    return joined(
        [block("python", cell.source), "印出：\n\n" + block("text", said) if said else ""]
    )
