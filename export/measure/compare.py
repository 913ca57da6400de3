"""Compare a new benchmark with an old one, for a machine that decides, such as CI."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dots_zoo.runtime.errors import DotsZooError

from .rows import Bench, Row
from .schema import read_bench

HARDWARE = ("cpu", "usable_cores", "gpu")  # of the machine: what has to be the same


@dataclass(frozen=True)
class Change:
    """One timing of one row, old and new; None and a reason where there is no verdict."""

    name: str
    old_ms: float | None
    new_ms: float | None
    why_not: str = ""

    @property
    def ratio(self) -> float | None:
        """New p50 / old p50, above 1 where the row became slower; None where there is no verdict."""
        return None if self.old_ms is None or self.new_ms is None else self.new_ms / self.old_ms

    def fails(self, over: float) -> bool:
        """Return True where it is slower by more than `over`, as a fraction, or cannot be judged."""
        return self.ratio is None or self.ratio > 1 + over

    def line(self, over: float) -> str:
        """Return one line for a terminal."""
        if self.ratio is None:
            return f"FAIL  {self.name}: no verdict: {self.why_not}"
        verdict = "FAIL" if self.fails(over) else "ok"
        return (
            f"{verdict:<5} {self.name}: p50 {self.old_ms:.3f} -> {self.new_ms:.3f} ms ({self.ratio - 1:+.1%})"
        )


def changes(
    old: Path | Mapping[str, Any], new: Path | Mapping[str, Any], *, any_machine: bool = False
) -> list[Change]:
    """Compare every timing of the old benchmark with the new one's.

    A row that is missing in the new one, or was refused in either, gives no verdict. Rows that only the new
    one has are left out. Raises DotsZooError for files that are no benchmarks, for two rows of one setting,
    for machines that differ, unless any_machine, and where not one row is in both.
    """
    before, after = read_bench(old), read_bench(new)
    if not any_machine:
        _same_machine(before, after)
    alike = {setting for bench in (before, after) for setting, n in _settings(bench).items() if n > 1}
    old_rows, new_rows = (
        _by_setting(bench, alike, which) for bench, which in ((before, "old"), (after, "new"))
    )
    if not old_rows.keys() & new_rows.keys():
        raise DotsZooError(
            "compare: no row of the old benchmark is in the new one: expected the same models, precisions, "
            "providers, threads, batches and sizes"
        )
    return [change for setting, row in old_rows.items() for change in _changes(setting, row, new_rows)]


def _same_machine(old: Bench, new: Bench) -> None:
    for key in HARDWARE:
        if old.machine.get(key) != new.machine.get(key):
            raise DotsZooError(
                f"compare: the machines differ: {key} was {old.machine.get(key)!r} and is "
                f"{new.machine.get(key)!r}; measure both on one machine, or give --any-machine"
            )


def _settings(bench: Bench) -> Counter[str]:
    return Counter(_setting(row) for row in bench.rows)


def _by_setting(bench: Bench, alike: Collection[str], which: str) -> dict[str, Row]:
    """Return the rows by setting, and by file too for the settings in `alike`, which several rows have."""
    rows: dict[str, Row] = {}
    for row in bench.rows:
        setting = _setting(row)
        key = f"{row.file}: {setting}" if setting in alike else setting
        if key in rows:
            raise DotsZooError(f"compare: the {which} benchmark has two rows of {key}: which one is meant?")
        rows[key] = row
    return rows


def _setting(row: Row) -> str:
    """Return what two rows of one network in one setting have in common; the weights may differ."""
    parts = [row.model, row.precision, row.engine, row.provider_asked, f"{row.threads} threads"]
    parts += ["CUDA graph"] if row.cuda_graph else []
    return ", ".join([*parts, "x".join(map(str, row.input_shape))])


def _changes(setting: str, old: Row, new_rows: Mapping[str, Row]) -> list[Change]:
    new = new_rows.get(setting)
    if new is None:
        return [Change(setting, None, None, "the new benchmark lacks it")]
    for which, row in (("old", old), ("new", new)):
        for check, why in row.failures.items():
            return [Change(setting, None, None, f"the {which} row is refused: {check}: {why}")]
    return [
        Change(f"{setting}, device-resident", old.resident.p50_ms, new.resident.p50_ms),
        Change(f"{setting}, end-to-end", old.end_to_end.p50_ms, new.end_to_end.p50_ms),
    ]
