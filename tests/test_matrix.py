"""Every operation search with every topology search and every selection: it runs, or it is refused."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from dots_zoo.errors import DotsZooError
from dots_zoo.genotype import Genotype, validate
from dots_zoo.search.darts_pt import PerturbationConfig
from dots_zoo.search.loop import run_stages
from dots_zoo.search.methods import METHODS, Derivation, plan
from dots_zoo.search.space import CellSpace, SearchSpace
from dots_zoo.search.topology import TopologyConfig
from toy_search import PLANTED, toy_data, toy_training


def with_choices(operations: tuple[str, ...], edges: int) -> tuple[tuple[str, ...], ...]:
    """Candidates of which two edges have a choice, so that there are few decisions to wait for."""
    return tuple(operations if edge in (0, 3) else operations[1:] for edge in range(edges))


DARTS = SearchSpace(2, tuple(CellSpace(kind, with_choices(PLANTED, 5)) for kind in ("normal", "reduce")))
SKIP_OR_CONV = ("skip_connect", PLANTED[1])
SKIPS = SearchSpace(2, tuple(CellSpace(kind, with_choices(SKIP_OR_CONV, 5)) for kind in DARTS.kinds))
NASBENCH201 = SearchSpace(3, (CellSpace("cell", with_choices(("none", "nor_conv_1x1"), 6)),), "nasbench201")
TOPOLOGIES = ("none", "pairs", "any", "edge_weights", "edge_sigmoid")
SELECTIONS = ("magnitude", "perturbation", "perturbation_magnitude")

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
    numbers = {"epochs": 1, "cells": 3, **changes, "training": toy_training(batch_size=4)}
    return config(**{key: value for key, value in numbers.items() if key in config.__dataclass_fields__})


def derivation(topology: str, selection: str, keep: int = 1) -> Derivation:
    return Derivation(
        topology,
        keep,
        selection,
        topology_search=TopologyConfig(epochs=1, cells=3),
        perturbation=PerturbationConfig(tuning=1),
    )


def illegal(name: str, topology: str, selection: str, keep: int = 1) -> bool:
    """What DESIGN lists, and nothing else."""
    return (
        (topology == "none" and (name.startswith("dots") or keep > 1))
        or (topology != "none" and name == "sgas")
        or (topology in ("edge_weights", "edge_sigmoid") and selection != "magnitude")
    )


def cases() -> Iterator[tuple[str, str, str]]:
    yield from itertools.product(SHORT, TOPOLOGIES, SELECTIONS)


def run(name: str, topology: str, selection: str, space: SearchSpace) -> Genotype:
    method, _ = SHORT[name]
    config = configuration(name)
    stages = plan(method, config, derivation(topology, selection), space)
    epochs = list(run_stages(stages, config.training, toy_data(16), progress=False))
    assert sum(stage.epochs for stage in stages) >= 1 and len(epochs) >= len(stages)
    return Genotype("found", space.family, epochs[-1].cells)


def test_every_method_is_in_the_matrix() -> None:
    assert {method for method, _ in SHORT.values()} == set(METHODS)


@pytest.mark.parametrize(("name", "topology", "selection"), [c for c in cases() if not illegal(*c)])
def test_what_is_legal_runs(name: str, topology: str, selection: str) -> None:
    found = run(name, topology, selection, SKIPS if name == "dots v1" else DARTS)
    validate(found)
    for cell in found.cells.values():
        for node in (2, 3):
            edges = len(cell.edges_into(node))
            assert edges == 2 or (topology in ("any", "edge_sigmoid") and 1 <= edges <= node)


@pytest.mark.parametrize(("name", "topology", "selection"), [c for c in cases() if illegal(*c)])
def test_what_is_illegal_is_refused_before_any_work(name: str, topology: str, selection: str) -> None:
    method, _ = SHORT[name]
    with pytest.raises(DotsZooError, match=rf"search {method}: .*expected .*got "):
        plan(method, configuration(name), derivation(topology, selection), DARTS)


@pytest.mark.parametrize("name", [name for name in SHORT if not name.startswith("dots")])
def test_two_operations_an_edge_need_a_topology_search(name: str) -> None:
    method, _ = SHORT[name]
    with pytest.raises(DotsZooError, match=rf"search {method}: keep 2: expected a topology search"):
        plan(method, configuration(name), derivation("none", "magnitude", keep=2), DARTS)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("name", [name for name in SHORT if not name.startswith("dots")])
def test_every_method_runs_in_nas_bench_201(name: str, selection: str) -> None:
    found = run(name, "none", selection, NASBENCH201)
    validate(found)
    assert len(found.cell.edges) == 6


@pytest.mark.parametrize("topology", [topology for topology in TOPOLOGIES if topology != "none"])
@pytest.mark.parametrize("name", SHORT)
def test_nas_bench_201_keeps_all_edges_and_refuses_a_topology_search(name: str, topology: str) -> None:
    method, _ = SHORT[name]
    with pytest.raises(DotsZooError, match=rf"search {method}: .*expected topology none, got {topology}"):
        plan(method, configuration(name), derivation(topology, "magnitude"), NASBENCH201)
