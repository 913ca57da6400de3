"""The search spaces of the papers, by name, and the groups of DOTS and DropNAS.

Source: DOTS (CVPR 2021), Sec. 3.1 (S0), its supplementary, Sec. 2 (the groups); RobustDARTS (ICLR 2020), Sec.
3 (S1 to S4); DropNAS (IJCAI 2020), Sec. 5.3 (1-skip, 3-skip); DARTS-PT (ICLR 2021), Appendix A.1.1 (S0
without none); NAS-Bench-201 (ICLR 2020), Fig. 1 (S6, as DARTS- calls it).
"""

from dataclasses import dataclass

from dots_zoo.genotype import OPS
from dots_zoo.runtime.table import PLUGIN_HINT, add_record, look_up

from .space import CellSpace, SearchSpace

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class NamedSpace:
    """A search space by name.

    Args:
        name: as in `--space NAME`.
        space: the space.
        title: description in a few words, for the help.
    """

    name: str
    space: SearchSpace
    title: str = ""


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
S6 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")

# One letter for every operation, so that the 14 edges of S1 can be compared with the paper.
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

SPACES: dict[str, NamedSpace] = {}


def register_space(space: NamedSpace) -> None:
    """Make a space known: `search(..., space=NAME)` and `dots-zoo search METHOD --space NAME` take it.

    Raises:
        DotsZooError: if its name is malformed or taken.
    """
    add_record(SPACES, space, "space")


def named_space(name: str) -> SearchSpace:
    """Return the space of a name.

    Raises:
        DotsZooError: if there is none.
    """
    return look_up(SPACES, name, "space", PLUGIN_HINT).space


def darts_space(operations: tuple[str, ...] = S0, intermediate: int = 4) -> SearchSpace:
    """Return the space of the DARTS cell with the same candidate operations on every edge."""
    edges = sum(range(2, 2 + intermediate))
    return SearchSpace(
        intermediate, tuple(CellSpace(cell_type, (operations,) * edges) for cell_type in ("normal", "reduce"))
    )


def restricted(space: SearchSpace, allowed: frozenset[str]) -> SearchSpace:
    """Return the space with only the candidates that are allowed.

    Raises:
        DotsZooError: if an edge has none of them.
    """
    cells = [
        CellSpace(cell.cell_type, tuple(tuple(o for o in row if o in allowed) for row in cell.candidates))
        for cell in space.cells
    ]
    return SearchSpace(space.intermediate, tuple(cells), space.family)


def groups_by_function() -> Groups:
    """Return the groups v1 of DOTS: by what an operation computes, without `none`."""
    names = dict.fromkeys(operation.group for operation in OPS.values() if operation.group)
    return tuple(tuple(o.name for o in OPS.values() if o.group == group) for group in names)


def groups_by_weights() -> Groups:
    """Return the groups v2 of DOTS, which DropNAS has too: operations without and with weights of their own.

    DOTS calls them topology-related and topology-agnostic.
    """
    return tuple(tuple(o.name for o in OPS.values() if o.parametric == on) for on in (False, True))


def _s1() -> SearchSpace:
    cells = [
        CellSpace(cell_type, tuple(tuple(_LETTERS[letter] for letter in edge) for edge in edges.split()))
        for cell_type, edges in _S1.items()
    ]
    return SearchSpace(4, tuple(cells))


for _space in (
    NamedSpace("S0", darts_space(), "DARTS"),
    NamedSpace("S0_without_none", darts_space(S0[1:]), "DARTS without none"),
    NamedSpace("S1", _s1(), "two operations an edge"),
    NamedSpace("S2", darts_space(("skip_connect", "sep_conv_3x3")), "skip connection or convolution"),
    NamedSpace("S3", darts_space(("none", "skip_connect", "sep_conv_3x3")), "S2 and none"),
    NamedSpace("S4", darts_space(("noise", "sep_conv_3x3")), "noise or convolution"),
    NamedSpace("1-skip", darts_space(("none", "skip_connect", *S0[4:])), "DropNAS, no pooling"),
    NamedSpace("3-skip", darts_space(("none", *["skip_connect"] * 3, *S0[4:])), "DropNAS, three skips"),
    NamedSpace("S6", SearchSpace(3, (CellSpace("cell", (S6,) * 6),), "nasbench201"), "NAS-Bench-201"),
):
    register_space(_space)
