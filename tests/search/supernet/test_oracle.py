"""What a step computes in every stage of every method, with kernels and without, in double precision."""

import copy
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from torch import nn

from dots_zoo.search.methods.registry import METHODS, Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.space.named import darts_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.init_stage import restart_sgd
from dots_zoo.search.stages.loop import run_of
from dots_zoo.search.stages.stage import StepContext, StepIndex
from dots_zoo.search.supernet.install_kernels import install_kernels
from helpers.matrix import mostly_slow
from helpers.toy_search import toy_config, toy_data, toy_training

SPACE = darts_space(("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"), 2)
NASBENCH201 = SearchSpace(3, (CellSpace("cell", (("skip_connect", "nor_conv_3x3"),) * 6),), "nasbench201")
TRAINING = toy_training()
TOPOLOGIES = ("pairs", "any", "edge_weights", "edge_sigmoid")
IMAGES, LABELS = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double(), torch.arange(4)


def in_double(search):
    """A copy with logits that are drawn."""
    draws = torch.Generator().manual_seed(2)
    logits = {
        name: nn.Parameter(torch.randn(value.shape, generator=draws, dtype=torch.double))
        for name, value in search.logits.items()
    }
    return replace(search, supernet=copy.deepcopy(search.supernet).double(), logits=logits)


def near(ours, theirs):
    zero = torch.zeros(())
    return ((zero if ours is None else ours) - (zero if theirs is None else theirs)).abs().max() <= 1e-9


def multiplied(stage, context):
    """What the forward passes of a step multiply with: each with weights of its own."""
    supernet, seen = copy.deepcopy(context.search.supernet), []
    logits = {name: nn.Parameter(value.detach().clone()) for name, value in context.search.logits.items()}
    adam = torch.optim.Adam(logits.values())
    supernet.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    apart = replace(context.search, supernet=supernet, logits=logits, logits_optimiser=adam)
    stage.step(replace(context, search=restart_sgd(apart)))
    return [replace(one, operations=leaves(one.operations), edges=leaves(one.edges)) for one in seen]


def leaves(tables):
    return tables and {kind: table.detach().clone().requires_grad_() for kind, table in tables.items()}


def compare(search, mixture, inputs):
    """Logits, all gradients and running statistics; what is left out moves no statistics in either."""
    plain, fast = copy.deepcopy(search.supernet), copy.deepcopy(search.supernet)
    install_kernels(fast)
    gradients = []
    logits = [supernet(IMAGES, mixture) for supernet in (plain, fast)]
    for supernet, out in zip((plain, fast), logits, strict=True):
        loss = nn.functional.cross_entropy(out, LABELS)
        leaves = [*supernet.parameters(), *inputs]
        gradients.append(torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True))
    assert near(*logits) and all(map(near, *gradients))
    assert any(gradient is not None for gradient in gradients[0])
    for one, other in zip(plain.named_buffers(), fast.named_buffers(), strict=True):
        assert one[0] == other[0] and near(one[1], other[1])


def every_stage(method, space, derivation):
    run, search, epoch, compared = run_of(TRAINING, toy_data(8)), None, 0, 0
    stages = plan(method, toy_config(method, channels=16, training=TRAINING), derivation, space)
    for stage in stages:
        search = stage.initialise(run, search, StepIndex(0, epoch))
        if stage.epochs:
            moved = in_double(search)
            relaxation, now = stage.relax(moved), StepIndex(0, epoch)
            drawn = relaxation.sampled_ops(moved.logits, now)
            context = StepContext(run, moved, relaxation, now, (IMAGES, LABELS), (IMAGES, LABELS), drawn)
            compare(moved, replace(context.mixture(), skip_dropout=0.0), moved.logits.values())
            for mixture in multiplied(stage, context):
                inputs = [*mixture.operations.values(), *(mixture.edges or {}).values()]
                compare(moved, replace(mixture, skip_dropout=0.0), inputs)
            search = stage.after(
                search, StepIndex(0, epoch), defaultdict(float)
            )  # what decisions look back at
            epoch, compared = epoch + stage.epochs, compared + 1
    assert compared


@pytest.mark.parametrize("method", [name for name in METHODS if name != "dots"])  # it has to have a topology
def test_every_method_computes_the_same_with_kernels(method):
    every_stage(method, SPACE, Derivation())


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("method", mostly_slow(["darts", "dots"], {"dots"}))
def test_every_topology_search_computes_the_same_with_kernels(method, topology):
    warm = TopologyConfig(2, 3, temperature_end=1.0, operation_temperature=1.0)  # else gradients vanish
    every_stage(method, SPACE, Derivation(topology, topology_search=warm))


@pytest.mark.parametrize(
    "method", mostly_slow(["darts", "darts_minus", "dropnas", "gdas"], {"darts", "gdas"})
)
def test_so_it_is_in_nas_bench_201(method):
    every_stage(method, NASBENCH201, Derivation())
