"""Every operation search at its shortest, for tests that go through all of them."""

from typing import Any

from dots_zoo.search.methods.darts_pt import PerturbationConfig
from dots_zoo.search.methods.registry import METHODS, Derivation
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.space.space import CellSpace, SearchSpace
from helpers.toy_search import PLANTED, toy_training


def with_choices(operations: tuple[str, ...], edges: int) -> tuple[tuple[str, ...], ...]:
    """Candidates of which two edges have a choice, so that there are few decisions to wait for."""
    return tuple(operations if edge in (0, 3) else operations[1:] for edge in range(edges))


DARTS = SearchSpace(2, tuple(CellSpace(kind, with_choices(PLANTED, 5)) for kind in ("normal", "reduce")))
SKIP_OR_CONV = ("skip_connect", PLANTED[1])
SKIPS = SearchSpace(2, tuple(CellSpace(kind, with_choices(SKIP_OR_CONV, 5)) for kind in DARTS.cell_types))
NASBENCH201 = SearchSpace(3, (CellSpace("cell", with_choices(("none", "nor_conv_1x1"), 6)),), "nasbench201")

# Every method with epochs of two steps; variants where they change what is legal or what a step is.
SHORT: dict[str, tuple[str, dict[str, Any]]] = {
    "dots v1": ("dots", {"groups": "v1", "warm_up": 0}),
    "dots v2": ("dots", {"warm_up": 0}),
    "darts": ("darts", {}),
    "darts second": ("darts", {"order": "second"}),
    "darts_minus": ("darts_minus", {}),
    "dropnas": ("dropnas", {}),
    "gdas": ("gdas", {}),
    "snas": ("snas", {}),
    "pc_darts": ("pc_darts", {"warm_up": 0}),
    "p_darts": ("p_darts", {"warm_up": 0, "depths": (3, 3, 3), "operations": (2, 1)}),
    "sdarts_rs": ("sdarts_rs", {}),
    "sgas": ("sgas", {"warm_up": 1, "interval": 1, "batch_increase": 0}),
    "fixed_alpha": ("fixed_alpha", {}),
    "random_search": ("random_search", {}),
}


def configuration(name: str) -> Any:
    method, changes = SHORT[name]
    config: Any = METHODS[method].config
    numbers = {"epochs": 1, "layers": 3, "channels": 4, **changes, "training": toy_training(batch_size=4)}
    return config(**{key: value for key, value in numbers.items() if key in config.__dataclass_fields__})


def derivation(topology: str, selection: str, keep: int = 1) -> Derivation:
    return Derivation(
        topology,
        keep,
        selection,
        topology_search=TopologyConfig(epochs=1, layers=3),
        perturbation=PerturbationConfig(tuning=1),
    )


def illegal(name: str, topology: str, selection: str, keep: int = 1) -> bool:
    """What DESIGN lists, and nothing else."""
    return (
        (topology == "none" and (name.startswith("dots") or keep > 1))
        or (topology != "none" and name == "sgas")
        or (topology in ("edge_weights", "edge_sigmoid") and selection != "magnitude")
    )
