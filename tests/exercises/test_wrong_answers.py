"""检查器分得清对错：每题至少两种典型错误，各得到各的话。"""

import importlib
import runpy
from pathlib import Path
from typing import Any

import pytest

from companion.book._exercise import _checkers, grade

HERE = Path(__file__).parent
CHAPTERS = sorted(path.stem for path in HERE.glob("ch*.py"))


def module_of(chapter: str) -> dict[str, Any]:
    return runpy.run_path(str(HERE / f"{chapter}.py"))


def wrong_answers(chapter: str) -> dict[str, list[object]]:
    return module_of(chapter)["WRONG"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_checker_has_at_least_two_typical_mistakes(chapter):
    module = importlib.import_module(f"companion.book.exercises.{chapter}")
    wrong = wrong_answers(chapter)
    assert set(wrong) == set(_checkers(module))
    assert all(len(answers) >= 2 for answers in wrong.values())


@pytest.mark.parametrize(
    ("chapter", "name"), [(c, name) for c in CHAPTERS for name in wrong_answers(c)]
)
def test_each_mistake_is_refused_with_a_text_of_its_own(chapter, name):
    verdicts = [grade(f"{chapter}.{name}", answer) for answer in wrong_answers(chapter)[name]]
    assert [verdict.status for verdict in verdicts] == ["wrong"] * len(verdicts), verdicts
    texts = [verdict.text for verdict in verdicts]
    assert len(set(texts)) == len(texts), texts
    assert not any("出错" in text for text in texts), texts


@pytest.mark.parametrize(
    ("chapter", "title", "answer", "named", "unsaid"),
    [(chapter, *row) for chapter in CHAPTERS for row in module_of(chapter).get("NAMED", [])],
)
def test_the_refusal_names_the_very_mistake(chapter, title, answer, named, unsaid):
    verdict = grade(f"{chapter}.{title}", answer)
    assert verdict.status == "wrong"
    assert named in verdict.text and unsaid not in verdict.text, verdict.text
