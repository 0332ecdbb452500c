"""公开的名字都在这张表上：多一个、少一个，都要在这里看得见。文件夹里的模块是内部的，不在表上。"""

import importlib
import inspect
import pkgutil
import re

import pytest

import companion

EXPORTS = {
    "companion": ["__book__", "__version__"],
    "companion.__main__": ["report"],
    "companion.book": [
        "Widget",
        "bet",
        "bowl",
        "broadcasting",
        "check",
        "deception",
        "error_of",
        "explain",
        "indexing",
        "ledger",
        "quiz",
        "secants",
        "show_source",
        "strides",
    ],
    "companion.checkpoint": [
        "FORMAT",
        "Save",
        "check_matches",
        "clean",
        "export_weights",
        "import_weights",
        "is_sharded",
        "load_checkpoint",
        "load_sharded",
        "load_sharded_weights",
        "newest_good",
        "plain",
        "prune",
        "read_info",
        "save_checkpoint",
        "save_sharded",
        "saves",
        "verify",
    ],
    "companion.data": [
        "Compose",
        "Digits",
        "EpochSampler",
        "IndexLoader",
        "Normalize",
        "RandomCrop",
        "RandomErase",
        "RandomFlip",
        "TensorLoader",
        "cifar10",
        "data_folder",
        "digits_split",
        "download",
        "fashion_mnist",
        "load_digits",
        "loaders",
        "mnist",
        "random_in_samples",
    ],
    "companion.device": [
        "device_name",
        "model_device",
        "pick_device",
        "synchronize",
        "to_device",
        "widest_float",
    ],
    "companion.distributed": [
        "all_finite",
        "any_rank",
        "bare_parameters",
        "bare_state",
        "barrier",
        "defer_sync",
        "gather_objects",
        "init",
        "is_distributed",
        "is_fully_sharded",
        "is_main",
        "is_wrapped",
        "launch",
        "load_bare",
        "local_part",
        "on_main",
        "rank",
        "say",
        "shutdown",
        "unwrap",
        "world_size",
        "wrap",
    ],
    "companion.errors": [
        "ArgumentError",
        "CheckpointError",
        "CompanionError",
        "CorruptCheckpointError",
        "DataError",
        "DownloadError",
        "DtypeError",
        "LaunchError",
        "MismatchError",
        "NewerFormatError",
        "NonFiniteError",
        "RunError",
        "ShapeError",
        "check_choice",
        "check_labels",
        "check_same_shape",
        "check_shape",
        "check_whole",
        "printable",
    ],
    "companion.measure": [
        "Layer",
        "Memory",
        "Op",
        "OpTable",
        "Summary",
        "Timing",
        "measure",
        "memory",
        "op_table",
        "summary",
    ],
    "companion.metrics": [
        "AUC",
        "F1",
        "MAE",
        "R2",
        "Accuracy",
        "ConfusionMatrix",
        "History",
        "Mean",
        "Metric",
        "Perplexity",
        "Precision",
        "Recall",
    ],
    "companion.models": [
        "GPT",
        "LSTM",
        "MLP",
        "BasicBlock",
        "Block",
        "CausalAttention",
        "LSTMCell",
        "LeNet",
        "RNNClassifier",
        "ResNet",
        "SmallCNN",
    ],
    "companion.optim": [
        "EMA",
        "LAMB",
        "PerStep",
        "UpdateCounter",
        "check_scheduler",
        "constant",
        "decay_groups",
        "one_cycle",
        "schedule_kind",
        "schedule_total",
        "step_decay",
        "warmup_cosine",
        "warmup_linear",
    ],
    "companion.plot": [
        "bars",
        "confusion",
        "curves",
        "heatmap",
        "history",
        "image_grid",
        "use_chinese_font",
    ],
    "companion.repro": [
        "Environment",
        "RandomSource",
        "environment",
        "generator_state",
        "random_state",
        "restore_generator_state",
        "restore_random_state",
        "seed_everything",
        "versions",
    ],
    "companion.run": ["Run"],
    "companion.train": [
        "EpochMeans",
        "History",
        "StepOut",
        "Update",
        "dry_run",
        "evaluate",
        "fit",
        "overfit_one_batch",
        "train_epoch",
    ],
}
HAN = re.compile("[一-鿿]")


def modules():
    found = [m.name for m in pkgutil.iter_modules(companion.__path__, "companion.")]
    return ["companion", *[name for name in found if not name.endswith("._common")]]


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
