"""What the analyses compute, against plain modules, dense matrices and numbers made by hand."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tqdm import tqdm

from dots_zoo.genotype import CellGenotype, Edge, Genotype
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.explain.completed_run import StageSnapshot
from dots_zoo.search.explain.discretise import DiscretiseConfig, discretised, tuning
from dots_zoo.search.explain.edge_option import EdgeConfig, select_edge
from dots_zoo.search.explain.features import FeaturesConfig, clustered, maps_of
from dots_zoo.search.explain.hessian import HessianConfig, power_iteration, spectrum
from dots_zoo.search.explain.landscape import LandscapeConfig, directions, landscape
from dots_zoo.search.explain.shuffle import ShuffleConfig, exchangeable, exchanged, searched_cells, shuffled
from dots_zoo.search.explain.skip import gaps
from dots_zoo.search.explain.stand_alone import with_edges, with_operation
from dots_zoo.search.explain.tau import combinations_of, ranked
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.stage import StepIndex
from dots_zoo.search.stages.validate import validate
from dots_zoo.search.supernet import (
    Mixture,
    PartialChannels,
    Shape,
    Supernet,
    everything,
    still_statistics,
    without_kernels,
)
from dots_zoo.search.supernet.install_kernels import install_kernels
from helpers.begun_search import begun
from helpers.toy_search import toy_derivation, toy_training

QUIET = darts_space(("skip_connect", "sep_conv_3x3"), 2)  # nothing in it draws
# The classifier sees images through 2<-1 of the reduction cells alone, which is a convolution or noise.
ONE_WAY = SearchSpace(
    1,
    (
        CellSpace("normal", (("none",), ("sep_conv_3x3",))),
        CellSpace("reduce", (("none",), ("noise", "sep_conv_3x3"))),
    ),
)


def look_at(space, **changes):
    """A search that has begun, seen as if its stage had ended; 16 images a batch and half."""
    training = toy_training(batch_size=16, **changes)
    run, stages, search = begun("darts", space, warm_up=0, training=training)
    return StageSnapshot(run, stages[-1], search, StepIndex(0, 0))


def half_b(snapshot):
    chosen = snapshot.run.parts["b"]
    return snapshot.run.data.plain_batch(chosen).double(), snapshot.run.data.labels[chosen]


def test_the_spectrum_is_that_of_the_dense_hessian():
    snapshot = look_at(darts_space(("skip_connect", "sep_conv_3x3"), 1))
    supernet, (images, labels) = copy.deepcopy(snapshot.search.supernet).double(), half_b(snapshot)
    kinds = snapshot.search.space.cell_types
    active = {kind: everything(snapshot.search.space, kind) for kind in kinds}
    point = torch.cat([snapshot.search.logits[f"alpha.{kind}"].detach().double().flatten() for kind in kinds])

    def loss(alpha):
        tables = [part.view(2, 2).softmax(1) for part in alpha.split(4)]
        mixture = Mixture(dict(zip(kinds, tables, strict=True)), active)
        return F.cross_entropy(supernet(images, mixture), labels)

    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, point)).tolist()
    found = spectrum(snapshot, HessianConfig(iterations=300, tolerance=1e-6))
    assert found["largest"] == pytest.approx(values[-1], rel=1e-6)
    assert found["smallest"] == found["dominant"] == pytest.approx(values[0], rel=1e-6)
    assert values[0] < 0 < values[-1] < -values[0]  # the one that is largest in magnitude is negative
    assert found["converged"] == {"dominant": True, "other": True} and found["alphas"] == 8
    [gradient] = torch.autograd.grad(loss(leaf := point.requires_grad_()), leaf)
    assert found["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-6)


EVERYTHING = darts_space(intermediate=2)


@pytest.mark.parametrize(
    ("space", "changes"),
    [
        (EVERYTHING, {"auxiliary": "skip", "memory": "checkpoint"}),
        (EVERYTHING, {"auxiliary": "projection", "partial": PartialChannels(2), "macro": "mobile"}),
        (named_space("S6"), {"auxiliary": "skip", "memory": "lean", "macro": "nb201"}),
    ],
)
def test_without_kernels_a_supernet_computes_the_same(space, changes):
    shape = Shape(channels=4, layers=3, classes=5, in_chans=1, **changes)
    supernet = Supernet(space, shape).double()
    install_kernels(supernet)
    draws = torch.Generator().manual_seed(0)
    tables = {
        kind: torch.rand(len(space.edges), len(space.candidates(kind)[0]), generator=draws).double()
        for kind in space.cell_types
    }
    edges = {kind: torch.rand(len(space.edges), generator=draws).double() for kind in space.cell_types}
    active = {kind: everything(space, kind) for kind in space.cell_types}
    mixture = Mixture(tables, active, edges=edges, auxiliary=0.7)
    images = torch.randn(3, 1, 32, 32, generator=draws).double()
    same = without_kernels(supernet)
    assert all(getattr(cell, "kernels", None) is None for cell in same.cells)
    with torch.no_grad(), still_statistics(supernet), still_statistics(same):
        expected, found = supernet(images, mixture), same(images, mixture)
    assert (found - expected).abs().max() < 1e-9 < expected.std()


def test_the_dominant_eigenvalue_has_its_sign_and_the_other_end_is_found_from_there():
    matrix = torch.diag(torch.tensor([-3.0, 2.0, 1.0], dtype=torch.float64))
    start, config = torch.ones(3, dtype=torch.float64), HessianConfig(iterations=200, tolerance=1e-9)
    first = power_iteration(lambda v: matrix @ v, start, config)
    other = power_iteration(lambda v: matrix @ v, start, config, shift=first.value)
    assert (first.value, other.value) == (pytest.approx(-3.0), pytest.approx(2.0))
    assert first.residual <= 3e-9 and first.vector.abs().tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    once = power_iteration(lambda v: matrix @ v, start, HessianConfig(iterations=1))
    assert once.value == pytest.approx(0.0) and len(once.history) == 1
    assert once.residual == pytest.approx((14 / 3) ** 0.5)  # of (-3, 2, 1) / sqrt(3), less 0


def test_the_middle_of_a_landscape_is_the_search_and_its_axes_are_orthogonal():
    snapshot = look_at(QUIET)
    snapshot.search.candidate_mask["alpha.normal"][0, 1] = False
    found = landscape(snapshot, LandscapeConfig(points=3, radius=0.5))
    here = validate(snapshot.run, snapshot.search, snapshot.relaxation, snapshot.step_index, 16)
    assert found["centre"] == found["loss"][1][1] == here["validation_loss"]
    assert found["accuracy"][1][1] == here["validation_accuracy"] and found["x"] == [-0.5, 0.0, 0.5]
    one, other = directions(snapshot, 0)
    flat = [torch.cat([part.flatten() for part in found.values()]).double() for found in (one, other)]
    assert one["alpha.normal"][0, 1] == other["alpha.normal"][0, 1] == 0  # closed
    for direction in flat:  # 2 kinds x 5 edges x 2 operations, one of them closed
        assert direction.square().sum().item() == pytest.approx(19, rel=1e-5)
    assert torch.dot(*flat).item() == pytest.approx(0, abs=1e-4)
    for name in one:
        snapshot.search.logits[name].data += 0.5 * one[name] - 0.5 * other[name]
    there = validate(snapshot.run, snapshot.search, snapshot.relaxation, snapshot.step_index, 16)
    assert found["loss"][0][2] == pytest.approx(there["validation_loss"], rel=1e-5)  # row y, column x
    assert found["lowest"] < found["highest"]


def line(epoch, skip, conv, **figures):
    rows = {
        "2<-0": {"skip_connect": skip, "sep_conv_3x3": conv, "dil_conv_3x3": conv + 0.1, "none": 0.3},
        "2<-1": {"max_pool_3x3": 0.5, "sep_conv_3x3": 0.5},  # no skip connection
    }
    return {
        "epoch": epoch,
        "weights": {"alpha.normal": rows, "beta.normal": {"node 2": {"0": 1.0}}},
        **figures,
    }


def test_every_candidate_can_be_differentiated_twice():
    """The product with the Hessian over the weights of all operations is that of differences of gradients."""
    torch.manual_seed(0)
    supernet = Supernet(EVERYTHING, Shape(channels=16, layers=3, classes=5, in_chans=1)).double()
    install_kernels(supernet)
    twice, images = without_kernels(supernet), torch.randn(3, 1, 16, 16).double()
    shape = {
        kind: (len(EVERYTHING.edges), len(EVERYTHING.candidates(kind)[0])) for kind in EVERYTHING.cell_types
    }
    point, way = ([torch.rand(size).double() for size in shape.values()] for _ in range(2))
    active = {kind: everything(EVERYTHING, kind) for kind in shape}

    def gradient(tables, keep=False):
        with still_statistics(twice):
            logits = twice(images, Mixture(dict(zip(shape, tables, strict=True)), active))
        return torch.autograd.grad(logits.square().mean(), tables, create_graph=keep)

    leaves = [table.clone().requires_grad_() for table in point]
    along = sum((g * w).sum() for g, w in zip(gradient(leaves, keep=True), way, strict=True))
    products = torch.autograd.grad(along, leaves)
    step = 1e-6
    ends = [
        [(p + sign * step * w).requires_grad_() for p, w in zip(point, way, strict=True)] for sign in (1, -1)
    ]
    for ours, more, less in zip(products, *map(gradient, ends), strict=True):
        torch.testing.assert_close(ours, (more - less) / (2 * step), rtol=1e-5, atol=1e-5)


def test_the_gap_is_skip_less_the_mean_convolution_of_edges_that_have_both():
    lines = [line(0, 0.2, 0.2, architecture_accuracy=0.4), line(1, 0.4, 0.1, architecture_accuracy=0.5)]
    lines.append(line(2, 0.5, 0.1))  # nothing was measured
    found = gaps(lines, "here")
    assert found["gap"] == pytest.approx([-0.05, 0.25]) and found["accuracy"] == [0.4, 0.5]
    assert found["accuracy_is"] == "architecture_accuracy" and found["epoch"] == [0, 1]
    assert found["correlation"] == pytest.approx(1.0)
    assert found["edges"] == {"normal": {"2<-0": pytest.approx(0.25)}}
    both = [{**row, "validation_accuracy": 0.9} for row in lines[:1]]
    assert gaps(both, "here")["accuracy_is"] == "validation_accuracy"
    assert gaps(both, "here")["correlation"] is None
    with pytest.raises(DotsZooError, match="here: expected validation_accuracy or architecture_accuracy in"):
        gaps([line(0, 0.1, 0.2)], "here")
    with pytest.raises(DotsZooError, match="here: expected edges with skip_connect and a convolution"):
        gaps([{**lines[0], "weights": {"alpha.normal": {"2<-0": {"noise": 1.0}}}}], "here")


def test_exchanged_edges_compute_what_a_supernet_does_with_their_modules_exchanged():
    snapshot = look_at(QUIET)
    (images, _), mixture = half_b(snapshot), snapshot.mixture()
    supernet = snapshot.search.supernet.double()
    double = Mixture({k: table.double() for k, table in mixture.operations.items()}, mixture.active)
    reference, before = copy.deepcopy(supernet), supernet(images, double)
    _, first = searched_cells(supernet)[0]
    with exchanged([first], [(1, 4)]):
        after = supernet(images, double)
    edges = reference.cells[0].nodes.edges
    edges[1], edges[4] = edges[4], edges[1]
    table = double.operations["normal"].clone()
    table[[1, 4]] = table[[4, 1]]  # the only normal cell of three
    expected = reference(images, replace(double, operations={**double.operations, "normal": table}))
    assert (after - expected).abs().max() < 1e-9 < (after - before).abs().max()
    assert torch.equal(supernet(images, double), before)


def test_edges_are_exchanged_where_stride_and_candidates_agree():
    snapshot = look_at(QUIET)
    of_inputs = {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert set(exchangeable(snapshot, "reduce")) == of_inputs  # 3<-2 keeps the resolution
    assert len(exchangeable(snapshot, "normal")) == 10
    found = shuffled(snapshot, ShuffleConfig(draws=2))
    here = validate(snapshot.run, snapshot.search, snapshot.relaxation, snapshot.step_index, 16)
    assert found["before"] == {"loss": here["validation_loss"], "accuracy": here["validation_accuracy"]}
    assert found["cells"] == ["normal", "reduce", "reduce"]
    assert found["draws"][0]["pairs"] != found["draws"][1]["pairs"]
    assert {row["loss"] for row in found["draws"]}.isdisjoint({found["before"]["loss"]})
    assert found == shuffled(snapshot, ShuffleConfig(draws=2))
    with pytest.raises(DotsZooError, match="normal cell: expected two edges with the same operations and"):
        exchangeable(look_at(ONE_WAY), "normal")


def test_the_maps_are_those_of_the_operations_alone():
    snapshot = look_at(darts_space(("none", "skip_connect", "sep_conv_3x3", "avg_pool_3x3"), 2))
    selected = select_edge(snapshot.search, EdgeConfig(node=3, input=2))
    maps = maps_of(snapshot, selected, FeaturesConfig(image_count=16))
    assert list(maps) == ["skip_connect", "sep_conv_3x3", "avg_pool_3x3"]  # none has no maps
    supernet, (images, _) = copy.deepcopy(snapshot.search.supernet).double(), half_b(snapshot)
    seen = []
    edge = supernet.cells[0].nodes.edges[4]
    edge.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].x))
    supernet(images, snapshot.mixture())
    pooled = F.avg_pool2d(seen[0], 3, 1, padding=1, count_include_pad=False)
    normalised = F.batch_norm(pooled, None, None, training=True)
    outputs = seen[0], edge.operations["2"](seen[0]), normalised
    for expected, found in zip(outputs, maps.values(), strict=True):
        assert found.shape == expected.shape and found.std() > 0.1
        ordered = sorted(found.double().flatten(1).sum(1).tolist())  # the images come in random order
        assert ordered == pytest.approx(sorted(expected.flatten(1).sum(1).tolist()), rel=1e-3, abs=1e-3)


def test_operations_that_give_like_maps_are_one_cluster():
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 4, 3, 2, 2, generator=draws)
    maps = {"a": a, "like a": a + 0.01 * b, "b": b, "like b": b - 0.01 * a, "far": 100 * a - 7}
    found = clustered(maps, 3, seed=0)
    assert found["cluster"] == {"a": 0, "like a": 0, "b": 1, "like b": 1, "far": 2}
    assert found["alone"] == ["far"] and found["explained_variance"][0] > 0.9
    table = torch.tensor(found["correlation"])
    assert table.diagonal().tolist() == pytest.approx([1] * 5) and torch.allclose(table, table.T)
    assert table[0, 4].item() == pytest.approx(1.0)  # shift and scale change nothing
    assert clustered({"x": a, "y": -a}, 2, 0)["correlation"][0][1] == pytest.approx(-1.0)
    with pytest.raises(DotsZooError, match="clusters: expected 1 to 5, one an operation at most, got 6"):
        clustered(maps, 6, 0)


def test_the_strongest_operation_is_found_where_alpha_prefers_another():
    snapshot = look_at(ONE_WAY)
    snapshot.search.logits["alpha.reduce"].data = torch.tensor([[0.0, 0.0], [1.0, 0.0]])  # noise
    before = {name: value.clone() for name, value in snapshot.search.supernet.state_dict().items()}
    config = DiscretiseConfig(EdgeConfig("reduce", 2, 1), epochs=25, learning_rate=1.0)
    selected = select_edge(snapshot.search, config.edge)
    found = discretised(
        tuning(snapshot, toy_training().weights, config), selected, config, tqdm(disable=True)
    )
    assert found["largest_alpha"] == "noise" and found["strongest"] == "sep_conv_3x3"
    noise, convolution = found["operations"]
    assert noise["alpha"] == pytest.approx(0.7310586) and noise["logit"] == 1.0  # 1 / (1 + exp(-1))
    assert convolution["accuracy"] >= 0.75 > 0.5 >= noise["accuracy"]
    assert convolution["accuracy"] > convolution["at_once"]["accuracy"]
    assert found["tau"] == found["correlation"] == pytest.approx(-1.0)
    after = snapshot.search.supernet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert snapshot.search.candidate_mask["alpha.reduce"][1].all()


def test_without_tuning_an_edge_has_one_operation_at_weight_one():
    snapshot = look_at(QUIET)
    config = DiscretiseConfig(EdgeConfig(node=3, input=1), epochs=0)
    selected = select_edge(snapshot.search, config.edge)
    found = discretised(
        tuning(snapshot, toy_training().weights, config), selected, config, tqdm(disable=True)
    )
    mixture = snapshot.mixture()
    for column, row in enumerate(found["operations"]):
        table = mixture.operations["normal"].clone()
        table[3] = F.one_hot(torch.tensor(column), 2)
        expected = snapshot.measure(replace(mixture, operations={**mixture.operations, "normal": table}))
        assert (row["loss"], row["accuracy"]) == pytest.approx(expected, rel=1e-5)
        assert row["at_once"] == {"loss": row["loss"], "accuracy": row["accuracy"]}


def test_kendall_s_tau_of_rankings_by_hand():
    # of 6 pairs 5 agree and one does not: (5 - 1) / 6
    assert ranked([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.4])["tau"] == pytest.approx(4 / 6)
    assert ranked([1, 2, 3], [3, 2, 1])["tau"] == pytest.approx(-1)
    assert ranked([1, 2, 3], [5, 5, 5]) == {"tau": None, "p_value": None}


def test_a_pair_is_as_important_as_the_largest_weights_of_its_edges():
    snapshot = look_at(darts_space(("none", "skip_connect", "sep_conv_3x3"), 2))
    alpha = torch.zeros(5, 3)
    alpha[2:] = torch.tensor([[9.0, 1.0, 0.0], [0.0, 0.0, 2.0], [0.0, 3.0, 0.0]])  # 3<-0, 3<-1, 3<-2
    snapshot.search.logits["alpha.normal"].data = alpha
    found = combinations_of(snapshot, "normal", 3, "pairs", "alpha")
    best = [row.softmax(0)[1:].max().item() for row in alpha[2:]]  # none aside
    assert [c.name for c in found] == ["0+1", "0+2", "1+2"]
    expected = [best[0] + best[1], best[0] + best[2], best[1] + best[2]]
    assert [c.importance for c in found] == pytest.approx(expected)
    assert found[1].edges == (Edge(3, 0, "skip_connect"), Edge(3, 2, "skip_connect"))
    with pytest.raises(DotsZooError, match="node: expected one of 2, 3, got 5"):
        combinations_of(snapshot, "normal", 5, "pairs", "alpha")
    with pytest.raises(DotsZooError, match="normal cell, node 2: expected two combinations of edges or more"):
        combinations_of(snapshot, "normal", 2, "pairs", "alpha")


def test_beta_ranks_by_its_logits_and_any_number_of_edges():
    training = toy_training(batch_size=16)
    derivation = toy_derivation("any")
    run, stages, search = begun("darts", QUIET, derivation, warm_up=0, training=training)
    topology = next(stage for stage in stages if stage.name == "topology warm-up")
    search = topology.initialise(run, search, StepIndex(0, 4))
    search.logits["beta.normal"].data[1] = torch.arange(7.0)
    found = combinations_of(StageSnapshot(run, topology, search, StepIndex(0, 4)), "normal", 3, "any", "beta")
    assert [c.name for c in found] == ["0", "1", "2", "0+1", "0+2", "1+2", "0+1+2"]
    assert [c.importance for c in found] == list(range(7))


CELL = CellGenotype(
    (Edge(2, 0, "skip_connect"), Edge(2, 1, "noise"), Edge(3, 1, "noise"), Edge(3, 2, "noise")), (2, 3)
)
FOUND = Genotype("x", "darts", {"normal": CELL, "reduce": CELL})


def test_cells_with_other_edges_and_operations():
    pair = (Edge(3, 0, "sep_conv_3x3"), Edge(3, 2, "skip_connect"))
    changed = with_edges(FOUND, "normal", pair)
    assert changed.normal.edges == (*CELL.edges[:2], *pair) and changed.reduce == CELL
    other = with_operation(FOUND, "reduce", (2, 1), "sep_conv_5x5")
    assert other.reduce.edges[1] == Edge(2, 1, "sep_conv_5x5") and other.normal == CELL
    with pytest.raises(DotsZooError, match="normal cell, edge 3<-0: expected an edge of the cell that was"):
        with_operation(FOUND, "normal", (3, 0), "noise")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EdgeConfig(node=7), "edge 7<-0: expected one of 2<-0, 2<-1, 3<-0, 3<-1, 3<-2"),
        (EdgeConfig("cell"), "cell_type: expected one of normal, reduce, got 'cell'"),
        (
            EdgeConfig(operations=("skip_connect", "dil_conv_3x3")),
            "normal cell, edge 2<-0: expected operations among skip_connect, sep_conv_3x3, got dil_conv_3x3",
        ),
        (
            EdgeConfig(operations=("skip_connect",)),
            "expected 2 operations or more to compare, got skip_connect",
        ),
    ],
)
def test_what_an_edge_does_not_have(config, message):
    with pytest.raises(DotsZooError, match=message):
        select_edge(look_at(QUIET).search, config)
