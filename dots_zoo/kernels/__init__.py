"""Speed up a search and a retraining on a CPU: operators that compute the same with fewer passes over memory.

Each is a torch.library operator with its reference beside it. numba compiles its loops when it is first
called; where they cannot run (another device, another precision, no numba) the reference runs in its place.
Reading order: sep_conv, sep_conv_block, depthwise, weighted_sum, pooling, pixels, batch_norm; then the loops
depthwise_loops, pointwise, elementwise; then what these are built on: jit, simd, parallel. README.md lists
the gain of each.
"""

from .batch_norm import FastBatchNorm, batch_norm
from .depthwise import DepthwiseConv, depthwise
from .jit import HAS_NUMBA
from .pixels import even_odd_pixels
from .pooling import max_pool_3x3
from .prepack import prepack
from .replace_layers import replace_with_fast_layers
from .sep_conv import SepConvBlock, sep_conv_sum
from .weighted_sum import weighted_sum

__all__ = [
    "HAS_NUMBA",
    "DepthwiseConv",
    "FastBatchNorm",
    "SepConvBlock",
    "batch_norm",
    "depthwise",
    "even_odd_pixels",
    "max_pool_3x3",
    "prepack",
    "replace_with_fast_layers",
    "sep_conv_sum",
    "weighted_sum",
]
