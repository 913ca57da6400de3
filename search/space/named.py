"""The search spaces of the papers, by name.

Source: DOTS (CVPR 2021), Sec. 3.1 (S0), its supplementary, Sec. 2 (the groups); RobustDARTS (ICLR 2020), Sec.
3 (S1 to S4); DropNAS (IJCAI 2020), Sec. 5.3 (1-skip, 3-skip); DARTS-PT (ICLR 2021), Appendix A.1.1 (S0
without none); NAS-Bench-201 (ICLR 2020), Fig. 1 (S6, as DARTS- calls it).
"""

from dots_zoo.runtime.errors import DotsZooError

from .space import CellSpace, SearchSpace

Groups = tuple[tuple[str, ...], ...]

S0 = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
# Topology-related and topology-agnostic operations: without and with weights of their own. `noise` (S4) and
# the operations of S6 are sorted in by the same rule.
GROUP_V2 = (
    ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "noise"),
    ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "nor_conv_1x1", "nor_conv_3x3"),
)
# By what an operation computes; it has no place for `none`.
GROUP_V1 = (
    ("skip_connect",),
    ("max_pool_3x3", "avg_pool_3x3"),
    ("sep_conv_3x3", "sep_conv_5x5"),
    ("dil_conv_3x3", "dil_conv_5x5"),
)

# Every operation by one letter, so that the 14 edges of S1 can be read against the paper.
_LETTERS = {
    "m": "max_pool_3x3",
    "a": "avg_pool_3x3",
    "s": "skip_connect",
    "c": "sep_conv_3x3",
    "d": "dil_conv_3x3",
    "D": "dil_conv_5x5",
}
_S1 = {
    "normal": "sd sD sD sc sd ms sc sc sd sc ms sd dD dD",
    "reduce": "ma md ma ma sD ma mc sd sD ma ma sD sD sD",
}

# The same candidates on every edge of the DARTS cell.
UNIFORM = {
    "S0": S0,
    "S0_without_none": S0[1:],
    "S2": ("skip_connect", "sep_conv_3x3"),
    "S3": ("none", "skip_connect", "sep_conv_3x3"),
    "S4": ("noise", "sep_conv_3x3"),
    "1-skip": ("none", "skip_connect", *S0[4:]),
    "3-skip": ("none", "skip_connect", "skip_connect", "skip_connect", *S0[4:]),
}
S6 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NAMES = ("S0", "S0_without_none", "S1", "S2", "S3", "S4", "1-skip", "3-skip", "S6")


def named_space(name: str) -> SearchSpace:
    """The space of that name. Raises DotsZooError where there is none."""
    if name in UNIFORM:
        return darts_space(UNIFORM[name])
    if name == "S1":
        cells = [
            CellSpace(kind, tuple(tuple(_LETTERS[letter] for letter in edge) for edge in edges.split()))
            for kind, edges in _S1.items()
        ]
        return SearchSpace(4, tuple(cells))
    if name == "S6":
        return SearchSpace(3, (CellSpace("cell", (S6,) * 6),), "nasbench201")
    raise DotsZooError(f"space: expected one of {', '.join(NAMES)}, got {name!r}")


def darts_space(operations: tuple[str, ...] = S0, intermediate: int = 4) -> SearchSpace:
    """The space of the DARTS cell with the same candidate operations on every edge."""
    edges = sum(range(2, 2 + intermediate))
    return SearchSpace(
        intermediate, tuple(CellSpace(kind, (operations,) * edges) for kind in ("normal", "reduce"))
    )


def restricted(space: SearchSpace, allowed: frozenset[str]) -> SearchSpace:
    """The space with the candidates that are allowed. Raises DotsZooError where an edge has none of them."""
    cells = [
        CellSpace(cell.kind, tuple(tuple(o for o in row if o in allowed) for row in cell.candidates))
        for cell in space.cells
    ]
    return SearchSpace(space.intermediate, tuple(cells), space.family)
