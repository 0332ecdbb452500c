"""题库：从 `companion/book/bets/*.toml` 读题并核对，一章一个文件。

选择题写成 `[题名]`、`question` 和若干 `[[题名.options]]`（text、reason；对的那项 correct = true）；
填空题写成 `kind = "typed"`、`answers`、`reason`、`default`，可加 `[[题名.wrong]]`（text、reason）；
小测写在 `[quizzes]` 里：`ten = ["题名", …]`。
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from companion._common import unknown_name
from companion.errors import ArgumentError, DataError

BETS = Path(__file__).parents[1] / "bets"


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


@cache
def load_chapter(path: Path) -> Chapter:
    """一个 TOML 文件里的全部题目和小测，已核对过格式。

    Raises:
        DataError: 缺字段、多字段、正确选项不是恰好一个、选项重复，或小测引用了没有的题。
    """
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    quizzes = {name: tuple(names) for name, names in tables.pop("quizzes", {}).items()}
    bets = {name: _bet(f"{path.name} 的 [{name}]", table) for name, table in tables.items()}
    for quiz, names in quizzes.items():
        missing = [name for name in names if name not in bets]
        if missing or len(set(names)) < len(names):
            raise DataError(
                f"{path.name} 的小测 {quiz} 应引用本文件里互不相同的题，{missing} 没有找到。"
            )
    return Chapter(bets, quizzes)


def find_bet(name: str) -> Bet:
    """题名（如 ``"ch01.transpose-bytes"``）对应的题目；没有就抛出列出相近名字的 ArgumentError。"""
    chapter, _, title = name.partition(".")
    bets = _chapter(chapter).bets
    return bets[_known(title, bets, f"{chapter} 里没有 {title!r} 这道题")]


def find_quiz(name: str) -> dict[str, Bet]:
    """小测名（如 ``"ch01.ten"``）对应的题目，按题目的次序；没有就抛出 ArgumentError。"""
    chapter, _, title = name.partition(".")
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


def _bet(where: str, table: dict[str, Any]) -> Bet:
    typed = table.get("kind", "choice") == "typed"
    return _typed_bet(where, table) if typed else _choice_bet(where, table)


def _choice_bet(where: str, table: dict[str, Any]) -> Bet:
    _check_keys(where, table, {"question", "options"}, {"kind"})
    for option in table["options"]:
        _check_keys(f"{where} 的选项", option, {"text", "reason"}, {"correct"})
    options = tuple(
        Option(o["text"], o.get("correct", False), o["reason"]) for o in table["options"]
    )
    right = sum(option.correct for option in options)
    if right != 1 or len(options) < 2:
        raise DataError(
            f"{where} 应有至少 2 个选项、恰好 1 个正确，实际是 {len(options)} 个、{right} 个。"
        )
    _check_unique(where, options)
    return Bet(table["question"], options)


def _typed_bet(where: str, table: dict[str, Any]) -> Bet:
    required = {"kind", "question", "answers", "reason", "default"}
    _check_keys(where, table, required, {"placeholder", "wrong"})
    wrong = table.get("wrong", [])
    for option in wrong:
        _check_keys(f"{where} 的 wrong", option, {"text", "reason"}, set())
    right = tuple(Option(text, True, table["reason"]) for text in table["answers"])
    options = right + tuple(Option(o["text"], False, o["reason"]) for o in wrong)
    if not right:
        raise DataError(f"{where} 的 answers 至少要有一个答案，实际是空的。")
    _check_unique(where, options)
    return Bet(table["question"], options, True, table.get("placeholder", ""), table["default"])


def _check_keys(where: str, table: dict[str, Any], required: set[str], optional: set[str]) -> None:
    keys = {key for key, value in table.items() if value != ""}
    if missing := required - keys:
        raise DataError(f"{where} 缺 {'、'.join(sorted(missing))}，或是空的；请补上。")
    if extra := keys - required - optional:
        raise DataError(f"{where} 不认识 {'、'.join(sorted(extra))}；请核对拼写。")


def _check_unique(where: str, options: tuple[Option, ...]) -> None:
    texts = [option.text for option in options]
    if len(set(texts)) < len(texts):
        raise DataError(f"{where} 的选项应互不相同，实际是 {texts}；请改掉重复的。")
