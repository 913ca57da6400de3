"""A supernet with kernels computes what it does without them, on the same parameters and buffers."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from dots_zoo.ops import OPS
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.space.named import darts_space, named_space
from dots_zoo.search.supernet import PartialChannels, Supernet, still_statistics, without_kernels
from dots_zoo.search.supernet.install_kernels import install_kernels
from helpers.paths import ROOT
from helpers.supernets import OPERATION_STAGE, TOPOLOGY_STAGE, mixture_for, near, shape

NASBENCH201 = named_space("S6")
SKIPS = darts_space(("none", "skip_connect", "skip_connect", "dil_conv_3x3"), 2)  # as in 3-skip
SMALL = darts_space(("max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"), 2)


def with_kernels(space, **changes):
    torch.manual_seed(0)
    supernet = Supernet(space, shape(**changes)).double()
    install_kernels(supernet)
    return supernet


def step(supernet, images, mixture):
    """Logits, all gradients and running statistics."""
    inputs = [*mixture.operations.values(), *(mixture.edges or {}).values()]
    logits = supernet(images, mixture)
    loss = nn.functional.cross_entropy(logits, torch.arange(len(images)))
    gradients = torch.autograd.grad(loss, [*supernet.parameters(), *inputs], allow_unused=True)
    zero = torch.zeros((), dtype=torch.double)
    return [logits, *(zero if g is None else g for g in gradients), *supernet.buffers()]


@pytest.mark.parametrize(
    ("space", "size", "changes"),
    [
        (OPERATION_STAGE, (9, 7), {"in_chans": 1, "layers": 5}),
        (OPERATION_STAGE, (8, 8), {"channels": 16}),
        (TOPOLOGY_STAGE, (9, 11), {"layers": 5}),
        (SKIPS, (37, 43), {"macro": "mobile"}),
        (NASBENCH201, (9, 7), {"layers": 6, "macro": "nb201"}),
        (OPERATION_STAGE, (9, 7), {"partial": PartialChannels(4), "edges": True}),
        (TOPOLOGY_STAGE, (8, 8), {"partial": PartialChannels(2, shuffle=False), "edges": True}),
        (NASBENCH201, (8, 8), {"partial": PartialChannels(2), "edges": True, "beta": 0.5,
                               "auxiliary": "skip", "macro": "nb201"}),
        (TOPOLOGY_STAGE, (9, 7), {"beta": 0.7, "auxiliary": "skip"}),
        (TOPOLOGY_STAGE, (8, 8), {"beta": 0.3, "auxiliary": "projection", "partial": PartialChannels(2),
                                  "edges": True}),
    ],
)  # fmt: skip
def test_kernels_give_the_same_logits_gradients_and_running_statistics(space, size, changes):
    changes = {"layers": 3, "in_chans": 3, **changes}
    beta, weighed = changes.pop("beta", 0.0), changes.pop("edges", False)
    fast = with_kernels(space, **changes)
    plain = without_kernels(fast)
    images = torch.randn(3, changes["in_chans"], *size).double()
    edges = {k: torch.linspace(0.5, 1.5, len(space.edges)).double() for k in space.cell_types}
    edges = {kind: table.requires_grad_() for kind, table in edges.items()} if weighed else None
    mixture = mixture_for(space, torch.double, auxiliary=beta, edges=edges)
    ours, expected = (step(supernet, images, mixture) for supernet in (fast, plain))
    assert all(map(near, ours, expected))
    assert all(gradient.abs().max() > 0 for gradient in expected[1 : 1 + len(list(plain.parameters()))])


@pytest.mark.parametrize("held", [False, True])
def test_so_they_do_in_evaluation_and_where_statistics_are_held_still(held):
    fast = with_kernels(SMALL, layers=3)
    plain, images = without_kernels(fast), torch.randn(3, 3, 8, 8).double()
    outs = []
    for supernet in (fast, plain):
        if held:
            before = [buffer.clone() for buffer in supernet.buffers()]
            with still_statistics(supernet):
                outs.append(step(supernet, images, mixture_for(SMALL, torch.double)))
            assert all(map(torch.equal, before, supernet.buffers()))
        else:
            step(supernet, images, mixture_for(SMALL, torch.double))
            outs.append(step(supernet.eval(), images, mixture_for(SMALL, torch.double)))
    assert all(map(near, *outs))


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("memory", ["lean", "checkpoint"])
def test_what_is_recomputed_changes_nothing(memory, kernels):
    """Neither the logits, nor a gradient, nor the running statistics: those move once."""
    outs, images = [], torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1)).double()
    for kept in ("fast", memory):
        torch.manual_seed(0)
        supernet = Supernet(SMALL, shape(layers=3, memory=kept)).double()
        if kernels:
            install_kernels(supernet)
        outs.append(step(supernet, images, mixture_for(SMALL, torch.double)))
    assert all(map(torch.equal, *outs))


@pytest.mark.parametrize("kernels", [False, True])
def test_less_is_kept_where_memory_is_lean_or_checkpoint(kernels):
    space, sizes = darts_space(("sep_conv_3x3", "dil_conv_3x3"), 2), {}
    for memory in ("fast", "lean", "checkpoint"):
        supernet, seen = Supernet(space, shape(layers=3, memory=memory)), {}
        if kernels:
            install_kernels(supernet)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, seen=seen: seen.setdefault(t.data_ptr(), t), lambda t: t
        ):
            supernet(torch.randn(2, 3, 16, 16), mixture_for(space))
        sizes[memory] = sum(t.numel() for t in seen.values())
    assert sizes["lean"] < 0.45 * sizes["fast"]
    assert sizes["checkpoint"] < 0.6 * sizes["lean"]


def nearly(change):
    """A dilated convolution that the kernels do not know, in the one way that `change` makes it another."""

    def build(channels, stride, affine):
        operation = OPS["dil_conv_3x3"](channels, stride, affine)
        change(operation, channels, stride)
        return operation

    return build


def with_bias(operation, channels, stride):
    operation[2] = nn.Conv2d(channels, channels, 1)


def with_other_activation(operation, channels, stride):
    operation[0] = nn.Hardswish()


def with_other_eps(operation, channels, stride):
    operation[3] = nn.BatchNorm2d(channels, eps=1e-3, affine=False)


def with_affine_norm(operation, channels, stride):
    operation[3] = nn.BatchNorm2d(channels)


def with_fewer_zeros_around(operation, channels, stride):
    operation[1] = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)


OWN = {
    "neither ReLU nor norm": lambda channels, stride, affine: nn.Conv2d(channels, channels, 3, stride, 1),
    "no parameters": lambda channels, stride, affine: nn.AvgPool2d(stride) if stride > 1 else nn.Tanh(),
    "one module": lambda channels, stride, affine: (
        OPS["skip_connect"](channels, 2, False) if stride == 2 else nn.LeakyReLU()
    ),
    "bias": nearly(with_bias),
    "activation": nearly(with_other_activation),
    "eps": nearly(with_other_eps),
    "affine": nearly(with_affine_norm),
    "stride and no dilation": nearly(with_fewer_zeros_around),
}


@pytest.mark.parametrize("own", OWN)
def test_an_operation_of_ones_own_is_computed_beside_the_kernels(own, monkeypatch):
    monkeypatch.setitem(OPS, "noise", replace(OPS["noise"], build=OWN[own]))
    space = darts_space(("sep_conv_3x3", "noise", "dil_conv_5x5"), 1)
    fast = with_kernels(space, layers=3, auxiliary="skip")
    images = torch.randn(3, 3, 8, 8).double()
    mixture = mixture_for(space, torch.double, auxiliary=0.5)
    assert all(map(near, *(step(s, images, mixture) for s in (fast, without_kernels(fast)))))


def test_parameters_and_buffers_keep_their_names():
    for space, macro in ((OPERATION_STAGE, "cifar"), (NASBENCH201, "nb201")):
        plain = Supernet(space, shape(layers=3, macro=macro, auxiliary="projection"))
        fast = copy.deepcopy(plain)
        install_kernels(fast)
        assert list(fast.state_dict()) == list(plain.state_dict())
        assert [n for n, _ in fast.named_modules()] == [n for n, _ in plain.named_modules()]
        assert fast.load_state_dict(plain.state_dict()).missing_keys == []


def test_a_copy_with_kernels_is_a_supernet_of_its_own():
    fast = with_kernels(SMALL, layers=3)
    other = copy.deepcopy(fast)
    other(torch.randn(2, 3, 8, 8).double(), mixture_for(SMALL, torch.double)).sum().backward()
    assert all(parameter.grad is None for parameter in fast.parameters())
    assert all(parameter.grad is not None for parameter in other.parameters())
    for module in (fast, other):  # the statistics of the copy alone have moved
        counts = {b.item() for name, b in module.named_buffers() if "num_batches" in name}
        assert counts == ({1} if module is other else {0})


def test_kernels_are_for_a_cpu():
    supernet = Supernet(SMALL, shape(layers=3)).to("meta")
    with pytest.raises(DotsZooError, match="kernels on: expected a CPU with numba installed, got the device"):
        install_kernels(supernet)


SEARCH = """
import sys
from dataclasses import replace
from pathlib import Path
from dots_zoo.search.methods.registry import Derivation
from dots_zoo.search.run.run import run_search
from dots_zoo.search.supernet import Supernet
from dots_zoo.search.supernet.install_kernels import install_kernels
from helpers.supernets import OPERATION_STAGE, shape
from helpers.toy_search import toy_config, toy_data, toy_training
config = toy_config("darts", epochs=1, warm_up=0, training=toy_training(kernels="off"))
run_search("darts", config, Derivation(), "S2", toy_data(64), Path(sys.argv[1]), progress=False)
print(*sys.modules)
install_kernels(Supernet(OPERATION_STAGE, shape(layers=3)))
print(*sys.modules)
"""


@pytest.mark.processes
def test_a_search_with_kernels_off_imports_none_of_them(tmp_path):
    command = [sys.executable, "-c", SEARCH, str(tmp_path / "run")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "tests")
    off, installed = (set(line.split()) for line in printed.stdout.splitlines())
    kernels = {"dots_zoo.kernels", "dots_zoo.kernels.sep_conv", "dots_zoo.search.supernet.fast_cell"}
    assert off.isdisjoint({"numba", "llvmlite", *kernels}) and kernels <= installed
