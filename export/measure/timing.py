"""Time a function, and summarise its times."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np

MAX_CV = 0.05  # a row above it is marked as noisy
DIGITS = 4  # of a sample in milliseconds: a tenth of a microsecond, what clocks resolve


@dataclass(frozen=True)
class Timing:
    """The times of repeated runs; milliseconds are of one run of the whole batch.

    seconds: sum of the timed runs. percentiles: numpy's linear interpolation. std_ms: of the sample (n - 1).
    cv: std / mean; noisy: cv above 0.05. spread: largest minus smallest median of a round, as a fraction of
    p50: how well the published number repeats. throughput_per_s: images. samples_ms: every run, by round.
    """

    iterations: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    std_ms: float
    cv: float
    noisy: bool
    spread: float
    throughput_per_s: float
    samples_ms: list[list[float]]


def summarise(rounds_ms: Sequence[Sequence[float]], batch: int) -> Timing:
    """Return the statistics of two runs or more, in one round or more."""
    times = np.array(list(chain(*rounds_ms)))
    p50, p90, p95, p99 = (float(p) for p in np.percentile(times, [50, 90, 95, 99], method="linear"))
    medians = [float(np.median(samples)) for samples in rounds_ms]
    mean, std = float(times.mean()), float(times.std(ddof=1))
    return Timing(
        iterations=len(times),
        seconds=float(times.sum()) / 1e3,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        mean_ms=mean,
        std_ms=std,
        cv=std / mean,
        noisy=std / mean > MAX_CV,
        spread=(max(medians) - min(medians)) / p50,
        throughput_per_s=1e3 * batch / mean,
        samples_ms=[list(samples) for samples in rounds_ms],
    )


def repeat(run: Callable[[], None], iterations: int, seconds: float) -> list[float]:
    """Return the milliseconds of every run: at least `iterations` runs, and `seconds` of them together."""
    samples: list[float] = []
    total = 0.0
    while len(samples) < iterations or total < seconds * 1e3:
        start = time.perf_counter_ns()
        run()
        elapsed = time.perf_counter_ns() - start
        samples.append(round(elapsed / 1e6, DIGITS))
        total += elapsed / 1e6
    return samples


@contextmanager
def no_gc() -> Iterator[None]:
    """Turn garbage collection off: a collection would land in some of the runs."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
