import math

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.dropnas import DropnasConfig, adjusted, dropped, sample_dropout, sample_kept
from dots_zoo.search.methods.registry import plan
from dots_zoo.search.space.named import S0, darts_space, named_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.config import LogitsConfig
from dots_zoo.search.stages.init_stage import decide
from dots_zoo.search.stages.stage import StepIndex
from helpers.first_step import computed, first_step, values
from helpers.matrix import SEEDS
from helpers.toy_search import PLANTED, search_toy, toy_derivation, toy_training

UNIFORM = darts_space(PLANTED, 2)
# Two operations in each group on one edge, and one in each on the other.
POOLING = (0, 1)  # its edge and column: the edges that leave a node share it
ROWS = (("skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"), ("skip_connect", "sep_conv_3x3"))
GROUPED = SearchSpace(1, tuple(CellSpace(kind, ROWS) for kind in ("normal", "reduce")))
HIGH = {"r_p": 0.25, "r_np": 0.25}  # half of all operations is drawn to be dropped in a group of two


def test_the_paper_searches_one_level_for_76_epochs_with_14_cells():
    config = DropnasConfig()
    [stage] = plan("dropnas", config, toy_derivation(), darts_space())
    assert stage.epochs == 76 and config.layers == 14 and stage.batch_size == 96
    assert (stage.images, stage.architecture_images) == ("all", None)
    assert stage.learning_rate(0) == 0.0375 and stage.learning_rate(76) == pytest.approx(0.0015)
    assert config.training.weights.clip == 3.0
    assert config.r_p ** (1 / 4) == pytest.approx(0.074, abs=1e-3)
    logits = config.training.logits
    assert (logits.learning_rate, logits.betas, logits.weight_decay) == (3e-4, (0.5, 0.999), 1e-3)


def test_an_operation_is_dropped_with_the_rate_of_its_group_by_the_size_of_the_group():
    """r^(1/n), given that not all n are: (p - r) / (1 - r)."""
    members = torch.zeros(2, 20000, 6, dtype=torch.bool)
    members[0, :, :2] = members[1, :, 2:] = True  # a group of 2 and one of 4
    members[1, 10000:, 5] = False  # 3 in the other half
    rates = torch.tensor([0.5, 0.0625])
    gone = ~sample_kept(members, rates, torch.Generator().manual_seed(0))
    share = gone[:10000].float().mean(dim=0).tolist()
    assert share[:2] == pytest.approx([(0.5**0.5 - 0.5) / 0.5] * 2, abs=0.02)
    assert share[2:] == pytest.approx([(0.5 - 0.0625) / 0.9375] * 4, abs=0.02)
    third = 0.0625 ** (1 / 3)
    share = gone[10000:].float().mean(dim=0).tolist()
    assert share[2:5] == pytest.approx([(third - 0.0625) / 0.9375] * 3, abs=0.02)
    assert gone[10000:, 5].all()  # no member of a group


def test_a_group_never_loses_all_of_its_operations():
    members = torch.tensor([[[True, True, False, False, False]], [[False, False, True, True, False]]])
    members = members.expand(2, 500, 5)
    kept = sample_kept(members, torch.tensor([0.9, 0.9]), torch.Generator().manual_seed(0))
    assert all((members[group] & kept).any(dim=-1).all() for group in range(2))
    assert not kept[:, 4].any() and (kept.sum(dim=-1) == 2).float().mean() > 0.8


def test_operations_are_grouped_by_whether_they_have_weights():
    context = first_step("dropnas", darts_space(S0, 2), r_p=0.0, r_np=0.9).context
    kept = sample_dropout(DropnasConfig(r_p=0.0, r_np=0.9), context)["alpha.normal"]
    assert kept[:, 4:].all() and (kept[:, :4].sum(dim=-1) == 1).any() and not kept[:, :4].all()
    kept = sample_dropout(DropnasConfig(r_p=0.9, r_np=0.0), context)["alpha.normal"]
    assert kept[:, :4].all() and not kept[:, 4:].all()


def test_without_grouping_all_operations_of_an_edge_are_one_group():
    context = first_step("dropnas", darts_space(S0, 4)).context
    kept = sample_dropout(DropnasConfig(r_p=0.9, r_np=0.9, grouping=False), context)["alpha.normal"]
    assert (kept.sum(dim=-1) >= 1).all() and (kept.sum(dim=-1) == 1).any()  # in groups it would be two
    with pytest.raises(DotsZooError, match="expected the same rate without grouping, got 0.1 and 0.2"):
        DropnasConfig(r_p=0.1, r_np=0.2, grouping=False)


def test_a_rate_is_a_chance():
    with pytest.raises(DotsZooError, match="r_np: expected 0 or more and less than 1, got 1"):
        DropnasConfig(r_np=1.0)


def test_a_step_draws_again_and_the_same_moment_draws_the_same():
    context = first_step("dropnas", darts_space(S0, 2), **HIGH).context
    config = DropnasConfig(**HIGH)

    def drawn(epoch, step):
        step_index = StepIndex(0, epoch, step)
        return sample_dropout(config, type(context)(**{**vars(context), "step_index": step_index}))

    first, again, other = drawn(0, 0), drawn(0, 0), drawn(0, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["alpha.normal"], other["alpha.normal"])
    assert not torch.equal(first["alpha.normal"], first["alpha.reduce"])


def test_what_is_closed_is_not_drawn_and_does_not_count_in_its_group():
    """With one open operation left in its group, an edge keeps it always."""
    context = first_step("dropnas", GROUPED, r_p=0.9, r_np=0.9).context
    closed = decide(context.search, "alpha.normal", 0, 2)  # the edge is a sep_conv_3x3
    for seed in range(20):
        step_index = StepIndex(seed, 0, 0)
        changed = type(context)(**{**vars(context), "search": closed, "step_index": step_index})
        kept = sample_dropout(DropnasConfig(r_p=0.9, r_np=0.9), changed)["alpha.normal"]
        assert kept[0].tolist() == [False, False, True, False]
        assert kept[1].tolist() == [True, True, False, False]  # the shorter row: one in each group


def test_dropped_outputs_are_zero_and_the_others_keep_their_softmax():
    context = first_step("dropnas", GROUPED).context
    context.search.logits["alpha.normal"].data.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0], [1, 3, 9, 9]]).log())
    kept = {name: torch.zeros(2, 4, dtype=torch.bool) for name in context.search.logits}
    kept["alpha.normal"] = torch.tensor([[True, False, False, True], [True, True, False, False]])
    mixture = dropped(DropnasConfig(), context, kept)
    assert mixture.active["normal"] == (frozenset({0, 3}), frozenset({0, 1}))
    torch.testing.assert_close(mixture.operations["normal"][0], torch.tensor([0.1, 0.2, 0.3, 0.4]))
    divided = dropped(DropnasConfig(renormalise=True), context, kept).operations["normal"]
    torch.testing.assert_close(divided, torch.tensor([[0.2, 0, 0, 0.8], [0.25, 0.75, 0, 0]]))


def test_a_dropped_operation_is_not_computed_and_an_epoch_computes_each_of_them_somewhere():
    found = first_step("dropnas", GROUPED, **HIGH)
    kept = sample_dropout(DropnasConfig(**HIGH), found.context)
    seen = computed(found.context, found.step)
    kinds = found.context.search.supernet.cell_types
    wanted = {
        (cell, edge, column)
        for cell, kind in enumerate(kinds)
        for edge in range(2)
        for column in range(4)
        if kept[f"alpha.{kind}"][edge, column] and (edge, column) != POOLING
    }
    assert set(seen) == wanted and 0 < len(wanted) < 6 * len(kinds)


def weights_of(context, kept, wanted):
    """The weights of the operations that are kept, or of those that are dropped."""
    found = []
    for kind, cell in zip(context.search.supernet.cell_types, context.search.supernet.cells, strict=True):
        for edge, mixed_op in enumerate(cell.nodes.edges):
            for column, operation in mixed_op.operations.items():
                if bool(kept[f"alpha.{kind}"][edge, int(column)]) == wanted:
                    found += list(operation.parameters())
    return found


def second_step(**changes):
    """The context after a step that kept everything, so that there is momentum, and what it will drop."""
    found = first_step("dropnas", GROUPED, **{**HIGH, **changes})
    everything = first_step("dropnas", GROUPED, r_p=0.0, r_np=0.0).stage.step
    everything(found.context)
    return found, sample_dropout(DropnasConfig(**HIGH), found.context)


@pytest.mark.parametrize("partial_decay", [True, False])
def test_partial_decay_leaves_dropped_weights_and_their_momentum_as_they_are(partial_decay):
    found, kept = second_step(partial_decay=partial_decay)
    state = found.context.search.weights_optimiser.state
    for wanted in (True, False):
        weights = weights_of(found.context, kept, wanted)
        before = [(w.detach().clone(), state[w]["momentum_buffer"].clone()) for w in weights]
        if wanted:
            kept_before = weights, before
    assert weights  # some are dropped
    found.step()
    still = [
        torch.equal(w, old) and torch.equal(state[w]["momentum_buffer"], momentum)
        for w, (old, momentum) in zip(weights, before, strict=True)
    ]
    assert all(still) if partial_decay else not any(still)
    assert not any(torch.equal(w, old) for w, (old, _) in zip(*kept_before, strict=True))


@pytest.mark.parametrize("partial_decay", [True, False])
def test_partial_decay_leaves_dropped_logits_and_their_moments_as_they_are(partial_decay):
    found, kept = second_step(partial_decay=partial_decay, alpha_adjust=False)
    search = found.context.search
    before = {name: (x.detach().clone(), dict(adam(search, name))) for name, x in search.logits.items()}
    found.step()
    for name, logits in search.logits.items():
        old, moments = before[name]
        now, member = adam(search, name), search.candidate_mask[name]
        gone, on = ~kept[name] & member, kept[name]
        assert gone.any()
        assert not (logits[on] == old[on]).any()
        assert (logits[gone] == old[gone]).all() == partial_decay
        for key in moments:
            assert (now[key][gone] == moments[key][gone]).all() == partial_decay
            assert not (now[key][on] == moments[key][on]).any()


def adam(search, name):
    state = search.logits_optimiser.state[search.logits[name]]
    return {key: state[key].clone() for key in ("exp_avg", "exp_avg_sq")}


def test_the_first_step_of_adam_gives_dropped_logits_no_moments():
    found = first_step("dropnas", GROUPED, **HIGH)
    kept = sample_dropout(DropnasConfig(**HIGH), found.context)
    found.step()
    for name, on in kept.items():
        moments = adam(found.context.search, name)
        assert all((tensor[~on] == 0).all() and (tensor[on] != 0).all() for tensor in moments.values())


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_without_partial_decay_a_dropped_logit_moves_by_decay_alone(decay):
    """The softmax passes a gradient to it, which the paper says it does not receive."""
    adam = LogitsConfig(learning_rate=0.1, betas=(0.0, 0.0), weight_decay=decay)
    changes = {"partial_decay": False, "alpha_adjust": False, "training": toy_training(logits=adam)}
    found = first_step("dropnas", GROUPED, **HIGH, **changes)
    kept = sample_dropout(DropnasConfig(**HIGH), found.context)["alpha.normal"]
    logits = found.context.search.logits["alpha.normal"]
    gone, before = ~kept & found.context.search.candidate_mask["alpha.normal"], logits.detach().clone()
    found.step()
    expected = before[gone] - 0.1 * (decay * before[gone]).sign()  # Adam without memory: the sign
    torch.testing.assert_close(logits[gone], expected)


def test_alpha_adjust_is_equation_3():
    old = torch.tensor([[1.0, 2.0, 3.0]]).log()
    new = torch.tensor([[2.0, 2.0, 5.0]]).log()
    kept = torch.tensor([[True, False, True]])
    x = math.log((1 + 3) / (2 + 5))
    expected = torch.tensor([[math.log(2) + x, math.log(2), math.log(5) + x]])
    torch.testing.assert_close(adjusted(old, new, kept), expected)
    nothing = torch.tensor([[False, False, False]])
    assert torch.equal(adjusted(old, new, nothing), new)  # a closed edge


@pytest.mark.parametrize("alpha_adjust", [True, False])
def test_alpha_adjust_keeps_the_weight_of_a_dropped_operation(alpha_adjust):
    found, kept = second_step(alpha_adjust=alpha_adjust)
    context = found.context
    before = context.relaxation.compute_weights(context.search.logits, context.step_index)[
        "alpha.normal"
    ].detach()
    found.step()
    after = context.relaxation.compute_weights(context.search.logits, context.step_index)[
        "alpha.normal"
    ].detach()
    gone = ~kept["alpha.normal"] & context.search.candidate_mask["alpha.normal"]
    moved = (after[gone] - before[gone]).abs().max()
    assert moved < 1e-6 if alpha_adjust else moved > 1e-3
    assert ((after - before).abs().max() > 1e-3).item()


def test_a_warm_up_drops_and_moves_no_logit():
    found = first_step("dropnas", GROUPED, stage=0, warm_up=2, **HIGH)
    before = values(found.context)
    kept = sample_dropout(DropnasConfig(**HIGH), found.context)
    seen = {(edge, column) for cell, edge, column in computed(found.context, found.step) if cell == 0}
    assert seen == {tuple(place) for place in kept["alpha.normal"].nonzero().tolist()} - {POOLING}
    after = values(found.context)
    assert all(torch.equal(before[name], after[name]) for name in found.context.search.logits)
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("space", ["S0", "S1", "S4", "1-skip", "3-skip", "S6"])
def test_every_space_is_searched(space):
    found = first_step("dropnas", named_space(space), epochs=1, warm_up=0, **HIGH)
    assert torch.isfinite(found.step()["loss"])


def test_a_space_without_weights_of_its_own_is_searched():
    """Where `none` alone is kept in a kind of cell, its logits have no gradient."""
    space = darts_space(("none", "skip_connect"), 1)
    for seed in range(8):
        found = first_step("dropnas", space, seed=seed, r_p=0.9, r_np=0.9)
        assert torch.isfinite(found.step()["loss"])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_operation_is_found(seed):
    cells = search_toy("dropnas", space=UNIFORM, seed=seed)[-1].cells
    assert {edge.op for cell in cells.values() for edge in cell.edges} == {"sep_conv_3x3"}
