"""The supernet of the papers: Eq. 1 and Eq. 8 as modules.

Reading order: `mixed_op` (the mixed operation of an edge, Eq. 1), `cell` (a node is the sum of its edges, Eq.
8; partial channels), `supernet` (cells one after the other), `mixture` (the weights, which come as an
argument), `bn_statistics` (which statistics a batch norm uses), `recompute` (less memory for more time).
`install_kernels` makes a CPU compute the same with fewer passes over memory (`fast_cell`, `sep_conv_blocks`);
none of that is imported before it is called.
"""

from .bn_statistics import still_statistics
from .cell import NO_PARTIAL_CHANNELS, Nodes, PartialChannels, SearchCell, SearchCell201
from .mixed_op import Auxiliary, MixedOp
from .mixture import Active, CellMixture, Mixture, active_where, everything
from .supernet import (
    MACROS_OF_FAMILY,
    MacroName,
    Memory,
    Shape,
    Supernet,
    cell_type_sequence,
    check_shape,
    supernet_macro,
    without_kernels,
)

__all__ = [
    "MACROS_OF_FAMILY",
    "NO_PARTIAL_CHANNELS",
    "Active",
    "Auxiliary",
    "CellMixture",
    "MacroName",
    "Memory",
    "MixedOp",
    "Mixture",
    "Nodes",
    "PartialChannels",
    "SearchCell",
    "SearchCell201",
    "Shape",
    "Supernet",
    "active_where",
    "cell_type_sequence",
    "check_shape",
    "everything",
    "still_statistics",
    "supernet_macro",
    "without_kernels",
]
