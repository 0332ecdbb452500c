"""章节检查：好章一处不报；每种坏法都要被指出来，并指对单元。"""

from __future__ import annotations

import pytest
from nbformat.v4 import new_output

from tools import lint_form, nb_lint
from tools.nb_lint import lint, main

SETUP = """try:
    from companion import __book__  # 本书的伴学包
except ImportError:
    %pip install -q "paodetong[plot] @ https://example.org/book/paodetong-0.1.0-py3-none-any.whl"
from companion.repro import environment, seed_everything"""
EXERCISE = """:::{exercise-start}
:label: ex-row-means
:::
求每行的平均。

:::{hint}
:class: dropdown
消掉哪一维？
:::

:::{exercise-end}
:::"""
MYTH = """::::{admonition} 误解 C048 · 转置会复制数据
:class: myth
很多人这样想。
::::"""
BETS = """
[bytes]
question = "要搬动多少字节？"
[[bytes.options]]
text = "0"
correct = true
reason = "只改步幅。"
[[bytes.options]]
text = "96 MB"
reason = "那是复制。"
[shape]
question = "形状？"
kind = "typed"
answers = ["(3,)"]
reason = "消掉的是行。"
default = "还不对。"
[[shape.wrong]]
text = "(4,)"
reason = "那是列。"
[quizzes]
one = ["bytes", "shape"]
"""
FIGURE = {"figure": {"name": "fig-loss", "caption": "损失在降"}, "image": {"alt": "一条下降的线"}}


@pytest.fixture(autouse=True)
def only_the_rules_of_cells(monkeypatch):
    """一章的样式另有 test_lint_form 管。"""
    rules = tuple(rule for rule in nb_lint.RULES if rule not in lint_form.RULES)
    monkeypatch.setattr(nb_lint, "RULES", rules)
    monkeypatch.setattr(lint_form, "hints", lambda chapter: [])


@pytest.fixture
def good(book, cell, text):
    """没有毛病的一章：按 id 存放的单元，可以逐个弄坏。"""
    book.write("_config.yml", "html: {baseurl: https://example.org/book/}\n")
    book.write("pyproject.toml", '[project]\nname = "paodetong"\nversion = "0.1.0"\n')
    book.write("src/companion/book/exercises/ch01.py", "def row_means(answer):\n    return None\n")
    book.write("src/companion/book/bets/ch01.toml", BETS)
    check = 'check("ch01.row_means", answer)'
    cells = [
        text("title", "# 张量\n\n**第一句**话，提到 T040。"),
        cell("setup", SETUP),
        cell("bet-bytes", 'quiz("ch01.one")', "remove-input"),
        text("myth-transpose", MYTH),
        cell("bet-shape", 'bet("ch01.shape")', "remove-input"),
        cell("c048-transpose", "x = torch.ones(2, 3)\nassert x.T.data_ptr() == x.data_ptr()"),
        cell("fig-loss", "curves(loss)", mystnb=FIGURE),
        text("exercise", EXERCISE),
        cell("ex-row-means-try", f"answer = ...\n{check}"),
        text("solution", ":::{solution-start} ex-row-means\n:class: dropdown\n:::"),
        cell("sol-row-means", f"answer = x.mean(1)\n{check}"),
        text("solution-end", ":::{solution-end}\n:::"),
    ]
    return {made.id: made for made in cells}


def findings(book, cells):
    path = book.chapter("01_tensors", *cells.values())
    return list(lint(path, book.root))


def test_a_good_chapter_has_no_findings(book, good, capsys):
    assert findings(book, good) == []
    assert main([], book.root) == 0
    assert capsys.readouterr().out.startswith("1 章，0 处问题")


@pytest.mark.parametrize(
    ("cell_id", "source", "message"),
    [
        ("setup", SETUP + "\na = 1\nb = 2", "不超过 6 行"),
        ("setup", SETUP.replace("0.1.0", "0.2.0"), "前四行应是"),
        ("c048-transpose", "\n".join(f"a{i} = {i}" for i in range(26)), "不超过 25 行"),
        ("fig-loss", f"x = '{'宽' * 40}'", "不超过 80 列，最宽 86 列"),
        ("fig-loss", "curves(loss);", "行尾不要分号"),
        ("fig-loss", "torch.symeig(x)", "torch.symeig 已过时"),
        ("fig-loss", "torch.jit.script(f)", "torch.jit.script 已过时"),
        ("fig-loss", "torch.cuda.amp.GradScaler()", "torch.cuda.amp 已过时"),
        ("fig-loss", "Variable(x)", "Variable 已过时"),
        ("fig-loss", "x.resize(2, 3)", "x.resize 已过时"),
        ("fig-loss", "nn.init.uniform(w)", "init.uniform 已过时"),
        ("fig-loss", "torch.Tensor([1])", "torch.Tensor 已过时"),
        ("fig-loss", "nn.MSELoss(size_average=False)", "size_average= 已过时"),
        ("fig-loss", "resnet18(pretrained=True)", "pretrained=True 已过时"),
        ("fig-loss", "torch.sparse.FloatTensor(i, v)", "torch.sparse.FloatTensor 已过时"),
        ("title", "先 `pip install companion`。", "companion 在索引上是别人的包"),
        ("title", "见 C227。", "没有 C227"),
        ("title", "见T000。", "没有 T000"),
        ("title", "值得注意的是，它很快。", "套话“值得注意的是”"),
        ("title", "不仅快，而且省。", "套话“不仅快，而且”"),
        ("title", "太好了！", "感叹号"),
        ("title", "太好了 🎉", "表情符号"),
        ("title", "**一**，**二**。", "最多一处粗体，现有 2 处"),
        ("myth-transpose", MYTH.replace(" C048", ""), "误解块的标题应是"),
        ("c048-transpose", "x = 1", None),
        ("exercise", EXERCISE.replace("{hint}", "{note}"), "要依次有"),
        ("exercise", EXERCISE.replace("{exercise-end}", "{note}"), "要依次有"),
        ("exercise", EXERCISE.replace(":label: ex-row-means", ""), "习题要有 :label:"),
        ("solution", "解答", None),
        ("ex-row-means-try", 'answer = 0\ncheck("ch01.row_means", answer)', "留一个 ..."),
        ("ex-row-means-try", "answer = ...", "应各调用一次同名的 check"),
        ("ex-row-means-try", 'check("ch01.other", ...)', "应各调用一次同名的 check"),
        ("bet-shape", 'bet("ch01.none")', "bets/ch01.toml 里没有 ch01.none"),
        ("bet-shape", 'quiz("ch01.two")', "bets/ch01.toml 里没有 ch01.two"),
    ],
)
def test_a_bad_source_is_named(book, good, cell_id, source, message):
    good[cell_id].source = source
    found = findings(book, good)
    owner = {"c048-transpose": "myth-transpose", "solution": "exercise"}
    if message is None:
        assert owner[cell_id] in {finding.cell_id for finding in found}
    else:
        assert any(f.cell_id == cell_id and message in f.message for f in found), found


@pytest.mark.parametrize(
    ("source", "tags"),
    [
        ("torch.symeig(x)", ["deprecated-demo"]),
        ("x.resize_(2, 3)  # torch.Tensor([1])", []),
        ("isinstance(x, torch.Tensor)\nnn.init.uniform_(w)", []),
    ],
)
def test_the_modern_way_is_not_deprecated(book, good, source, tags):
    good["fig-loss"].source = source
    good["fig-loss"].metadata["tags"] = tags
    assert findings(book, good) == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("<object at 0x7f1234abcd>", "内存地址"),
        ("/home/somebody/x.py", "绝对路径"),
        ("C:\\Users\\x", "绝对路径"),
        ("用了 3.2 毫秒", "时刻或用时"),
        ("1.25 ms", "时刻或用时"),
        ("12:30:01", "时刻或用时"),
        ("x" * 100_001, "存下的输出应不超过"),
        ("<Figure size 640x480 with 1 Axes>", "id 却不以 fig- 开头"),
    ],
)
def test_an_unrepeatable_output_is_named(book, good, output, message):
    good["c048-transpose"].outputs = [new_output("stream", name="stdout", text=output)]
    assert [message in finding.message for finding in findings(book, good)] == [True]


@pytest.mark.parametrize("cell_id", ["title", "c048-transpose"])
@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ("$\theta$", "多半是 \\t 少了一道转义"),
        ("$\frac12$", "多半是 \\f 少了一道转义"),
        ("$\beta$", "多半是 \\b 少了一道转义"),
        ("$\rho$", "多半是 \\r 少了一道转义"),
        ("零宽\u200b空格", "看不见的字符 '\\u200b'；删掉"),
        ("\ufeff开头", "看不见的字符 '\\ufeff'；删掉"),
    ],
)
def test_an_invisible_character_is_named(book, good, cell_id, slip, message):
    good[cell_id].source += f"  # {slip}"
    assert [message in f.message for f in findings(book, good) if f.cell_id == cell_id] == [True]


def test_an_invisible_character_in_a_caption_is_named(book, good):
    figure = {"figure": {"name": "fig-loss", "caption": "步长 $\theta$"}, "image": {"alt": "线"}}
    good["fig-loss"].metadata["mystnb"] = figure
    assert ["少了一道转义" in finding.message for finding in findings(book, good)] == [True]


def test_wide_spaces_and_chinese_punctuation_are_visible(book, good):
    good["title"].source += "\n\n全角\u3000空格，$\\theta$、“引号”……都看得见。"
    assert findings(book, good) == []


def test_plain_numbers_and_slices_are_repeatable(book, good):
    text = "tensor([0.1234, 5.0000]) x[10:20] 1/2 torch.Size([3, 4]) 89.00%\n"
    good["c048-transpose"].outputs = [new_output("stream", name="stdout", text=text)]
    assert findings(book, good) == []


@pytest.mark.parametrize("broken", ["name", "caption", "alt"])
def test_a_figure_needs_name_caption_and_chinese_alt(book, good, broken):
    figure = {key: dict(value) for key, value in FIGURE.items()}
    figure["image" if broken == "alt" else "figure"][broken] = "loss"
    good["fig-loss"].metadata["mystnb"] = figure
    assert [finding.cell_id for finding in findings(book, good)] == ["fig-loss"]


def test_the_first_code_cell_must_be_the_setup(book, good):
    del good["setup"]
    assert findings(book, good)[0].message.startswith("第一个代码单元应是准备单元")


def test_a_lost_exercise_cell_is_named(book, good):
    del good["exercise"]
    assert {finding.cell_id for finding in findings(book, good)} == {
        "ex-row-means-try",
        "sol-row-means",
    }


OPEN = ":::{exercise} 开放 · 15 分钟\n:label: ex-open\n:class: m15\n换一把尺子试试。\n:::"


def test_an_exercise_may_have_a_title_after_its_directive(book, good):
    good["exercise"].source = EXERCISE.replace("{exercise-start}", "{exercise-start} 代码 · 5 分钟")
    assert findings(book, good) == []


def test_an_open_exercise_needs_no_check_and_may_be_solved(book, good, cell, text):
    good["open"] = text("open", OPEN)
    assert findings(book, good) == []
    good["open-start"] = text("open-start", ":::{solution-start} ex-open\n:class: dropdown\n:::")
    good["sol-open"] = cell("sol-open", "print(1)")
    good["open-end"] = text("open-end", ":::{solution-end}\n:::")
    assert findings(book, good) == []
    del good["sol-open"]
    (finding,) = findings(book, good)
    assert finding.cell_id == "open" and "开放题 ex-open 只能有解答" in finding.message


def test_the_checkers_of_a_long_chapter_may_be_a_package(book, good):
    (book.root / "src/companion/book/exercises/ch01.py").unlink()
    book.write(
        "src/companion/book/exercises/ch01/_a.py", "def row_means(answer):\n    return None\n"
    )
    assert findings(book, good) == []


def test_a_checker_that_does_not_exist_is_named(book, good):
    book.write("src/companion/book/exercises/ch01.py", "def other(answer):\n    return None\n")
    (finding,) = findings(book, good)
    assert "没有 ch01.row_means" in finding.message


def test_the_checkers_of_a_chapter_may_be_a_package(book, good):
    book.write("src/companion/book/exercises/ch01.py", "")
    book.write("src/companion/book/exercises/ch01/_rows.py", "def row_means(answer): ...\n")
    assert findings(book, good) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('text = "96 MB"', 'text = "96 MB"\ncorrect = true', "恰好 1 个正确"),
        ("correct = true", "correct = false", "恰好 1 个正确"),
        ('reason = "那是复制。"', "", "第 2 个 options 的 reason 没有写"),
        ('default = "还不对。"', "", "default 没有写"),
        ('answers = ["(3,)"]', 'answers = "ab"', "answers 应是一列文字"),
        ('kind = "typed"', 'kind = "type"', "kind 应为 'choice' 或 'typed'"),
        ("[quizzes]", "[extra]", "不是认识的字段"),
        ('reason = "那是列。"', "", "第 1 个 wrong 的 reason 没有写"),
        ('question = "形状？"', "", "question 没有写"),
        ('one = ["bytes", "shape"]', 'one = ["shape"]', "章里没有用到它"),
    ],
)
def test_a_bad_bet_is_named(book, good, old, new, message):
    book.write("src/companion/book/bets/ch01.toml", BETS.replace(old, new))
    found = findings(book, good)
    assert any(message in finding.message for finding in found), found
    assert {finding.cell_id.partition(":")[0] for finding in found} == {"bets/ch01.toml"}


def test_every_bad_bet_is_named_at_once(book, good):
    broken = BETS.replace('default = "还不对。"', "").replace("correct = true", "correct = 5")
    book.write("src/companion/book/bets/ch01.toml", broken)
    assert [finding.cell_id for finding in findings(book, good)] == [
        "bets/ch01.toml:bytes",
        "bets/ch01.toml:shape",
    ]


@pytest.mark.parametrize("broken", ["=", "x = " + "[" * 5000])
def test_an_unreadable_bets_file_is_named_without_a_traceback(book, good, capsys, broken):
    book.write("src/companion/book/bets/ch01.toml", broken)
    book.chapter("01_tensors", *good.values())
    assert main([], book.root) == 1
    assert "ch01.toml 应是 UTF-8 的 TOML 文件" in capsys.readouterr().err


def test_ignoring_outputs_is_rare_and_reasoned(book, good, cell):
    for number in range(15):
        good[f"filler-{number}a"] = cell(f"filler-{number}a", "1")
    good["ignored"] = cell("ignored", "# 版本号随机器而变\nprint(1)", "nbval-ignore-output")
    assert findings(book, good) == []
    good["ignored"].source = "print(1)"
    assert "写理由" in findings(book, good)[0].message
    good["again"] = cell("again", "1", "nbval-ignore-output", nbval_reason="同上")
    assert any("应少于 5%" in finding.message for finding in findings(book, good))


def test_a_forgotten_chapter_is_named(book, good, capsys):
    book.chapter("01_tensors", *good.values())
    (book.root / "chapters" / "02_lost.ipynb").write_bytes(
        (book.root / "chapters" / "01_tensors.ipynb").read_bytes()
    )
    assert main([], book.root) == 1
    assert "02_lost:（全章）: 没有列进 _toc.yml" in capsys.readouterr().out
