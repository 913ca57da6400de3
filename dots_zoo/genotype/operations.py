"""Define the vocabulary of a cell: the cells of each space, and the operations of an edge.

`OPS` holds one record for every operation; validation, drawings, groups, the log of a search and export read
it there. `dots_zoo/ops.py` adds the operations of the papers. Nothing here needs torch.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import DotsZooError
from ..runtime.table import add_record

if TYPE_CHECKING:
    from torch import nn

CELLS: dict[str, tuple[str, ...]] = {"darts": ("normal", "reduce"), "nasbench201": ("cell",)}
GREY = "#999999"


@dataclass(frozen=True)
class Operation:
    """A candidate operation: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).

    Args:
        name: name in genotypes.
        build: (channels, stride, affine) -> module; stride is 1 or 2, `affine` is the batch norm's, True in a
            final network.
        label: name in drawings; `name` if empty.
        colour: fill in drawings, "#RRGGBB".
        group: group in `v1` of DOTS; None: it cannot be searched there.
        parametric: True if it has weights of its own; its group in `v2` of DOTS and in DropNAS.
        skip: True for a skip connection, which P-DARTS limits and the log of a search counts.
        random: True if its output is drawn at random, so that it cannot be exported.
        spaces: search spaces whose genotypes may hold it, darts or nasbench201.
        plugin: name of the plug-in that registers it, which `plugins.load` sets.

    Raises DotsZooError for a record that cannot be used.
    """

    name: str
    build: "Callable[[int, int, bool], nn.Module]"
    label: str = ""
    colour: str = GREY
    group: str | None = None
    parametric: bool = True
    skip: bool = False
    random: bool = False
    spaces: tuple[str, ...] = ("darts",)
    plugin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        place = f"operation {self.name!r}"
        if not callable(self.build):
            raise DotsZooError(
                f"{place}, build: expected a function of (channels, stride, affine), got {self.build!r}"
            )
        if not re.fullmatch(r"#[0-9A-Fa-f]{6}", self.colour):
            raise DotsZooError(f"{place}, colour: expected '#RRGGBB', got {self.colour!r}")
        if not set(self.spaces) <= set(CELLS) or not self.spaces:
            raise DotsZooError(
                f"{place}, spaces: expected one or more of {', '.join(CELLS)}, got {self.spaces}"
            )

    @property
    def title(self) -> str:
        """Return the name in drawings."""
        return self.label or self.name

    @property
    def origin(self) -> str:
        """Return the plug-in that a genotype names for it: a file's name or a module; empty for ours.

        Where no plug-in was loaded it is the module, or the script, that defines `build`; empty in a session.
        """
        module = self.plugin or getattr(getattr(self.build, "func", self.build), "__module__", None) or ""
        if module == "__main__":
            return Path(getattr(sys.modules[module], "__file__", None) or "").name
        return "" if module.partition(".")[0] == "dots_zoo" else module

    def __call__(self, channels: int, stride: int, affine: bool) -> "nn.Module":
        """Build the module."""
        return self.build(channels, stride, affine)


OPS: dict[str, Operation] = {}


def register_operation(operation: Operation) -> None:
    """Add an operation to genotypes, spaces, networks, drawings, searches and export.

    Raises DotsZooError where its name is malformed or taken.
    """
    add_record(OPS, operation, "operation")


def primitives(space: str) -> tuple[str, ...]:
    """Return the names of the operations that a genotype of a space may hold."""
    return tuple(operation.name for operation in OPS.values() if space in operation.spaces)
