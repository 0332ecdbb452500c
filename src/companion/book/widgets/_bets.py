"""先猜（bet）与小测（quiz）：把题目变成能点的 HTML 和能读的文字。"""

from html import escape
from string import ascii_uppercase
from typing import Literal

from companion.book.widgets._html import Widget, inline
from companion.book.widgets._questions import Bet, Option, find_bet, find_quiz
from companion.errors import check_choice

TAG = '<span class="cw-tag">先猜</span> '
TITLES = {
    "before": "先押 {n} 题。只记下，不给答案；章末再押一次。",
    "after": "同样的 {n} 题，再押一次。这回当场给答案。",
    None: "小测：{n} 题",
}


def bet(name: str) -> Widget:
    """一道先猜：点一个选项或写下答案，当场说对不对、为什么；浏览器会记住第一次押的。

    Args:
        name: 题名，如 ``"ch01.transpose-bytes"``。

    Raises:
        ArgumentError: 没有这道题；消息里列出相近的题名。
    """
    question = find_bet(name)
    body = (
        f'<div class="cw cw-bet" data-widget="bet" data-name="{escape(name)}"'
        f'{_default(question)} data-lm-suppress-shortcuts="true">\n'
        f"{_fieldset(question, TAG)}\n{_reasons(question)}\n</div>"
    )
    return Widget("bet", body, f"先猜：{_plain(question)}")


def quiz(name: str, when: Literal["before", "after"] | None = None) -> Widget:
    """一组题。``"before"`` 只记不判，``"after"`` 当场判并与开头比较，``None`` 是普通小测。

    Args:
        name: 小测名，如 ``"ch01.ten"``。
        when: 章首、章末，还是单独的小测。

    Raises:
        ArgumentError: 没有这个小测，或 when 不是这三者之一。
    """
    check_choice("when", when, list(TITLES))
    questions = find_quiz(name)
    title = TITLES[when].format(n=len(questions))
    items = "\n".join(_quiz_item(key, question, when) for key, question in questions.items())
    body = (
        f'<div class="cw cw-quiz" data-widget="quiz" data-name="{escape(name)}"'
        f' data-when="{when or ""}" role="group" aria-label="{title}"'
        ' data-lm-suppress-shortcuts="true">\n'
        f'<p class="cw-title">{title}</p>\n<ol>\n{items}\n</ol>\n</div>'
    )
    lines = [f"{i}. {_plain(question)}" for i, question in enumerate(questions.values(), 1)]
    return Widget("bet", body, "\n".join([title, *lines]))


def _quiz_item(key: str, question: Bet, when: str | None) -> str:
    """小测里的一题；章首那次连答案也不写进页面。"""
    fieldset = _fieldset(question, "")
    reasons = "" if when == "before" else _reasons(question)
    return (
        f'<li class="cw-bet" data-bet="{escape(key)}"{_default(question)}>{fieldset}{reasons}</li>'
    )


def _fieldset(bet: Bet, mark: str) -> str:
    """题目和作答处。脚本把列表换成按钮，把空行换成输入框。"""
    if bet.typed:
        place = f'<p class="cw-blank" data-placeholder="{escape(bet.placeholder)}">＿＿＿＿</p>'
    else:
        items = "".join(
            f'<li data-text="{escape(o.text)}">{inline(o.text)}</li>' for o in bet.options
        )
        place = f'<ul class="cw-options">{items}</ul>'
    return f"<fieldset><legend>{mark}{inline(bet.question)}</legend>{place}</fieldset>"


def _reasons(bet: Bet) -> str:
    """折起来的答案和理由：脚本靠它判断，没有脚本时读者自己打开看。"""
    items = "".join(f"<li{_facts(option)}>{_reason(option)}</li>" for option in bet.options)
    return (
        '<details class="cw-reasons"><summary>猜好了再打开：答案和每一项的理由</summary>'
        f"<ul>{items}</ul></details>"
    )


def _facts(option: Option) -> str:
    return f' data-text="{escape(option.text)}"' + (" data-correct" if option.correct else "")


def _reason(option: Option) -> str:
    lead = f"<b>{'✓' if option.correct else '✗'} {inline(option.text)}</b>："
    return f'{lead}<span class="cw-reason">{inline(option.reason)}</span>'


def _default(bet: Bet) -> str:
    return f' data-default="{escape(inline(bet.default))}"' if bet.typed else ""


def _plain(bet: Bet) -> str:
    """终端里的题目：没有答案。"""
    if bet.typed:
        return f"{bet.question}\n   （写下答案，{bet.placeholder or '一行字'}）"
    options = zip(ascii_uppercase, bet.options, strict=False)
    return "\n".join([bet.question, *(f"   {letter}. {o.text}" for letter, o in options)])
