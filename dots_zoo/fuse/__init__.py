"""Exact rewriting of a trained network into fewer operations: `fuse`, on the graph (`graph`), step by step.

`chains` merges linear chains across nodes, `local` what one operation holds.
"""

from .fuse import fuse as fuse
