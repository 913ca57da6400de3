"""A step of a search waits nowhere for the device: it runs on the meta device, where reading back raises, and
sends nothing there from pageable memory, for which a GPU would be waited for, too.
"""

import copy
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dots_zoo.data.augment import Augmentation
from dots_zoo.runtime import to_device as transfer
from dots_zoo.search.methods.darts_pt import PerturbationConfig
from dots_zoo.search.methods.gdas import GdasConfig, sampled_relaxation
from dots_zoo.search.methods.registry import METHODS, Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.space.named import darts_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.init_stage import restart_sgd
from dots_zoo.search.stages.loop import run_of
from dots_zoo.search.stages.stage import StepContext, StepIndex
from helpers.first_step import first_step, resampled
from helpers.toy_search import toy_config, toy_data, toy_training

SPACE = darts_space(("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"), 2)
NASBENCH201 = SearchSpace(3, (CellSpace("cell", (("skip_connect", "nor_conv_3x3"),) * 6),), "nasbench201")
CASES = [
    *((name, {}) for name in METHODS if name != "random_search"),
    ("random_search", {"epochs": 1}),
    ("darts", {"order": "second"}),
    ("dropnas", {"renormalise": True}),
    ("pc_darts", {"share": 2}),
    ("dots", {"training": toy_training(memory="lean")}),
    ("dots", {"training": toy_training(memory="checkpoint")}),
    ("darts", {"macro": "mobile"}),
]


class NothingFromPageableMemory(TorchDispatchMode):
    """Raises where what lies on the host meets the meta device in any way but `sent`; numbers may."""

    COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found = operator(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, torch.Tensor)]
        places = {t.device.type for t in tensors if t.dim() or operator in self.COPIES}
        assert places != {"cpu", "meta"} or kwargs.get("non_blocking"), f"{operator} waits for the device"
        return found


@pytest.fixture
def as_a_gpu(monkeypatch):
    """The meta device is sent to as a GPU is; there is no memory to pin without one."""
    monkeypatch.setattr(transfer, "PINNED", ("cuda", "meta"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)


def on_meta(search):
    """A copy of the search of which a step's tensors are on the meta device."""
    supernet = copy.deepcopy(search.supernet).to("meta")
    logits = {name: nn.Parameter(value.detach().to("meta")) for name, value in search.logits.items()}
    adam = torch.optim.Adam(logits.values())
    return restart_sgd(replace(search, supernet=supernet, logits=logits, logits_optimiser=adam))


def run_on_meta(method, changes, space, derivation):
    """One step of every stage; what draws before it and decides behind it looks at the search that is not
    moved.
    """
    stages = plan(method, toy_config(method, **changes), derivation, space)
    run, search, steps, epoch = run_of(toy_training(), toy_data(8)), None, 0, 0
    for stage in stages:
        search = stage.initialise(run, search, StepIndex(0, epoch))
        if stage.epochs:
            moved = on_meta(search)
            batch = torch.empty(4, 1, 32, 32, device="meta"), torch.zeros(4, dtype=torch.long, device="meta")
            drawn = stage.relax(search).sampled_ops(search.logits, StepIndex(0, epoch))
            assert not drawn or method == "gdas"  # the others have nothing to wait for before it, either
            context = StepContext(run, moved, stage.relax(moved), StepIndex(0, epoch), batch, batch, drawn)
            with NothingFromPageableMemory():
                figures = stage.step(context)
            assert all(figure.device.type == "meta" for figure in figures.values())
            search = stage.after(search, StepIndex(0, epoch), defaultdict(float))
            steps, epoch = steps + 1, epoch + stage.epochs
    assert steps


@pytest.mark.gpu_stub
@pytest.mark.usefixtures("as_a_gpu")
@pytest.mark.parametrize(("method", "changes"), CASES)
def test_no_step_of_an_operation_search_waits_for_the_device(method, changes):
    topology = "pairs" if method == "dots" else "none"
    run_on_meta(method, changes, SPACE, Derivation(topology, topology_search=TopologyConfig(2, 3)))


@pytest.mark.gpu_stub
@pytest.mark.usefixtures("as_a_gpu")
@pytest.mark.parametrize("topology", ["any", "edge_weights", "edge_sigmoid"])
def test_no_step_of_a_topology_search_waits_for_the_device(topology):
    run_on_meta(
        "darts",
        {"epochs": 1, "warm_up": 0},
        SPACE,
        Derivation(topology, topology_search=TopologyConfig(2, 3)),
    )


@pytest.mark.gpu_stub
@pytest.mark.usefixtures("as_a_gpu")
@pytest.mark.parametrize(("method", "topology"), [("gdas", "none"), ("dropnas", "none"), ("dots", "pairs")])
def test_no_step_between_the_decisions_of_a_selection_waits_for_the_device(method, topology):
    tuned = PerturbationConfig(tuning=1)
    run_on_meta(
        method, {}, SPACE, Derivation(topology, 1, "perturbation_magnitude", TopologyConfig(2, 3), tuned)
    )


@pytest.mark.gpu_stub
@pytest.mark.usefixtures("as_a_gpu")
@pytest.mark.parametrize("method", ["darts", "dropnas"])
def test_no_step_in_nas_bench_201_waits_for_the_device(method):
    run_on_meta(method, {}, NASBENCH201, Derivation())


@pytest.mark.gpu_stub
@pytest.mark.usefixtures("as_a_gpu")
def test_no_batch_of_images_in_memory_waits_for_the_device():
    data = toy_data(8).to(torch.device("meta"))
    augmentation = Augmentation(crop_padding=1, flip=True, cutout=2)
    with NothingFromPageableMemory():
        batch = data.train_batch(torch.arange(4), augmentation, torch.Generator())
    assert batch.shape == (4, 1, 8, 8) and batch.device.type == "meta"


@pytest.mark.gpu_stub
def test_gdas_reads_back_before_a_step_what_both_its_halves_draw():
    """On the meta device that raises."""
    context = first_step("gdas").context
    assert len(context.sampled_ops) == 2
    moved = on_meta(context.search)
    with pytest.raises(RuntimeError, match="[Mm]eta"):
        resampled(context, search=moved, relaxation=sampled_relaxation(GdasConfig(), moved))
