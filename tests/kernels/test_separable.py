"""Separable convolutions, and the other sums of the supernet, against the modules that they stand for."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dots_zoo.kernels import depthwise_backward as depthwise_gradient
from dots_zoo.kernels import norm_ops as passes
from dots_zoo.kernels import per_channel as channel_numbers
from dots_zoo.kernels import sep_conv as half_passes
from dots_zoo.kernels.batch_norm import normalise
from dots_zoo.kernels.weighted_sum import weighted_sum
from dots_zoo.ops import OPS
from dots_zoo.search.stages.steps import constant
from dots_zoo.search.supernet.kernel_calls import sep_conv_sum
from dots_zoo.search.supernet.sep_conv import before_relu
from dots_zoo.search.supernet.sep_conv_blocks import sep_conv_blocks

NAMES = ("sep_conv_5x5", "dil_conv_3x3", "sep_conv_3x3", "dil_conv_5x5")
SHAPES = [(3, 4, 5, 7), (2, 16, 8, 8), (1, 32, 9, 6), (2, 16, 1, 2)]


def candidates(channels, stride=1):
    torch.manual_seed(0)
    return nn.ModuleList([OPS[name](channels, stride, False) for name in NAMES])


def maps(shape, count, dtype=torch.double, layout=torch.channels_last):
    draws = torch.Generator().manual_seed(5)
    found = [torch.randn(shape, generator=draws).to(dtype) * 2 + 3 for _ in range(count)]
    return [x.contiguous(memory_format=layout).requires_grad_() for x in found]


def sum_of_separable(modules, weights, maps, lean):
    """By the kernels; those of a stride are fed every other pixel where that is all that they read."""
    candidates = [sep_conv_blocks(module) for module in modules]
    assert all(candidates)
    read = [x[:, :, ::2, ::2] if c[0].even else x for c, x in zip(candidates, maps, strict=True)]
    return sep_conv_sum(candidates, weights, read, lean)


def plain(candidates, weights, maps, lean):
    """As the modules of PyTorch have it."""
    return sum(w * one(x) for one, w, x in zip(candidates, weights, maps, strict=True))


def results(function, shape, stride=1, lean=False, layout=torch.channels_last):
    """Output, gradients and statistics behind two passes; the first and the third candidate read one map."""
    modules = candidates(shape[1], stride).double()
    weights = torch.tensor([0.5, -2.0, 0.1, 1.0]).double().requires_grad_()
    xs = maps(shape, 3, layout=layout)
    for _ in range(2):
        read = [before_relu(x) if function is sum_of_separable else x for x in xs]
        out = function(list(modules), weights, [read[0], read[1], read[0], read[2]], lean)
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).double()
    (out * pull).sum().backward()
    gradients = [t.grad for t in (*modules.parameters(), *xs, weights)]
    return [out, *gradients, *(b.double() for b in modules.buffers())]


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_weighted_sum_is_that_of_the_modules(shape, lean):
    for ours, theirs in zip(results(sum_of_separable, shape, lean=lean), results(plain, shape), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [{"layout": torch.contiguous_format}, {"threads": 2}, {"loops": False}, {"wide": True}, {"wide": False}],
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES[1:3])
def test_so_it_is_whatever_computes_it(shape, stride, changes, monkeypatch):
    """Without loops it goes from pass to pass; tiles are as a processor has registers."""
    if "wide" in changes:
        monkeypatch.setattr(depthwise_gradient, "WIDE", changes["wide"])
        for module in (passes, half_passes):
            monkeypatch.setattr(module, "TILES", ((0,) * (8 if changes["wide"] else 4), (0,)))
    layout, threads = changes.get("layout", torch.channels_last), torch.get_num_threads()
    if not changes.get("loops", True):
        for module in (channel_numbers, passes):
            monkeypatch.setattr(module, "has_loops", lambda x: False)
        monkeypatch.setattr(half_passes, "has_loop", lambda x, taps: False)
    try:
        torch.set_num_threads(changes.get("threads", threads))
        ours = results(sum_of_separable, shape, stride, layout=layout)
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(ours, results(plain, shape, stride), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_what_is_computed_again_is_the_same_bit_by_bit():
    for fast, lean in zip(
        *(results(sum_of_separable, SHAPES[1], lean=x) for x in (False, True)), strict=True
    ):
        assert torch.equal(fast, lean)


def test_a_backward_pass_is_one_loop_for_each_half_where_there_is_one(monkeypatch):
    calls, loop = [], half_passes.write_half_gradient
    monkeypatch.setattr(half_passes, "write_half_gradient", lambda *a: calls.append(0) or loop(*a))
    results(sum_of_separable, (1, 16, 4, 4))
    assert len(calls) == 2 + 1 + 2 + 1
    results(sum_of_separable, (1, 12, 4, 4))
    assert len(calls) == 6


class Calls(TorchDispatchMode):
    """The operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_between_passes_over_maps_few_operators_are_called():
    """Of four candidates with six halves. Memory for x and y of both levels and for the sum, and its views;
    memory for the gradients of four maps and of two between halves; and gradients of the weights of the
    mixture, of 3x3 and 5x5 and of pointwise convolutions, the latter three as views.
    """
    modules = list(candidates(16))
    xs, weights = maps((2, 16, 8, 8), 4, torch.float), torch.ones(4, requires_grad=True)
    with Calls() as forward:
        out = sum_of_separable(modules, weights, xs, False)
    with Calls() as backward:
        out.backward(torch.ones_like(out))
    counts = [Counter(name for name in calls.names if name != "detach") for calls in (forward, backward)]
    assert counts[0] == {"empty": 5, "split": 4}
    assert counts[1] == {"ones_like": 1, "empty_like": 6, "lift_fresh": 4, "unbind": 3}


def test_in_single_precision_the_error_is_that_of_the_library():
    """Inputs far from zero: a variance of E[y^2] - E[y]^2 would lose what is asked for here."""
    x = torch.randn(8, 16, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.01 + 10
    x, errors, weights = x.contiguous(memory_format=torch.channels_last), {}, torch.ones(4)
    truth = plain(list(candidates(16).double()), torch.ones(4).double(), [x.double()] * 4, False)
    for name, function in (("ours", sum_of_separable), ("library", plain)):
        found = function(list(candidates(16)), weights, [x] * 4, False)
        errors[name] = (found.double() - truth).abs().max().item()
    assert errors["ours"] < 2 * errors["library"] < 0.1


def test_the_statistics_of_a_batch_move_only_where_they_are_kept():
    modules = candidates(4)
    for module in modules.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = module.num_batches_tracked = None
    out = sum_of_separable(list(modules), torch.ones(4), maps((2, 4, 3, 3), 4, torch.float), False)
    assert out.isfinite().all() and not [b for b in modules.buffers() if b is not None]


def test_in_the_step_of_the_logits_nothing_is_kept_for_gradients_of_weights():
    modules, kept = candidates(16), {}
    for wanted in (True, False):
        modules.requires_grad_(wanted)
        seen = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, seen=seen: seen.setdefault(t.data_ptr(), t), lambda t: t
        ):
            sum_of_separable(
                list(modules),
                torch.ones(4).requires_grad_(),
                maps((2, 16, 8, 8), 4, torch.float),
                False,
            )
        kept[wanted] = sum(t.numel() for t in seen.values() if t.dim() == 4 and t.shape[2] == 8)
    size = 2 * 16 * 8 * 8
    assert kept == {True: (4 + 2 * 6) * size, False: (4 + 6) * size}


def test_gradients_of_weighted_maps_share_no_memory():
    """Or the engine could neither add to one in place nor free it before the others."""
    ys = maps((2, 16, 4, 4), 3)
    out = weighted_sum(torch.tensor([0.5, 2.0, -1.0]).double(), ys)
    found = torch.autograd.grad(out.sum(), ys)
    assert len({g.untyped_storage().data_ptr() for g in found}) == 3


def test_a_weighted_sum_and_its_gradients_are_those_of_products():
    """Three maps with weights, and one that is added as it is; then only such."""

    def plain(weights, ys, others):
        return sum([w * y for w, y in zip(() if weights is None else weights, ys, strict=True)] + others)

    found = []
    for function in (weighted_sum, plain):
        ys, weights = maps((2, 3, 4, 5), 4), torch.tensor([0.5, 0.0, -3.0]).double().requires_grad_()
        out = function(weights, ys[:3], ys[3:]) + function(None, (), ys[2:])
        (out * torch.arange(out.numel()).double().view_as(out)).sum().backward()
        found.append([out, weights.grad, *(y.grad for y in ys)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("train", [False, True])
def test_the_scale_of_a_norm_without_affine_is_a_weight(train):
    found = []
    for fast in (True, False):
        norm, weight = nn.BatchNorm2d(3, affine=False).double().train(train), torch.tensor(0.7).double()
        [x] = maps((2, 3, 4, 5), 1)
        weight.requires_grad_()
        out = normalise(x, norm, weight.expand(3)) if fast else weight * norm(x)
        out.square().sum().backward()
        found.append([out, x.grad, weight.grad, *(b.double() for b in norm.buffers())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_constant_weights_have_no_gradient_and_what_was_constant_stays_so():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    network[1].weight.requires_grad_(False)
    x = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(ValueError, match="stop"), constant(network):
        network(x).sum().backward()
        raise ValueError("stop")
    assert x.grad is not None and all(p.grad is None for p in network.parameters())
    assert [p.requires_grad for p in network.parameters()] == [True, True, False, True]
