"""Rewrite a trained network exactly into fewer operations: `fuse`, on the graph (`graph`), step by step.

`chains` merges chains of separable convolutions across nodes; `local` rewrites around one tensor or one sum.
"""

from .fuse import fuse as fuse
from .fuse import launches as launches
