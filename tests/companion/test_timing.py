import statistics

import pytest
import torch

from companion import timing
from companion.errors import ArgumentError
from companion.timing import Timing, measure


class Clock:
    """每读一次走一格的钟：第 i 次计时恰好是 durations[i] 秒。"""

    def __init__(self, durations):
        self.ticks = iter([t for d in durations for t in (0.0, d)])

    def perf_counter(self):
        return next(self.ticks)


def test_measure_reports_median_and_quartiles_in_milliseconds(monkeypatch):
    seconds = [0.001, 0.002, 0.003, 0.004, 0.1]  # 最后一次是意外
    monkeypatch.setattr(timing, "time", Clock(seconds))
    result = measure(lambda: None, warmup=9, repeats=5)
    assert result.median_ms == pytest.approx(3.0)
    q1, _, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
    assert result.iqr_ms == pytest.approx(1e3 * (q3 - q1)) == pytest.approx(2.0)
    assert result.repeats == 5


def test_measure_synchronises_before_and_after_every_timed_call(monkeypatch):
    events = []
    monkeypatch.setattr(timing, "synchronize", events.append)
    measure(lambda: events.append("fn"), device="meta", warmup=1, repeats=2)
    meta = torch.device("meta")
    assert events == ["fn", *[meta, "fn", meta] * 2]


def test_measure_needs_two_repeats_to_speak_of_spread():
    with pytest.raises(ArgumentError, match="repeats 至少为 2"):
        measure(lambda: None, repeats=1)
    with pytest.raises(ArgumentError, match="warmup 不能是负数"):
        measure(lambda: None, warmup=-1)


def test_timing_prints_unit_spread_and_count():
    assert repr(Timing(1.2345, 0.0567, 20)) == "1.23 ms（四分位距 0.057 ms，20 次）"
