"""进度条：假的表、假的终端，一下一下地走。"""

import functools
import io
import itertools
import sys

import pytest

from companion.train import fit
from companion.train._progress import Progress, size
from tests.companion.train.test_train import blobs, job


class Screen(io.StringIO):
    """假的终端：``shown`` 是现在看得见的各行。"""

    def isatty(self):
        return True

    @property
    def shown(self):
        lines = []
        for line in self.getvalue().split("\n"):
            cells = ""
            for part in line.split("\r"):  # 回到行首，盖掉原来的字
                cells = part + cells[len(part) :]
            lines.append(cells.rstrip())
        return lines


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Half:
    batches = 0
    reads = 0

    def mean(self):
        self.reads += 1
        return 0.5


def walk(batches, clock, seconds):
    for batch in batches:
        yield batch
        clock.now += seconds


@pytest.fixture(autouse=True)
def no_switch(monkeypatch):
    monkeypatch.delenv("COMPANION_PROGRESS", raising=False)


def bar(epochs=20):
    screen, clock = Screen(), Clock()
    return Progress(epochs, stream=screen, clock=clock), screen, clock


def run_through(progress, batches, clock, seconds, *arguments):
    seen = []
    for batch in progress.watch(batches, *arguments):
        seen.append(batch)
        clock.now += seconds
    return seen


def test_a_bar_shows_the_epoch_the_share_the_time_left_and_the_loss():
    progress, screen, clock = bar()
    run_through(progress, range(5), clock, 1.0, 3, range(20), Half())
    drawn = screen.getvalue().split("\r")[1:]
    assert drawn[0] == "第 3/20 轮  训练  ━" + "─" * 19 + "  1/20  剩 19 秒  loss 0.5"
    assert (
        drawn[-1].rstrip()
        == "第 3/20 轮  训练  " + "━" * 5 + "─" * 15 + "  5/20  剩 15 秒  loss 0.5"
    )


def test_the_batches_come_through_unchanged():
    progress, _, clock = bar()
    assert run_through(progress, range(7), clock, 0.05, 1, range(7)) == list(range(7))


@pytest.mark.parametrize("seconds", [0.001, 0.03, 0.5])
def test_it_is_redrawn_at_most_ten_times_a_second_and_reads_the_loss_only_then(seconds):
    progress, screen, clock = bar()
    half = Half()
    run_through(progress, range(300), clock, seconds, 1, range(300), half)
    redraws = screen.getvalue().count("\r")
    assert half.reads == redraws
    assert redraws <= 10 * clock.now
    assert redraws >= min(300, 10 * clock.now) * 0.8


def test_an_epoch_shorter_than_a_tenth_of_a_second_draws_nothing():
    progress, screen, clock = bar()
    run_through(progress, range(9), clock, 0.01, 1, range(9))
    assert screen.getvalue() == ""


def test_the_line_of_the_epoch_replaces_the_bar():
    progress, screen, clock = bar()
    run_through(progress, range(5), clock, 1.0, 3, range(5), Half())
    run_through(progress, range(2), clock, 1.0, 3, range(2))
    progress.close(3, {"epoch": 3, "train_loss": 0.25, "valid_loss": 1.5, "matrix": [[1]]})
    assert screen.shown == ["第 3/20 轮  train_loss 0.25     valid_loss 1.5", ""]


def test_validation_without_a_length_counts_batches():
    progress, screen, clock = bar(epochs=2)
    run_through(progress, iter("ab"), clock, 1.0, 2, iter("ab"))
    assert screen.shown == ["第 2/2 轮  验证  2 批"]


def test_a_resumed_epoch_goes_on_from_where_it_stopped():
    progress, screen, clock = bar(epochs=1)
    half = Half()
    half.batches = 8
    run_through(progress, range(2), clock, 2.0, 1, range(16), half)
    assert screen.shown == [
        "第 1/1 轮  训练  " + "━" * 12 + "─" * 8 + "  10/16  剩 12 秒  loss 0.5"
    ]


@pytest.mark.parametrize(
    ("pace", "words"), [(1, "59 秒"), (2, "1 分 58 秒"), (200, "3 小时 16 分")]
)
def test_time_left_is_in_words(pace, words):
    progress, screen, clock = bar(epochs=1)
    run_through(progress, range(1), clock, pace, 1, range(60))
    assert f"剩 {words}" in screen.shown[0]


def test_a_file_gets_one_line_an_epoch_without_carriage_returns():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(2, stream=stream, clock=clock)
    batches = range(5)
    assert progress.watch(batches, 1, batches, Half()) is batches
    progress.close(1, {"train_loss": 0.125})
    assert stream.getvalue() == "第 1/2 轮  train_loss 0.125\n"


def test_an_environment_variable_makes_a_terminal_plain(monkeypatch):
    monkeypatch.setenv("COMPANION_PROGRESS", "plain")
    progress, screen, clock = bar()
    run_through(progress, range(5), clock, 1.0, 1, range(5), Half())
    assert screen.getvalue() == ""


def test_a_notebook_is_live_though_it_is_no_terminal():
    class OutStream(io.StringIO):
        pass

    OutStream.__module__ = "ipykernel.iostream"
    assert Progress(1, stream=OutStream()).live
    assert not Progress(1, stream=io.StringIO()).live


def test_spyder_which_cannot_replace_an_output_gets_carriage_returns(monkeypatch):
    class OutStream(io.StringIO):
        pass

    OutStream.__module__ = "ipykernel.iostream"
    monkeypatch.setitem(sys.modules, "spyder_kernels", object())
    screen, clock = OutStream(), Clock()
    progress = Progress(1, stream=screen, clock=clock)
    run_through(progress, range(1), clock, 1.0, 1, range(1))
    assert screen.getvalue().startswith("\r第 1/1 轮  验证")


def test_not_shown_prints_nothing_even_on_a_terminal():
    screen, clock = Screen(), Clock()
    progress = Progress(2, False, stream=screen, clock=clock)
    run_through(progress, range(5), clock, 1.0, 1, range(5), Half())
    progress.close(1, {"train_loss": 0.125})
    assert screen.getvalue() == ""


def test_fit_draws_training_and_validation_and_leaves_one_line_an_epoch(monkeypatch):
    screen, ticks = Screen(), itertools.count()
    fake = functools.partial(Progress, stream=screen, clock=lambda: float(next(ticks)))
    monkeypatch.setattr("companion.train._fit.Progress", fake)
    live = fit(**job(valid=blobs(20), progress=True))
    text = screen.getvalue()
    assert "第 1/2 轮  训练  " in text and "第 2/2 轮  验证  " in text
    assert [line[:12] for line in screen.shown] == ["第 1/2 轮  tra", "第 2/2 轮  tra", ""]
    assert live.records == fit(**job(valid=blobs(20))).records  # 看了几次，数都一位不变


def test_fit_wipes_the_bar_before_an_error_is_shown(monkeypatch):
    screen, ticks = Screen(), itertools.count()
    fake = functools.partial(Progress, stream=screen, clock=lambda: float(next(ticks)))
    monkeypatch.setattr("companion.train._fit.Progress", fake)
    x, y = blobs()[0]
    with pytest.raises(TypeError):
        fit(**job([(x, y), (x, y), (x, y.float())], progress=True))
    assert "训练" in screen.getvalue() and screen.shown == [""]


def test_a_length_that_cannot_be_told_is_none():
    class Stream:
        def __len__(self):
            raise TypeError("IterableDataset")

    assert (size([1, 2]), size(iter([1])), size(Stream()), size(None)) == (2, None, None, None)
