import dataclasses

import pytest
import torch
import torch.nn.functional as F

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.pc_darts import PcDartsConfig, derive_from_products
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.stages.auxiliary_skip import AuxiliaryConfig
from dots_zoo.search.stages.init_stage import close_edge
from dots_zoo.search.stages.stage import StepIndex
from dots_zoo.search.stages.steps import bilevel, train_weights
from helpers.first_step import first_step, values
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, search_toy, toy_derivation

UNIFORM = darts_space(PLANTED, 2)
TWO = darts_space(("skip_connect", "sep_conv_3x3"), 2)
MINUS = AuxiliaryConfig(branch="skip")


def test_the_paper_warms_up_for_15_of_50_epochs():
    config = PcDartsConfig()
    plain, searching = plan("pc_darts", config, toy_derivation(), darts_space())
    assert (plain.epochs, searching.epochs) == (15, 35)
    assert (plain.step, searching.step) == (train_weights, bilevel)
    assert plain.batch_size == 256 and plain.learning_rate(0) == 0.1
    assert plain.learning_rate(50) == pytest.approx(0.001)
    assert config.training.logits.learning_rate == 6e-4 and config.share == 4 and config.shuffle


def test_edges_are_normalised_at_their_node_and_multiply_their_operations():
    context = first_step("pc_darts", TWO, share=2).context
    beta = torch.tensor([[1.0, 3.0, 5.0], [1.0, 2.0, 5.0]]).log()  # node 2 has two edges
    alpha = torch.tensor([[1.0, 3.0], [1.0, 1.0], [4.0, 1.0], [1.0, 1.0], [0.5, 4.5]]).log()
    context.search.logits["beta.normal"].data.copy_(beta)
    context.search.logits["alpha.normal"].data.copy_(alpha)
    mixture = context.mixture()
    gamma = torch.tensor([0.25, 0.75, 0.125, 0.25, 0.625])
    torch.testing.assert_close(mixture.edges["normal"], gamma)
    softmax = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
    torch.testing.assert_close(mixture.operations["normal"], gamma[:, None] * softmax)


def test_the_cell_is_derived_by_the_products():
    """Operations alone would keep edges 3<-0 and 3<-1 of node 3, edges alone 3<-1 and 3<-2."""
    alpha = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8], [0.6, 0.4]])
    beta = torch.tensor([[0.5, 0.5, 0.0], [0.4, 0.1, 0.5]])
    weights = {
        f"{name}.{kind}": w for kind in TWO.cell_types for name, w in (("alpha", alpha), ("beta", beta))
    }
    edges = derive_from_products(TWO, weights)["normal"].edges[2:]
    assert [(edge.input, edge.op) for edge in edges] == [(0, "sep_conv_3x3"), (2, "skip_connect")]


@pytest.mark.parametrize("share", [1, 2, 4])
def test_one_in_k_channels_goes_through_the_operations(share):
    supernet = first_step("pc_darts", TWO, share=share).context.search.supernet
    sep_conv = supernet.cells[0].nodes.edges[0].operations["1"]
    assert sep_conv[-2].in_channels == 4 // share


def test_the_shuffle_is_an_option():
    """It moves channels only: the same weights give the same maps in another order."""
    outs = []
    for shuffle in (True, False):
        context = first_step("pc_darts", TWO, share=2, shuffle=shuffle).context
        cell, seen = context.search.supernet.cells[0], []
        cell.register_forward_hook(lambda module, given, out, seen=seen: seen.append(out))
        with torch.no_grad():
            context.search.supernet(context.batch[0], context.mixture())
        outs.append(seen[0][:, :4])  # node 2
    shuffled, plain = outs
    assert not torch.equal(shuffled, plain)
    torch.testing.assert_close(F.channel_shuffle(plain, 2), shuffled)


def test_gamma_weighs_what_passes_by_as_well():
    """Node 2 reads one input alone, once its other edge weighs nothing."""
    context = first_step("pc_darts", TWO, share=2, shuffle=False).context
    cell, seen = context.search.supernet.cells[0], []
    context.search.logits["beta.normal"].data[0] = torch.tensor([200.0, 0.0, 0.0])
    cell.preprocess[0].register_forward_hook(lambda module, given, out: seen.append(out))
    cell.nodes.register_forward_hook(lambda module, given, out: seen.append(out[2]))
    with torch.no_grad():
        context.search.supernet(context.batch[0], context.mixture())
    torch.testing.assert_close(seen[1][:, 2:], seen[0][:, 2:])


def test_a_step_trains_both_kinds_of_logits_and_a_warm_up_neither():
    found = first_step("pc_darts", TWO, share=2)
    names = ["alpha.normal", "alpha.reduce", "beta.normal", "beta.reduce"]
    assert list(found.context.search.logits) == names
    before = values(found.context)
    train_weights(found.context)
    assert all(torch.equal(found.context.search.logits[name], before[name]) for name in names)
    found.step()
    assert not any(torch.equal(found.context.search.logits[name], before[name]) for name in names)


def test_a_closed_edge_leaves_its_weight_to_the_others_of_its_node():
    found = first_step("pc_darts", TWO, share=2)
    search = close_edge(found.context.search, "normal", 3)
    mixture = found.stage.relax(search).mixture(search.logits, StepIndex(0, 0))
    beta = search.logits["beta.normal"][1, [0, 2]].softmax(dim=0)
    torch.testing.assert_close(
        mixture.edges["normal"][2:], torch.stack([beta[0], torch.tensor(0.0), beta[1]])
    )
    context = dataclasses.replace(found.context, search=search, relaxation=found.stage.relax(search))
    assert torch.isfinite(bilevel(context)["loss"])


def test_pc_darts_minus_has_a_branch_that_decays_to_nothing():
    found = first_step("pc_darts", TWO, share=2, shuffle=False, auxiliary=MINUS)
    weights = [
        found.context.relaxation.mixture(found.context.search.logits, StepIndex(0, e)).auxiliary
        for e in (0, 3)
    ]
    assert weights == [1.0, 0.0]
    images = found.context.batch[0]
    with torch.no_grad():
        whole = found.context.search.supernet(images, found.context.mixture())
        without = found.context.search.supernet(
            images, dataclasses.replace(found.context.mixture(), auxiliary=0.0)
        )
    assert not torch.allclose(whole, without, atol=1e-3)
    plain = first_step("pc_darts", TWO, share=2).context
    assert plain.mixture().auxiliary == 0.0
    assert plain.search.supernet.cells[0].nodes.edges[0].auxiliary is None


def test_channels_have_to_be_divisible():
    with pytest.raises(DotsZooError, match="divisible by the share of partial channels, 3, got 4"):
        first_step("pc_darts", TWO, share=3)
    with pytest.raises(DotsZooError, match="share: expected 1 or more, got 0"):
        PcDartsConfig(share=0)


@pytest.mark.parametrize("auxiliary", [AuxiliaryConfig(branch="none"), MINUS])
@pytest.mark.parametrize("space", ["S1", "S4", "3-skip", "S6"])
def test_every_space_is_searched(space, auxiliary):
    found = first_step("pc_darts", named_space(space), epochs=1, warm_up=0, share=2, auxiliary=auxiliary)
    assert torch.isfinite(found.step()["loss"])
    weights = found.context.relaxation.compute_weights(found.context.search.logits, found.context.step_index)
    cells = found.stage.derive(found.context.search.space, weights)
    assert {len(cell.edges) for cell in cells.values()} == ({6} if space == "S6" else {8})


def test_its_operations_go_on_to_a_topology_search():
    derivation = Derivation("pairs", topology_search=TopologyConfig(epochs=2, layers=3))
    epochs = search_toy("pc_darts", derivation, TWO, share=2, epochs=2, warm_up=0)
    assert set(epochs[0].weights) == set(epochs[-1].weights)
    assert all(len(row) == 1 for row in epochs[-1].weights["alpha.normal"].values())
    assert len(epochs[-1].weights["beta.normal"]["node 3"]) == 3  # pairs, not edges


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_operation_is_found(seed):
    cells = search_toy("pc_darts", space=UNIFORM, seed=seed, weights_rate=0.1, share=2)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}
