"""Statistics by hand, and runs counted on a false clock."""

import gc
from types import SimpleNamespace

import pytest

from dots_zoo.export.measure import timing
from dots_zoo.export.measure.timing import no_gc, repeat, summarise


def test_statistics_by_hand():
    # 4 runs: 10, 20, 30, 40 ms. Percentile p lies at index 3p: p50 between the 2nd and the 3rd, and so on.
    timing = summarise([[40.0, 10.0], [30.0, 20.0]], batch=2)
    assert timing.iterations == 4
    assert timing.seconds == pytest.approx(0.1)
    assert timing.p50_ms == pytest.approx(25.0)
    assert timing.p90_ms == pytest.approx(37.0)  # index 2.7
    assert timing.p95_ms == pytest.approx(38.5)  # index 2.85
    assert timing.p99_ms == pytest.approx(39.7)  # index 2.97
    assert timing.mean_ms == pytest.approx(25.0)
    assert timing.std_ms == pytest.approx((500 / 3) ** 0.5)  # deviations 15, 5, 5, 15 and n - 1
    assert timing.cv == pytest.approx((500 / 3) ** 0.5 / 25)
    assert timing.noisy is True
    assert timing.throughput_per_s == pytest.approx(80.0)  # 8 images in 0.1 s
    assert timing.spread == 0.0  # both rounds have the median 25
    assert timing.samples_ms == [[40.0, 10.0], [30.0, 20.0]]


def test_noisy_means_above_five_per_cent():
    # two runs of 1 +- d ms: the standard deviation is d * sqrt(2)
    assert summarise([[1 - 0.034, 1 + 0.034]], 1).noisy is False  # cv 4.8 %
    assert summarise([[1 - 0.036, 1 + 0.036]], 1).noisy is True  # cv 5.1 %


def test_spread_is_that_of_the_medians_of_the_rounds():
    # medians 10, 12, 11; all nine in order: 9 10 10 11 11 12 12 13 90, p50 11
    timing = summarise([[10.0, 9.0, 90.0], [12.0, 13.0, 12.0], [11.0, 10.0, 11.0]], 1)
    assert timing.p50_ms == 11.0
    assert timing.spread == pytest.approx(2 / 11)


def test_enough_runs_and_enough_time(monkeypatch: pytest.MonkeyPatch):
    now = [0]

    def run() -> None:
        now[0] += 3_000_049  # 3 ms, and less than a tenth of a microsecond

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter_ns=lambda: now[0]))
    assert repeat(run, 50, 0.01) == [3.0] * 50  # 4 runs would fill the time
    assert len(repeat(run, 5, 0.1)) == 34  # 33 runs take 99 ms


def test_no_collection_while_the_clock_runs():
    assert gc.isenabled()
    with pytest.raises(KeyError), no_gc():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
