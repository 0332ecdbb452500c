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
    "companion.checkpoint": [
        *("FORMAT", "Save", "check_matches", "clean", "export_weights", "import_weights"),
        *("load_checkpoint", "newest_good", "plain", "prune", "save_checkpoint", "saves"),
        *("staging", "verify"),
    ],
    "companion.checkpoint.dcp": [
        *("empty_shard", "put_shards", "read_shapes", "read_tensors", "take_shards"),
        "write_tensors",
    ],
    "companion.checkpoint.disk": [
        *("FileRecord", "HashingFile", "hash_file", "make_folder", "sync_directory"),
        "sync_file",
    ],
    "companion.checkpoint.folder": ["TEMPORARY", "clean", "next_name", "prune", "saves"],
    "companion.checkpoint.manifest": [
        *("ADVICE", "FORMAT", "MANIFEST", "Manifest", "file_names", "looks_whole", "read_info"),
        "verify",
        "write_manifest",
    ],
    "companion.checkpoint.reading": ["Save", "load_checkpoint", "newest_good"],
    "companion.checkpoint.sharded": [
        *("is_sharded", "load_sharded", "load_sharded_weights", "save_sharded"),
    ],
    "companion.checkpoint.values": ["plain"],
    "companion.checkpoint.weights": ["check_matches", "export_weights", "import_weights"],
    "companion.checkpoint.writing": ["STATE", "save_checkpoint", "staging"],
    "companion.data": [],
    "companion.data.augment": [
        *("Compose", "Normalize", "RandomCrop", "RandomErase", "RandomFlip", "Transform"),
        "as_compose",
    ],
    "companion.data.digits": ["Digits", "digits_split", "load_digits"],
    "companion.data.download": ["alone", "data_folder", "download", "matches"],
    "companion.data.fetch": ["Failed", "Meter", "fetch"],
    "companion.data.index_loader": ["ByIndex", "IndexLoader"],
    "companion.data.loaders": ["Data", "Loader", "loaders"],
    "companion.data.sampler": ["EpochSampler", "generator", "mix"],
    "companion.data.tensor_loader": ["TensorLoader"],
    "companion.data.vision": ["cifar10", "fashion_mnist", "mnist"],
    "companion.device": [
        *("device_name", "model_device", "pick_device", "synchronize", "to_device"),
        "widest_float",
    ],
    "companion.distributed": [],
    "companion.distributed.init": ["init", "shutdown"],
    "companion.distributed.launch": ["launch"],
    "companion.distributed.ranks": [
        *("any_rank", "barrier", "gather_objects", "is_distributed", "is_main", "rank"),
        "world_size",
    ],
    "companion.distributed.wrap": ["all_finite", "defer_sync", "local_part", "unwrap", "wrap"],
    "companion.errors": [
        *("ArgumentError", "CheckpointError", "CompanionError", "CorruptCheckpointError"),
        *("DataError", "DownloadError", "DtypeError", "LaunchError", "MismatchError"),
        *("NewerFormatError", "NonFiniteError", "RunError", "ShapeError"),
        *("check_choice", "check_labels", "check_shape", "check_targets"),
    ],
    "companion.exercise": ["Verdict", "Wrong", "check", "grade"],
    "companion.exercises": [],
    "companion.history": ["History"],
    "companion.metrics": [
        *("AUC", "F1", "Accuracy", "ConfusionMatrix", "Mean", "Metric", "Perplexity"),
    ],
    "companion.metrics.classes": ["F1", "Accuracy", "ConfusionMatrix"],
    "companion.metrics.mean": ["Mean", "Perplexity"],
    "companion.metrics.protocol": ["Metric"],
    "companion.metrics.ranking": ["AUC"],
    "companion.models": [],
    "companion.models.cnn": ["SmallCNN"],
    "companion.models.gpt": ["GPT", "Block", "CausalAttention"],
    "companion.models.lenet": ["LeNet"],
    "companion.models.mlp": ["MLP"],
    "companion.models.resnet": ["BasicBlock", "ResNet"],
    "companion.models.rnn": ["LSTM", "LSTMCell", "RNNClassifier"],
    "companion.optim": ["EMA", "LAMB", "decay_groups"],
    "companion.plot": ["bars", "confusion", "curves", "heatmap", "image_grid", "use_chinese_font"],
    "companion.profile": [
        *("Memory", "Op", "OpTable", "Timing", "measure", "memory", "op_table"),
    ],
    "companion.progress": ["Counted", "Progress", "numbers", "size"],
    "companion.rehearse": ["dry_run", "overfit_one_batch"],
    "companion.repro": [
        *("Environment", "environment", "random_state", "restore_random_state"),
        "seed_everything",
    ],
    "companion.run": ["NoRun", "Run"],
    "companion.run.files": ["Board", "versions", "write_card", "write_csv"],
    "companion.run.held": ["Contents", "reachable", "restore", "sources", "states"],
    "companion.run.given": ["check_stateful"],
    "companion.run.lock": ["Lock"],
    "companion.run.loop": ["Loop"],
    "companion.run.norun": ["NoRun"],
    "companion.run.order": [
        "Inexact",
        "announce",
        "batch_size",
        "can_skip",
        "fingerprint",
        "length",
        "own_contents",
        "own_sources",
        "start",
        "why_changed",
    ],
    "companion.run.parts": [
        "check",
        "check_names",
        "check_optimizers",
        "class_name",
        "describe",
        "hand_over",
        "is_split",
        "is_used",
        "load",
        "load_weights",
        "models",
        "optimizers",
        "parameters",
        "rate_homes",
        "scalars",
        "state",
    ],
    "companion.run.position": ["Call", "Position"],
    "companion.run.probe": ["why_inexact", "why_shifted"],
    "companion.run.records": ["Records"],
    "companion.run.run": ["Run"],
    "companion.run.session": ["Session", "say"],
    "companion.run.signals": ["Signals"],
    "companion.run.steps": ["Steps"],
    "companion.run.store": ["Store"],
    "companion.run.sums": ["LogSums", "averages"],
    "companion.run.watch": ["Watch", "models_finite"],
    "companion.run.words": [
        "all_corrupt",
        "already_used",
        "another_world",
        "best_is_gone",
        "best_not_kept",
        "continues",
        "differences",
        "finished",
        "forgotten",
        "inexact",
        "left",
        "made_again",
        "misplaced",
        "no_best",
        "no_column",
        "not_finite",
        "not_saved",
        "nothing_changed",
        "ran_twice",
        "received",
        "resumes_broken",
        "unusable",
        "use_average",
        "which_mode",
    ],
    "companion.schedule": [
        *("PerStep", "constant", "one_cycle", "step_decay", "warmup_cosine", "warmup_linear"),
    ],
    "companion.show": ["error_of", "show_source"],
    "companion.step": [
        *("PRECISIONS", "Loss", "Record", "Step", "StepOut", "eval_mode", "make_forward"),
    ],
    "companion.totals": ["EMPTY", "Totals"],
    "companion.update": ["Update"],
    "companion.summary": ["Layer", "Summary", "summary"],
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
