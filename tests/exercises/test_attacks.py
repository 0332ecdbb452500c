"""检查器扛得住攻击：每一章、每一题、整张清单；新加的检查器不必登记，自动在内。"""

import importlib
import runpy
from functools import partial
from pathlib import Path

import pytest
import torch

import companion.book.exercises
from companion.book._exercise import _checkers, grade
from tests.exercises.attacks import Inputs, Spec, attacks, state
from tests.exercises.solutions import section_function, solutions

HERE = Path(__file__).parent
MODULES = Path(companion.book.exercises.__file__).parent.glob("ch*")  # 一个文件或一个包
CHAPTERS = sorted(path.stem for path in MODULES)
EXERCISES = [
    (chapter, title)
    for chapter in CHAPTERS
    for title in _checkers(importlib.import_module(f"companion.book.exercises.{chapter}"))
]
every_exercise = pytest.mark.parametrize(("chapter", "title"), EXERCISES)


def spec_of(chapter, title):
    path = HERE / f"specs_{chapter}.py"
    declared = runpy.run_path(str(path))["SPECS"] if path.exists() else {}
    assert set(declared) <= {title for where, title in EXERCISES if where == chapter}
    return declared.get(title, Spec())


def outcomes(chapter, title):
    """打中了的攻击，每次一项：`(名字, 应判对吗, 判决)`。"""
    solution, spec = solutions(chapter)[title], spec_of(chapter, title)
    for attack in attacks(solution, spec, partial(section_function, chapter)):
        before = state()
        verdict = grade(f"{chapter}.{title}", attack.answer)
        assert state() == before, f"「{attack.name}」之后，判题留下了状态"
        if attack.landed:
            yield attack.name, attack.right, verdict


@every_exercise
def test_the_checker_tells_right_from_wrong_under_every_attack(chapter, title):
    skip, failed, landed = spec_of(chapter, title).skip, [], 0
    for name, right, verdict in outcomes(chapter, title):
        landed += 1
        as_expected = (verdict.status == "right") == right and "检查时出错" not in verdict.text
        if name in skip:
            print(f"{chapter}.{title} 跳过「{name}」：{skip[name]}")
            assert not as_expected, f"「{name}」不必跳过"
        elif not as_expected:
            failed.append(f"「{name}」应判{'对' if right else '错'}，得到：{verdict.text}")
    assert failed == []
    assert landed > 5, "攻击几乎都没有打中"


@every_exercise
def test_the_inputs_fed_to_a_solution_can_tell_a_wrong_one(chapter, title):
    solution, skip = solutions(chapter)[title], spec_of(chapter, title).skip
    if not callable(solution):
        return
    seen = Inputs(solution)
    assert grade(f"{chapter}.{title}", seen).status == "right"
    assert [weakness for weakness in seen.weak() if weakness not in skip] == []


@every_exercise
def test_a_blank_answer_is_not_yet_answered(chapter, title):
    def unwritten(*args, **kwargs): ...

    blanks = [..., (1, ...), [[...]]]
    if callable(solutions(chapter)[title]):
        blanks += [unwritten, lambda *args: ..., lambda *args: (1, ...)]
    assert {grade(f"{chapter}.{title}", blank).status for blank in blanks} == {"todo"}


@every_exercise
def test_none_is_an_answer_and_wrong(chapter, title):
    def no_return(*args, **kwargs):
        args = args[:1]

    answers = [None]
    if callable(solutions(chapter)[title]):
        answers += [no_return, lambda *args: print()]
    verdicts = [grade(f"{chapter}.{title}", answer) for answer in answers]
    assert {verdict.status for verdict in verdicts} == {"wrong"}
    assert all("None" in verdict.text for verdict in verdicts), verdicts


@every_exercise
def test_every_refusal_of_a_strange_answer_is_one_line_of_its_own(chapter, title):
    strange = ["abc", 7.5, [], {}, (), torch.zeros(0), object(), [None], len, torch.zeros(2, 2)]
    texts = [grade(f"{chapter}.{title}", answer).text for answer in strange]
    assert all(text.startswith("✗ ") and "\n" not in text for text in texts), texts
    assert not any("检查时出错" in text for text in texts), texts


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_checker_has_a_solution_in_its_chapter(chapter):
    assert {title for where, title in EXERCISES if where == chapter} == set(solutions(chapter))
