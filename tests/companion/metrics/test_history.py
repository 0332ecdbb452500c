import math

import matplotlib
import pytest

from companion import plot
from companion.errors import ArgumentError, ShapeError
from companion.metrics import History

matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


def history(*values, name="valid_loss"):
    return History([{"epoch": i, name: value} for i, value in enumerate(values, 1)])


def test_a_column_has_one_value_per_epoch_and_none_where_it_was_not_logged():
    ours = History([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "extra": 5}])
    assert ours["loss"] == [2.0, 1.0]
    assert ours["extra"] == [None, 5]
    assert ours.names == ["epoch", "loss", "extra"]
    assert len(ours) == 2
    assert list(ours) == ours.records


def test_an_unknown_column_is_answered_with_the_known_ones():
    with pytest.raises(ArgumentError, match="列名 应为 'epoch'、'valid_loss' 之一，实际是 'los'"):
        history(1.0)["los"]


def test_the_best_epoch_is_the_first_of_equals_and_never_nan():
    ours = history(math.nan, 3.0, 1.0, 1.0, math.nan)
    assert ours.best("valid_loss") == (3, 1.0)
    assert ours.best("valid_loss", "max") == (2, 3.0)
    assert history(math.nan).best("valid_loss") is None
    assert ours.best("nothing") is None
    assert History().best("valid_loss") is None


def test_the_best_epoch_is_named_by_the_record():
    assert History([{"epoch": 7, "loss": 1.0}]).best("loss") == (7, 1.0)
    assert History([{"loss": 2.0}, {"loss": 1.0}]).best("loss") == (2, 1.0)


def test_a_mode_is_min_or_max():
    with pytest.raises(ArgumentError, match="mode 应为 'min'、'max' 之一"):
        history(1.0).best("valid_loss", "lowest")


@pytest.mark.parametrize(
    ("values", "patience", "answer"),
    [
        ([3, 2, 1], 1, False),
        ([1, 2], 1, True),
        ([1, 2], 2, False),
        ([1, 1, 1], 2, True),  # 打平不算变好
        ([2, 1, 1, 0.5], 2, False),
        ([math.nan, math.nan], 2, True),
        ([1, math.nan, math.nan], 2, True),
        ([], 1, False),
    ],
)
def test_stalled_counts_the_epochs_since_the_best(values, patience, answer):
    assert history(*values).stalled("valid_loss", "min", patience) is answer


def test_stalled_on_a_column_that_is_not_there_is_an_error_and_not_an_early_stop():
    with pytest.raises(ArgumentError, match="列名"):
        history(1.0).stalled("valid_accuracy", "max", 1)


def test_the_line_shows_the_last_epoch():
    assert repr(history(0.5)) == "History(1 轮；最后一轮 valid_loss 0.5)"
    assert repr(History()) == "History(0 轮)"


def test_plot_draws_the_losses_under_their_chinese_names():
    records = [{"epoch": i, "train_loss": 1 / i, "valid_loss": 2 / i, "x": "字"} for i in (1, 2, 3)]
    plot.history(History(records))
    axes = pyplot.gca()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["训练损失", "验证损失"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("轮次", "损失")
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3]
    pyplot.close("all")


def test_plot_skips_the_epochs_where_a_column_was_not_logged():
    plot.history(History([{"epoch": 1, "acc": 0.5}, {"epoch": 2}, {"epoch": 3, "acc": 0.7}]), "acc")
    assert list(pyplot.gca().lines[0].get_xdata()) == [1, 3]
    pyplot.close("all")


def test_plot_of_nothing_is_an_error():
    with pytest.raises(ShapeError):
        plot.history(History())
