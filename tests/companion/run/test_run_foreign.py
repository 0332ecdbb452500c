"""别的进程、别人写的存档，别的目录和控制台：封得好好的，内容却不是这个进程的 Run 写的。"""

import io
import random
import shutil

import pytest
import torch

from companion.checkpoint import load_checkpoint, save_checkpoint, saves, verify
from companion.errors import CheckpointError
from companion.run import Run
from tests.companion.run.test_run_records import job, same, train, weights


class Stop(Exception):
    """像 kill -9 一样断在这里。"""


def test_on_fewer_processes_the_sums_of_all_the_old_ones_go_on(tmp_path, monkeypatch):
    def two(mine):  # 另一个进程也记了 2 步，加起来是 10
        theirs = {"place": mine["place"], "sums": {"loss": {"sum": 10.0, "weight": 2.0}}}
        return [mine, theirs]

    monkeypatch.setattr("companion.run._run.gather_objects", two)
    run = Run(tmp_path, save_every=2)
    with pytest.raises(Stop):
        for _ in run.epochs(1):
            for value in run.batches([1.0, 3.0, 8.0]):
                if run.step == 2:
                    raise Stop
                run.log(loss=value)
    monkeypatch.undo()
    run = Run(tmp_path, resume=True)
    for _ in run.epochs(1):
        for value in run.batches([1.0, 3.0, 8.0]):
            run.log(loss=value)
    assert run.history["loss"] == [(1 + 3 + 10 + 8) / 5]


# —— 别人写的存档


def reseal(path, change, kind="state"):
    """用 ``change`` 改一个存档的内容（或 info），再存成更新的一个，封得好好的。"""
    state, info = load_checkpoint(path)
    step = info.pop("step")
    change(state if kind == "state" else info)
    return save_checkpoint(path.parent, state, step=step, info=info)


STATES = {
    "no ranks": lambda s: s.pop("ranks"),
    "ranks is empty": lambda s: s.update(ranks=[]),
    "ranks is a number": lambda s: s.update(ranks=5),
    "history is a number": lambda s: s.update(history=5),
    "history holds numbers": lambda s: s.update(history=[1, 2]),
    "no layouts": lambda s: s.pop("layouts"),
    "layouts of others": lambda s: s.update(layouts={"x": {}}),
    "an object is missing": lambda s: s["objects"].pop("model"),
    "another field": lambda s: s["ranks"][0]["place"].update(open=3),
    "no sums": lambda s: s["ranks"][0].pop("sums"),
    "a call of nothing": lambda s: s["ranks"][0]["place"].update(calls=[{}]),
    "no random numbers": lambda s: s["ranks"][0]["place"]["rng"].update(torch=torch.zeros(3)),
    "sums of text": lambda s: s["ranks"][0].update(sums={"loss": {"sum": "a", "weight": 1}}),
    "epoch is text": lambda s: s["ranks"][0]["place"].update(epoch="9"),
    "step is a tensor": lambda s: s["ranks"][0]["place"].update(step=torch.ones(2)),
}
INFOS = {
    "no config": lambda i: i.pop("config"),
    "config is a list": lambda i: i.update(config=[1]),
    "no objects": lambda i: i.pop("objects"),
    "objects is text": lambda i: i.update(objects="model"),
    "a kind is a number": lambda i: i.update(objects={"model": 3, "optimizer": "AdamW"}),
}
CASES = [("state", name) for name in STATES] + [("info", name) for name in INFOS]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_sealed_save_that_run_did_not_write_is_passed_over_for_the_one_before(
    tmp_path, capsys, kind, name
):
    own = job()
    train(Run(tmp_path, **own), own, 1).close()
    strange = reseal(saves(tmp_path)[-1], (STATES | INFOS)[name], kind)
    own = job()
    run = Run(tmp_path, resume=True, **own)
    assert f"跳过：存档 {strange.name} 里应是 Run 存下的" in capsys.readouterr().out
    assert train(run, own, 2).epoch == 2


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_when_run_wrote_none_of_the_saves_one_clear_error_is_raised(tmp_path, kind, name):
    own = job()
    train(Run(tmp_path, **own), own, 1).close()
    good = saves(tmp_path)[-1]
    reseal(good, (STATES | INFOS)[name], kind)
    shutil.rmtree(good)
    own = job()
    fresh, before = weights(own["model"]), random.getstate()
    with pytest.raises(CheckpointError, match="一个好的也没有"):
        Run(tmp_path, resume=True, **own)
    assert same(weights(own["model"]), fresh)
    assert random.getstate() == before


UNFIT = {
    "no optimizer state": lambda s: s["objects"]["optimizer"].pop("state"),
    "groups is a number": lambda s: s["objects"]["optimizer"].update(param_groups=5),
    "the optimizer is a list": lambda s: s["objects"].update(optimizer=[]),
    "another shape": lambda s: s["objects"]["model"].update({"0.weight": torch.zeros(9)}),
    "a weight is text": lambda s: s["objects"]["model"].update({"0.weight": "字"}),
    "another parameter": lambda s: s["layouts"]["model"].update(trainable={"x.y": True}),
    "a layout is a number": lambda s: s["layouts"].update(model=3),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_state_that_does_not_fit_its_object_is_one_clear_error(tmp_path, name):
    own = job()
    train(Run(tmp_path, **own), own, 1).close()
    reseal(saves(tmp_path)[-1], UNFIT[name])
    with pytest.raises(CheckpointError):
        Run(tmp_path, resume=True, **job())


# —— 目录和控制台


def test_a_relative_directory_stays_where_it_was_and_a_tilde_is_the_home(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for _ in Run("runs").epochs(2):
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(saves(tmp_path / "runs")) == 2
    Run("~/runs").close()
    assert (tmp_path / "home" / "runs" / "lock").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_for_people_that_cannot_be_written_does_not_lose_the_epoch(tmp_path, capsys):
    (tmp_path / "history.csv").mkdir(parents=True)  # 像是被别的程序占着
    run = Run(tmp_path)
    for _ in run.epochs(2):
        run.log(loss=1.0)
    assert capsys.readouterr().out.count("给人看的记录没有写成，存档不受影响") == 2
    assert verify(saves(tmp_path)[-1])["epoch"] == 2
    (tmp_path / "history.csv").rmdir()
    for _ in run.epochs(3):
        run.log(loss=1.0)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "gbk"])
def test_a_console_without_these_characters_does_not_end_the_training(
    tmp_path, monkeypatch, encoding
):
    own = job()
    train(Run(tmp_path, **own), own, 1).close()
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", console)
    own = job()
    assert train(Run(tmp_path, resume=True, **own), own, 2).epoch == 2
    console.flush()
    assert console.buffer.getvalue()
