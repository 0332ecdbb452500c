"""每道先猜标为正确的那个答案，就是 torch 算出来的那个。"""

import importlib.util
from functools import cache
from pathlib import Path

import pytest

from companion.widgets.questions import BETS, load_chapter

HERE = Path(__file__).parent
CHAPTERS = sorted(path.stem for path in BETS.glob("*.toml"))


@cache
def computed(chapter):
    """这一章的 `answers_chNN.py`：ANSWERS 是算出的答案，JUDGED、MEASURED 是没有定值的题。"""
    spec = importlib.util.spec_from_file_location(chapter, HERE / f"answers_{chapter}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_bet_has_a_computed_answer_or_is_named_as_having_none(chapter):
    module = computed(chapter)
    exempt = module.JUDGED | module.MEASURED
    assert set(load_chapter(BETS / f"{chapter}.toml").bets) == set(module.ANSWERS) | exempt
    assert not exempt & set(module.ANSWERS)


@pytest.mark.parametrize(
    ("chapter", "name"), [(c, name) for c in CHAPTERS for name in computed(c).ANSWERS]
)
def test_the_answer_marked_correct_is_the_one_torch_gives(chapter, name):
    bet = load_chapter(BETS / f"{chapter}.toml").bets[name]
    assert computed(chapter).ANSWERS[name] in [o.text for o in bet.options if o.correct]
