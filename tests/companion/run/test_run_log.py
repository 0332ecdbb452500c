"""run.log：按 n 加权的平均，读数值的次数，CSV、run.json、TensorBoard。"""

import csv
import importlib.machinery
import json
import math
import sys
import types
from typing import ClassVar

import pytest
import torch
from torch import nn

from companion.errors import ShapeError
from companion.metrics import Mean
from companion.run import Run
from companion.run._log import Log


def averages(log):
    """收尾一轮，返回那一轮的平均。"""
    log.close_epoch(1)
    return {name: value for name, value in log.history.records[-1].items() if name != "epoch"}


def logged(run, values, total=1, **fixed):
    for _ in run.epochs(total):
        for value, n in run.batches(values):
            run.log(n=n, **{"loss": value} | fixed)
    return run.history.records


def test_a_value_is_the_mean_weighted_by_n(tmp_path):
    values = [(torch.tensor(1.0, requires_grad=True), 10), (torch.tensor(4.0), torch.tensor(20))]
    assert logged(Run(tmp_path), values) == [{"epoch": 1, "loss": (1 * 10 + 4 * 20) / 30}]


def test_values_may_be_python_numbers_and_tensors_of_any_dtype_mixed():
    sums = Log(None)
    for value in (1, 2.5, torch.tensor(3, dtype=torch.bfloat16), torch.tensor([[5.5]])):
        sums.add(2, {"x": value}, inside=True)
    assert averages(sums) == {"x": 3.0}


def test_a_long_epoch_is_added_in_float64_in_the_order_of_the_steps():
    values = torch.rand(1000)
    sums = Log(None)
    for value in values:
        sums.add(3, {"x": value}, inside=True)
    total = 0.0
    for value in values.tolist():
        total += value * 3
    assert averages(sums)["x"] == total / 3000


def test_a_sum_saved_half_way_and_continued_has_the_same_bits():
    values = torch.rand(700).unbind()
    whole, first, second = Log(None), Log(None), Log(None)
    for value in values:
        whole.add(1, {"x": value}, inside=True)
    for value in values[:301]:
        first.add(1, {"x": value}, inside=True)
    second.load_state_dict([], [first.state_dict()])
    for value in values[301:]:
        second.add(1, {"x": value}, inside=True)
    assert averages(second) == averages(whole)


def test_the_tensor_is_copied_so_changing_it_afterwards_changes_nothing():
    sums, loss = Log(None), torch.ones(())
    sums.add(1, {"loss": loss}, inside=True)
    loss.mul_(100)
    assert averages(sums) == {"loss": 1.0}


def test_a_step_reads_no_values_back(tmp_path, count_reads):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        batches = run.batches([torch.ones(())] * 300)
        next(batches)

        def steps(batches=batches):
            for loss in batches:
                run.log(loss=loss, n=8)

        assert count_reads(steps) == 0


def test_a_step_must_log_scalars_but_an_epoch_may_log_a_matrix(tmp_path):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        for _ in run.batches([0]):
            with pytest.raises(ShapeError, match=r"loss 应是标量，实际形状是 \(2,\)"):
                run.log(loss=torch.ones(2))
        run.log(confusion=torch.eye(2), note="字", valid_loss=0.25)
    assert list(run.history.records[0]) == ["epoch", "confusion", "note", "valid_loss"]
    assert torch.equal(run.history["confusion"][0], torch.eye(2))


def test_values_logged_before_during_and_after_the_batches_are_one_record(tmp_path):
    run = Run(tmp_path)
    for epoch in run.epochs(2):
        run.log(lr=0.1 * epoch, x=10.0)
        for value in run.batches([1.0, 3.0]):
            run.log(x=value, loss=value)
        run.log(valid_loss=float(epoch))
    assert run.history["x"] == [14 / 3] * 2
    assert run.history["loss"] == [2.0, 2.0]
    assert (run.history["lr"], run.history["valid_loss"]) == ([0.1, 0.2], [1.0, 2.0])


def test_the_epoch_of_the_record_is_the_runs_and_a_record_can_be_logged_whole(tmp_path):
    run = Run(tmp_path)
    for _ in run.epochs(1):
        run.log(epoch=1, train_loss=1 / 3)
        with pytest.raises(ValueError, match="epoch 留给轮次"):
            run.log(epoch=99)
    assert run.history.records == [{"epoch": 1, "train_loss": 1 / 3}]


def test_weights_that_add_up_to_nothing_give_nan():
    sums = Log(None)
    sums.add(0, {"x": 1.0}, inside=True)
    assert math.isnan(averages(sums)["x"])


def test_ranks_are_averaged_by_their_weights_and_equal_means_stay_as_they_are(monkeypatch):
    def two_more(mine):
        return [mine, *({"x": mean(0.1, 1), "y": mean(2.0, 3), "z": torch.ones(2)} for _ in "ab")]

    def mean(value, weight):
        found = Mean()
        found.update(value, weight)
        return found

    monkeypatch.setattr("companion.run._log.gather_objects", two_more)
    sums = Log(None)
    sums.add(1, {"x": 0.1, "y": 1.0, "z": torch.zeros(2)}, inside=False)
    merged = averages(sums)
    assert merged["x"] == 0.1  # (0.1 + 0.1 + 0.1) / 3 不是 0.1
    assert merged["y"] == (1 + 6 + 6) / 7
    assert torch.equal(merged["z"], torch.zeros(2))


def test_a_run_of_nothing_keeps_the_same_record_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(None)
    run.attach(model=nn.Linear(1, 1))
    run.update_config(lr=1)
    assert logged(run, [(1.0, 1), (4.0, 2)], total=2) == [
        {"epoch": 1, "loss": 3.0},
        {"epoch": 2, "loss": 3.0},
    ]
    for _ in run.epochs(9):
        run.stop()
    assert run.epoch == 3
    run.save()
    run.close()
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_nothing_counts_steps_and_stops_at_a_number_of_them():
    run = Run(None)
    for _ in run.epochs(7):
        for _ in run.batches([1, 2, 3]):
            if run.step + 1 >= 7:
                run.stop()
                break
    assert (run.step, run.epoch) == (7, 3)


def test_a_run_of_nothing_gives_the_loader_itself_and_tells_it_the_epoch():
    class Loader(list):
        def set_epoch(self, epoch):
            self.epoch = epoch

    run, loader = Run(None), Loader([1, 2])
    for epoch in run.epochs(3):
        assert list(run.batches(loader)) == [1, 2]
        assert loader.epoch == epoch


# —— 文件


def test_the_csv_has_one_row_per_epoch_and_only_scalars(tmp_path):
    run = Run(tmp_path)
    for epoch in run.epochs(3):
        run.log(loss=1 / epoch, matrix=torch.eye(2), note="甲,乙")
        if epoch == 2:
            run.log(late=7)
    with (tmp_path / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "note", "late"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["loss"]) for row in rows] == run.history["loss"]
    assert [row["late"] for row in rows] == ["", "7.0", ""]
    assert rows[0]["note"] == "甲,乙"


def test_run_json_is_written_once_with_hyper_parameters_and_versions(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.5), momentum=0.9)
    run = Run(tmp_path, model=model, optimizer=optimizer, config={"seed": 3, "name": "甲"})
    run.update_config(patience=None)
    loader = torch.utils.data.DataLoader(range(6), batch_size=2)
    for _ in run.epochs(1):
        list(run.batches(loader))
    card = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert card["config"] == {
        "model": "Linear",
        "optimizer": "SGD",
        "lr": 0.5,
        "momentum": 0.9,
        "weight_decay": 0,
        "nesterov": False,
        "seed": 3,
        "name": "甲",
        "patience": None,
        "batch_size": 2,
    }
    assert card["environment"]["torch"] == torch.__version__
    assert card["environment"]["threads"] == torch.get_num_threads()
    written = (tmp_path / "run.json").read_bytes()
    run.update_config(seed=4)
    list(run.epochs(2))
    assert (tmp_path / "run.json").read_bytes() == written


def test_two_optimizers_have_their_own_names_in_run_json(tmp_path):
    model = torch.nn.Linear(2, 2)
    pair = {n: torch.optim.SGD(model.parameters(), lr=lr) for n, lr in (("g", 0.1), ("d", 0.2))}
    list(Run(tmp_path, model=model, **pair).epochs(1))
    config = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["config"]
    assert (config["g.lr"], config["d.lr"], config["g"]) == (0.1, 0.2, "SGD")


class Writer:
    """TensorBoard 的替身：记下别人对它说的话。"""

    made: ClassVar[list] = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.points, self.closed = folder, purge_step, [], False
        self.made.append(self)

    def add_scalar(self, name, value, step):
        self.points.append((name, value, step))

    def flush(self):
        self.flushed = len(self.points)

    def close(self):
        self.closed = True


@pytest.fixture
def writers(monkeypatch):
    board, tool = types.ModuleType("tensorboard"), types.ModuleType("torch.utils.tensorboard")
    board.__spec__ = importlib.machinery.ModuleSpec("tensorboard", None)
    tool.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "tensorboard", board)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tool)
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def test_tensorboard_gets_the_scalars_of_every_epoch_and_hides_old_points(tmp_path, writers):
    run = Run(tmp_path)
    for epoch in run.epochs(2):
        run.log(loss=float(epoch), matrix=torch.eye(2))
    run.close()
    resumed = Run(tmp_path, resume=True)
    for epoch in resumed.epochs(3):
        resumed.log(loss=float(epoch))
    first, second = writers
    assert first.points == [("loss", 1.0, 1), ("loss", 2.0, 2)]
    assert (first.folder, first.purge_step) == (str(tmp_path / "tensorboard"), 1)
    assert (first.flushed, first.closed) == (2, True)
    assert (second.points, second.purge_step) == ([("loss", 3.0, 3)], 3)


def test_without_tensorboard_there_is_no_folder_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr("companion.run._log.find_spec", lambda name: None)
    run = Run(tmp_path)
    for _ in run.epochs(1):
        run.log(loss=1.0)
    assert not (tmp_path / "tensorboard").exists()


def test_the_real_tensorboard_can_read_what_was_written(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Run(tmp_path)
    for epoch in run.epochs(2):
        run.log(loss=epoch / 4)
    run.close()
    events = reading.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(point.step, point.value) for point in events.Scalars("loss")] == [(1, 0.25), (2, 0.5)]
