"""What a user adds, taken away again at the end of a test."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
from timm.models import _registry

from dots_zoo.data.datasets import DATASETS
from dots_zoo.genotype import OPS
from dots_zoo.macro import MACROS
from dots_zoo.plugins import PREFIX
from dots_zoo.search.methods.registry import METHODS
from dots_zoo.search.space.named import SPACES
from dots_zoo.zoo import default_cfgs

TABLES: tuple[dict[str, Any], ...] = (OPS, SPACES, METHODS, DATASETS, MACROS, default_cfgs)


@contextmanager
def tables_as_before() -> Iterator[None]:
    """Inside: add to any table, load plug-ins; afterwards all hold what they held, and timm its names."""
    before, names = [dict(table) for table in TABLES], set(timm.list_models())
    try:
        yield
    finally:
        for table, records in zip(TABLES, before, strict=True):
            table.clear()
            table.update(records)
        for name in set(timm.list_models()) - names:
            _forget(name)
        for module in [module for module in sys.modules if module.startswith(PREFIX)]:
            del sys.modules[module]


def _forget(name: str) -> None:
    """timm has no call for it: one of its tables for every fact about a name."""
    for table in vars(_registry).values():
        if isinstance(table, dict):
            table.pop(name, None)
            for value in table.values():
                if isinstance(value, set):
                    value.discard(name)
        elif isinstance(table, set):
            table.discard(name)
