"""每道先猜标为正确的那个答案，就是 torch 算出来的那个。"""

import runpy
from functools import cache
from pathlib import Path

import pytest

from companion.book.widgets._questions import BETS, load_chapter

HERE = Path(__file__).parent
CHAPTERS = sorted(path.stem for path in BETS.glob("*.toml"))


@cache
def computed(chapter):
    """这一章的 `answers_chNN.py`：ANSWERS 是算出的答案，JUDGED、MEASURED 是没有定值的题。"""
    return runpy.run_path(str(HERE / f"answers_{chapter}.py"))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_bet_has_a_computed_answer_or_is_named_as_having_none(chapter):
    names = computed(chapter)
    exempt = names["JUDGED"] | names["MEASURED"]
    assert set(load_chapter(BETS / f"{chapter}.toml").bets) == set(names["ANSWERS"]) | exempt
    assert not exempt & set(names["ANSWERS"])


@pytest.mark.parametrize(
    ("chapter", "name"), [(c, name) for c in CHAPTERS for name in computed(c)["ANSWERS"]]
)
def test_the_answer_marked_correct_is_the_one_torch_gives(chapter, name):
    bet = load_chapter(BETS / f"{chapter}.toml").bets[name]
    assert computed(chapter)["ANSWERS"][name] in [o.text for o in bet.options if o.correct]
