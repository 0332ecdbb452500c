"""规范形式：留什么、去什么、再做一次不变。"""

from __future__ import annotations

import json

import nbformat
import pytest
from nbformat.v4 import new_notebook, new_output

from tools.nb_format import canonical, canonical_text, main
from tools.notebooks import ToolError


def with_outputs(cell, *outputs, tags=()):
    made = cell("made", "pass", *tags)
    made.outputs = list(outputs)
    return new_notebook(cells=[made])


def outputs_of(notebook):
    return canonical(notebook).cells[0].outputs


def test_formatting_twice_changes_nothing(cell, text):
    notebook = with_outputs(
        cell,
        new_output("stream", name="stdout", text="步\r步 2\n"),
        new_output("stream", name="stdout", text="完\n"),
        new_output(
            "execute_result",
            data={"text/plain": "x", "text/html": '<script data-companion="bet">let a;\n</script>'},
            execution_count=7,
        ),
        new_output("error", ename="E", evalue="e", traceback=["很长"]),
    )
    notebook.cells.append(text("note", "\n汉字\n"))
    once = canonical_text(notebook)
    assert canonical_text(nbformat.reads(once, as_version=4)) == once
    assert once.endswith("}\n") and not once.endswith("\n\n")
    assert "汉字" in once
    assert json.loads(once)["metadata"]["language_info"] == {"name": "python"}


def test_images_are_stripped_and_text_is_kept(cell):
    figure = new_output(
        "display_data",
        data={"image/png": "iVBOR", "text/plain": "<Figure>"},
        metadata={"image/png": {"width": 3}},
    )
    only_image = new_output("display_data", data={"image/png": "iVBOR"})
    assert outputs_of(with_outputs(cell, figure, only_image)) == [
        {"output_type": "display_data", "data": {"text/plain": "<Figure>"}, "metadata": {}}
    ]


def test_widget_bodies_are_replaced_by_their_names(cell):
    html = (
        '<p>图</p><style data-companion="strides">p {}\n</style>'
        '<script data-companion="strides">run("</p>")\n</script><script>kept()</script>'
    )
    (output,) = outputs_of(with_outputs(cell, new_output("display_data", data={"text/html": html})))
    assert output.data["text/html"] == (
        '<p>图</p><style data-companion="strides">strides</style>'
        '<script data-companion="strides">strides</script><script>kept()</script>'
    )


def test_neighbouring_pieces_of_one_stream_are_joined(cell):
    pieces = [new_output("stream", name="stdout", text=text) for text in ("1\n", "50%\r99%", "\n")]
    (joined,) = outputs_of(with_outputs(cell, *pieces))
    assert joined.text == "1\n99%\n"


def test_error_keeps_its_message_without_traceback(cell):
    error = new_output("error", ename="ValueError", evalue="坏", traceback=["frame 1", "frame 2"])
    (kept,) = outputs_of(with_outputs(cell, error))
    assert (kept.ename, kept.evalue, kept.traceback) == ("ValueError", "坏", [])


def test_an_ignored_output_is_not_stored(cell):
    noise = new_output("stream", name="stdout", text="0.123 秒\n")
    assert outputs_of(with_outputs(cell, noise, tags=["nbval-ignore-output"])) == []


def test_counts_become_one_and_editor_noise_goes(cell):
    made = cell("made", "1", "hide-input", collapsed=True, vscode={"x": 1}, mystnb={"a": 1})
    (kept,) = canonical(new_notebook(cells=[made])).cells
    assert kept.execution_count == 1
    assert kept.metadata == {"tags": ["hide-input"], "mystnb": {"a": 1}}


@pytest.mark.parametrize("name", ["Fig-Loss", "a_b", "3f2a9c01", "3f2a9c01-77de", "-x"])
def test_meaningless_ids_are_refused(cell, name):
    with pytest.raises(ToolError, match="有意义的小写短语"):
        canonical(new_notebook(cells=[cell(name, "1")]))


def test_repeated_ids_are_refused(book, cell, capsys):
    path = book.chapter("01_one", cell("same", "1"), cell("other", "2"))
    path.write_text(path.read_text(encoding="utf-8").replace("other", "same"), encoding="utf-8")
    assert main([], book.root) == 1
    assert "01_one.ipynb" in (message := capsys.readouterr().err) and "'same'" in message


def test_check_reports_and_leaves_the_file_alone(book, cell, capsys):
    path = book.chapter("01_one", cell("sum", "1 + 1"))
    before = path.read_bytes()
    assert main(["--check"], book.root) == 1
    assert "01_one.ipynb：不是规范形式" in capsys.readouterr().out
    assert path.read_bytes() == before
    assert main([], book.root) == 0
    assert main(["--check"], book.root) == 0
    assert b"\r" not in path.read_bytes()
