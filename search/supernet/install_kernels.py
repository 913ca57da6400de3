"""Install the kernels of a CPU on a supernet.

`fast_cell`, which uses them, is imported only when they are installed. Parameters, buffers and their names
stay those of the supernet, so that neither checkpoints nor optimisers depend on kernels.
"""

from importlib.util import find_spec

import torch

from dots_zoo.runtime.errors import DotsZooError

from .cell import SearchCell, SearchCell201
from .supernet import Supernet


def can_install(device: torch.device) -> bool:
    """Return True on a CPU with numba."""
    return device.type == "cpu" and find_spec("numba") is not None


def check_can_install(device: torch.device) -> None:
    """Raise DotsZooError on any device but a CPU with numba."""
    if not can_install(device):
        place = "a CPU without it" if device.type == "cpu" else f"the device {device}"
        raise DotsZooError(
            f"training.kernels on: expected a CPU with numba installed, got {place}; choose auto or off"
        )


def install_kernels(supernet: Supernet) -> None:
    """Make every cell compute by kernels; the result is the same up to rounding.

    Raises:
        DotsZooError: if the supernet is not on a CPU, or numba is not installed.
    """
    check_can_install(next(supernet.parameters()).device)
    from .fast_cell import FastCell

    last = len(supernet.cells) - 1
    for index, cell in enumerate(supernet.cells):
        if isinstance(cell, SearchCell):
            reads_relu = index > 1, index > 0  # all but the stem's
            cell.kernels = FastCell(cell, reads_relu, index < last, supernet.shape.memory)
        elif isinstance(cell, SearchCell201):
            cell.kernels = FastCell(cell, (False, False), False, supernet.shape.memory)
