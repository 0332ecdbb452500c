"""题库：从 `companion/book/bets/*.toml` 读题并核对，一章一个文件。

选择题写成 `[题名]`、`question` 和若干 `[[题名.options]]`（text、reason；对的那项 correct = true；
最顺手会选的那项 naive = true，只给检查用）；
填空题写成 `kind = "typed"`、`answers`、`reason`、`default`，可加 `placeholder` 和
`[[题名.wrong]]`（text、reason）；小测写在 `[quizzes]` 里：`ten = ["题名", …]`。

怎样才算写对，只在 `problems` 里规定；读题和 `tools/nb_lint.py` 用的都是它。
"""

import re
import tomllib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, NamedTuple, TypeGuard

from companion._common import unknown_name
from companion.book._names import split_name
from companion.errors import ArgumentError, DataError

BETS = Path(__file__).parents[1] / "bets"

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_BAD_NAME = "名字应只有英文字母、数字、- 和 _；请改名。"
_LOOSE = re.compile(r"[\s`]")
_SIZE = re.compile(r"torch\.size\(\[(.*)\]\)")
_LAST_COMMA = re.compile(r",(?=[)\]]|\Z)")
_NUMBERS = re.compile(r"-?[0-9]+(,-?[0-9]+)+")


@dataclass(frozen=True)
class Option:
    """一种回答：文字、对不对、为什么。"""

    text: str
    correct: bool
    reason: str


@dataclass(frozen=True)
class Bet:
    """一道题。`typed` 为真时 `options` 是认得的回答，别的回答都用 `default` 回复。"""

    question: str
    options: tuple[Option, ...]
    typed: bool = False
    placeholder: str = ""
    default: str = ""


@dataclass(frozen=True)
class Chapter:
    """一章的题库：题名到题目，小测名到题名。"""

    bets: Mapping[str, Bet]
    quizzes: Mapping[str, tuple[str, ...]]


class Problem(NamedTuple):
    """一处写错：哪道题（或小测），错在哪、怎么改。"""

    name: str
    text: str


@cache
def load_chapter(path: Path) -> Chapter:
    """一个 TOML 文件里的全部题目和小测，已核对过格式。

    Raises:
        DataError: 读不出来，或有一处不合 `problems` 的规定；消息里是文件、题名和字段。
    """
    tables = read_tables(path)
    for problem in problems(tables):
        raise DataError(f"{path.name} 的 [{problem.name}]：{problem.text}")
    quizzes = {name: tuple(names) for name, names in tables.pop("quizzes", {}).items()}
    return Chapter({name: _bet(table) for name, table in tables.items()}, quizzes)


def find_bet(name: str) -> Bet:
    """题名（如 ``"ch01.transpose-bytes"``）对应的题目；没有就抛出列出相近名字的 ArgumentError。"""
    chapter, title = split_name(name)
    bets = _chapter(chapter).bets
    return bets[_known(title, bets, f"{chapter} 里没有 {title!r} 这道题")]


def find_quiz(name: str) -> dict[str, Bet]:
    """小测名（如 ``"ch01.ten"``）对应的题目，按题目的次序；没有就抛出 ArgumentError。"""
    chapter, title = split_name(name)
    content = _chapter(chapter)
    names = content.quizzes[_known(title, content.quizzes, f"{chapter} 里没有 {title!r} 这个小测")]
    return {bet: content.bets[bet] for bet in names}


def _chapter(name: str) -> Chapter:
    files = {path.stem: path for path in sorted(BETS.glob("*.toml"))}
    return load_chapter(files[_known(name, files, f"没有 {name!r} 这一章的题库")])


def _known(name: str, names: Collection[str], problem: str) -> str:
    if name in names:
        return name
    raise ArgumentError(unknown_name(problem, name, names))


def _bet(table: dict[str, Any]) -> Bet:
    """核对过的一张表变成一道题。"""
    if table.get("kind") != "typed":
        rows = table["options"]
        options = [Option(row["text"], row.get("correct", False), row["reason"]) for row in rows]
        return Bet(table["question"], tuple(options))
    options = [Option(text, True, table["reason"]) for text in table["answers"]]
    options += [Option(row["text"], False, row["reason"]) for row in table.get("wrong", [])]
    placeholder = table.get("placeholder", "")
    return Bet(table["question"], tuple(options), True, placeholder, table["default"])


def read_tables(path: Path) -> dict[str, Any]:
    """TOML 文件的内容，还没有核对；读不出来就抛出 DataError。"""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # 语法、编码、位数太多都是 ValueError
        raise DataError(f"{path.name} 应是 UTF-8 的 TOML 文件，实际读不出：{error}") from error


def normal(text: str) -> str:
    """填空题的回答化成统一的写法再比较；与 ``_js/bet.js`` 里的 normal 逐字相同。"""
    text = unicodedata.normalize("NFKC", text).replace("、", ",")
    text = _LOOSE.sub("", text).lower()
    if size := _SIZE.fullmatch(text):
        text = f"({size[1]})"
    text = _LAST_COMMA.sub("", text)
    return f"({text})" if _NUMBERS.fullmatch(text) else text


def problems(tables: Mapping[str, Any]) -> Iterator[Problem]:
    """题库里每一处写错，依次给出；一处也没有才算写对。"""
    bets = {name: table for name, table in tables.items() if name != "quizzes"}
    if not bets:
        yield Problem("", "应至少有一道题，实际一道也没有；请补上。")
    for name, table in bets.items():
        yield from (Problem(name, text) for text in _bet_problems(name, table))
    quizzes = tables.get("quizzes", {})
    if not isinstance(quizzes, dict):
        yield Problem(
            "quizzes", f"应写成 小测名 = [题名, …]，实际是 {short_repr(quizzes)}；请改正。"
        )
        return
    for name, members in quizzes.items():
        yield from (
            Problem(f"quizzes.{name}", text) for text in _quiz_problems(name, members, bets)
        )


def _quiz_problems(name: str, members: Any, bets: Collection[str]) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield _BAD_NAME
    expected, fits = _TEXTS
    if not fits(members):
        yield f"小测应是{expected}（都是题名），实际是 {short_repr(members)}；请改正。"
        return
    if missing := [member for member in members if member not in bets]:
        yield f"小测应引用本文件里的题，{missing} 没有找到；请核对拼写。"
    if twice := _repeated(members):
        yield f"小测里的题应互不相同，{twice} 写了不止一次；请删掉多余的。"


def _bet_problems(name: str, table: Any) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield _BAD_NAME
    if not isinstance(table, dict):
        yield f"应是一道题（一张表），实际是 {short_repr(table)}；请核对层次。"
        return
    kind = table.get("kind", "choice")
    if kind not in ("choice", "typed"):
        yield f"kind 应为 'choice' 或 'typed'，实际是 {short_repr(kind)}；请核对拼写。"
        return
    shape, compare = (_TYPED, _typed_problems) if kind == "typed" else (_CHOICE, _choice_problems)
    found = [*_shape_problems("", table, shape)]
    for key, row_shape in _ROWS.items():
        rows = table.get(key)
        if _is_tables(rows):
            for i, row in enumerate(rows, 1):
                found += _shape_problems(f"第 {i} 个 {key} 的 ", row, row_shape)
    yield from found or compare(table)


def _choice_problems(table: Mapping[str, Any]) -> Iterator[str]:
    options = table["options"]
    right = sum(option.get("correct", False) for option in options)
    if right != 1 or len(options) < 2:
        yield f"应有至少 2 个选项、恰好 1 个正确，实际是 {len(options)} 个、{right} 个；请增减。"
    yield from _same_problems([option["text"] for option in options], _look)


def _typed_problems(table: Mapping[str, Any]) -> Iterator[str]:
    texts = [*table["answers"], *(option["text"] for option in table.get("wrong", []))]
    yield from _same_problems(texts, normal)


def _same_problems(texts: list[str], key: Callable[[str], str]) -> Iterator[str]:
    keys = [key(text) for text in texts]
    if empty := [text for text, made in zip(texts, keys, strict=True) if not made]:
        yield f"每个回答都应有字，{empty} 去掉空白、反引号和逗号就空了；请写全。"
    if twice := set(_repeated(keys)):
        same = [text for text, made in zip(texts, keys, strict=True) if made in twice]
        yield f"各个回答应互不相同，{same} 比较起来一样；请改掉重复的。"


def _look(text: str) -> str:
    """选项看上去的样子：反引号看不见，连着的空白只算一个空格。"""
    return " ".join(text.replace("`", "").split())


def _repeated(names: Iterable[str]) -> list[str]:
    names = list(names)
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]


def _is_text(value: Any) -> bool:
    """有字，没有看不见的控制字符；除了反引号里的代码，不认别的记号，``**`` 会照原样显示。"""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and "**" not in re.sub(r"`[^`]*`", "", value)
        and all(char.isprintable() or char in "\n\t\u3000" for char in value)
    )


def _is_tables(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


_Rule = tuple[str, Callable[[Any], bool]]  # 应是什么；怎样才算
_TEXT: _Rule = ("一段文字，不空，没有控制字符和 **", _is_text)
_TEXTS: _Rule = (
    "一列文字，至少一个",
    lambda value: isinstance(value, list) and bool(value) and all(map(_is_text, value)),
)
_FLAG: _Rule = ("true 或 false", lambda value: isinstance(value, bool))
_TABLES: _Rule = ("一列表，每张有 text 和 reason", _is_tables)


class _Shape(NamedTuple):
    """一张表应有的字段：必写的，可写可不写的。"""

    required: Mapping[str, _Rule]
    optional: Mapping[str, _Rule]


_CHOICE = _Shape({"question": _TEXT, "options": _TABLES}, {"kind": _TEXT})
_TYPED = _Shape(
    {"kind": _TEXT, "question": _TEXT, "answers": _TEXTS, "reason": _TEXT, "default": _TEXT},
    {"placeholder": _TEXT, "wrong": _TABLES},
)
_ROWS = {  # 字段里每一行自己的字段
    "options": _Shape({"text": _TEXT, "reason": _TEXT}, {"correct": _FLAG, "naive": _FLAG}),
    "wrong": _Shape({"text": _TEXT, "reason": _TEXT}, {"naive": _FLAG}),
}


def _shape_problems(where: str, table: Mapping[str, Any], shape: _Shape) -> Iterator[str]:
    known = {**shape.required, **shape.optional}
    for key in shape.required:
        if key not in table:
            yield f"{where}{key} 没有写；请补上。"
    for key, value in table.items():
        if key not in known:
            yield f"{where}{short_repr(key)} 不是认识的字段；请核对拼写。"
            continue
        expected, fits = known[key]
        if not fits(value):
            yield f"{where}{key} 应是{expected}，实际是 {short_repr(value)}；请改正。"
