"""Long matrices: a row of each kind runs in the fast suite, all others with `make slow`."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mostly_slow(rows: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """The rows as parameters, slow but for those in `fast`."""
    every = list(rows)
    assert all(row in every for row in fast)
    return [row if row in fast else slow(row) for row in every]


def slow(row: Any) -> Any:
    return pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.slow)


SEEDS = mostly_slow(range(5), {0})
