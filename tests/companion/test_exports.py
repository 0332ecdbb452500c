"""公开的名字都在这张表上：多一个、少一个，都要在这里看得见。"""

import importlib
import inspect
import pkgutil
import re

import pytest

import companion

EXPORTS = {
    "companion": ["__book__", "__version__"],
    "companion.__main__": ["report"],
    "companion.data": [],
    "companion.data.digits": ["Digits", "digits_split", "load_digits"],
    "companion.device": [
        *("device_name", "model_device", "pick_device", "synchronize", "to_device"),
        "widest_float",
    ],
    "companion.errors": [
        *("ArgumentError", "CompanionError", "DataError", "DtypeError", "NonFiniteError"),
        *("NotReadyError", "ShapeError"),
        *("check_choice", "check_labels", "check_shape", "check_targets"),
    ],
    "companion.exercise": ["Verdict", "Wrong", "check", "grade"],
    "companion.exercises": [],
    "companion.metrics": ["Accuracy", "ConfusionMatrix", "Mean", "Metric"],
    "companion.models": [],
    "companion.models.cnn": ["SmallCNN"],
    "companion.models.mlp": ["MLP"],
    "companion.plot": ["bars", "confusion", "curves", "heatmap", "image_grid", "use_chinese_font"],
    "companion.repro": ["Environment", "environment", "seed_everything"],
    "companion.show": ["error_of", "show_source"],
    "companion.step": ["Loss", "Record", "Step", "StepOut", "Totals", "make_forward"],
    "companion.timing": ["Timing", "measure"],
    "companion.train": ["History", "StepOut", "evaluate", "fit", "train_epoch"],
    "companion.widgets": ["bet", "broadcasting", "indexing", "quiz", "strides"],
    "companion.widgets.bets": ["bet", "quiz"],
    "companion.widgets.figures": ["broadcasting", "indexing", "strides"],
    "companion.widgets.html": ["Widget", "inline"],
    "companion.widgets.questions": [
        *("Bet", "Chapter", "Option", "find_bet", "find_quiz", "load_chapter"),
    ],
}
WITHOUT_LIST = r"companion\.exercises\.(_common|ch\d\d)"  # 检查器按题名找函数，不列清单
HAN = re.compile("[一-鿿]")


def modules():
    found = [m.name for m in pkgutil.walk_packages(companion.__path__, "companion.")]
    return ["companion", *[name for name in found if not re.fullmatch(WITHOUT_LIST, name)]]


def test_every_module_is_listed_and_every_listed_module_exists():
    assert sorted(modules()) == sorted(EXPORTS)


@pytest.mark.parametrize("name", EXPORTS)
def test_a_module_exports_exactly_the_listed_names(name):
    module = importlib.import_module(name)
    assert getattr(module, "__all__", []) == EXPORTS[name]
    assert [public for public in EXPORTS[name] if not hasattr(module, public)] == []


def documented():
    """公开的函数和类，连同类里公开的方法。"""
    for module_name, names in EXPORTS.items():
        module = importlib.import_module(module_name)
        for name in names:
            obj = getattr(module, name)
            if inspect.isfunction(obj) or inspect.isclass(obj):
                yield f"{module_name}.{name}", obj
            if inspect.isclass(obj):
                for method, function in vars(obj).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{module_name}.{name}.{method}", function


def test_every_public_function_class_and_method_explains_itself_in_chinese():
    silent = [name for name, obj in documented() if not HAN.search(obj.__doc__ or "")]
    assert silent == []
    assert len(list(documented())) > 40
