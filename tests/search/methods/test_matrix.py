"""Every operation search with every topology search and every selection: it runs, or it is refused."""

import itertools
from collections.abc import Iterator

import pytest

from dots_zoo.genotype import Genotype, validate
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import METHODS, plan
from dots_zoo.search.space.space import SearchSpace
from dots_zoo.search.stages.loop import run_of, run_stages
from helpers.matrix import mostly_slow
from helpers.short_searches import DARTS, NASBENCH201, SHORT, SKIPS, configuration, derivation, illegal
from helpers.toy_search import toy_data

TOPOLOGIES = ("none", "pairs", "any", "edge_weights", "edge_sigmoid")
SELECTIONS = ("magnitude", "perturbation", "perturbation_magnitude")


def cases() -> Iterator[tuple[str, str, str]]:
    yield from itertools.product(SHORT, TOPOLOGIES, SELECTIONS)


LEGAL = [case for case in cases() if not illegal(*case)]
# every topology search and selection of two methods, and every method with its first and its last
SOME_LEGAL = {
    case
    for name in SHORT
    for of_method in [[case for case in LEGAL if case[0] == name]]
    for case in (of_method if name in ("darts", "dots v1") else (of_method[0], of_method[-1]))
}


def run(name: str, topology: str, selection: str, space: SearchSpace) -> Genotype:
    method, _ = SHORT[name]
    config = configuration(name)
    stages = plan(method, config, derivation(topology, selection), space)
    epochs = list(run_stages(stages, run_of(config.training, toy_data(16)), progress=False))
    assert sum(stage.epochs for stage in stages) >= 1 and len(epochs) >= len(stages)
    return Genotype("found", space.family, epochs[-1].cells)


def test_every_method_is_in_the_matrix() -> None:
    assert {method for method, _ in SHORT.values()} == set(METHODS)


@pytest.mark.parametrize(("name", "topology", "selection"), mostly_slow(LEGAL, SOME_LEGAL))
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


@pytest.mark.parametrize("selection", mostly_slow(SELECTIONS, {"magnitude"}))
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
