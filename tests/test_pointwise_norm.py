"""What the fast path of the supernet computes, against the modules that it stands for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dots_zoo.quick_norm import normalise
from dots_zoo.search.candidates import weighted_sum
from dots_zoo.search.pointwise_norm import norm_relu, norm_sum
from dots_zoo.search.steps import constant

SHAPES = [(3, 4, 5, 7), (1, 3, 4, 4), (2, 16, 8, 8)]


def pair(channels, seed, momentum=0.3):
    torch.manual_seed(seed)
    return nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(
        channels, affine=False, momentum=momentum
    )


def maps(shape, count, dtype=torch.double, layout=torch.channels_last):
    draws = torch.Generator().manual_seed(5)
    found = [torch.randn(shape, generator=draws).to(dtype) * 2 + 3 for _ in range(count)]
    return [x.contiguous(memory_format=layout).requires_grad_() for x in found]


def both(shape, ours, theirs, train=True, **layout):
    """Outputs, gradients and statistics of two functions of pairs, weights and maps."""
    for function in (ours, theirs):
        pairs = [pair(shape[1], seed) for seed in range(3)]
        modules = nn.ModuleList([m for two in pairs for m in two]).double().train(train)
        weights = torch.tensor([0.5, -2.0, 0.1]).double().requires_grad_()
        xs = maps(shape, 3, **layout)
        for _ in range(2):
            out = function(xs, pairs, weights)
        pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).double()
        (out * pull).sum().backward()
        gradients = [t.grad for t in (*modules.parameters(), *xs, weights)]
        yield [out, *gradients, *(b.double() for b in modules.buffers())]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_weighted_sum_of_norms_is_that_of_the_modules(shape, train, layout):
    def plain(xs, pairs, weights):
        return sum(w * norm(conv(x)) for x, (conv, norm), w in zip(xs, pairs, weights, strict=True))

    found = both(shape, lambda xs, p, w: norm_sum(xs, p, w), plain, train, layout=layout)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_and_relu_are_those_of_the_modules(shape, train):
    def fast(xs, pairs, weights):
        return sum(w * y for y, w in zip(norm_relu(xs, pairs), weights, strict=True))

    def plain(xs, pairs, weights):
        return sum(w * F.relu(norm(conv(x))) for x, (conv, norm), w in zip(xs, pairs, weights, strict=True))

    for ours, theirs in zip(*both(shape, fast, plain, train), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_in_single_precision_the_error_is_that_of_the_library():
    """Inputs far from zero: a variance of E[y^2] - E[y]^2 would lose what is asked for here."""
    errors = {}
    conv, norm = pair(16, 0)
    x = torch.randn(8, 16, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.01 + 10
    truth = norm.double()(conv.double()(x.double()))
    conv, norm = pair(16, 0)
    ours, library = norm_sum([x], [(conv, norm)], torch.ones(1)), norm(conv(x))
    for name, found in (("ours", ours), ("library", library)):
        errors[name] = (found.double() - truth).abs().max().item()
    assert errors["ours"] < 2 * errors["library"] < 0.1


def test_the_statistics_of_a_batch_move_only_where_they_are_kept():
    conv, norm = pair(4, 0)
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    [out] = norm_relu(maps((2, 4, 3, 3), 1, torch.float), [(conv, norm)])
    assert out.isfinite().all() and norm.running_mean is None


def test_a_weighted_sum_and_its_gradients_are_those_of_products():
    """Three maps with weights, and one that is added as it is; then only such."""

    def plain(weights, ys, others):
        return sum([w * y for w, y in zip(weights, ys, strict=True)] + others)

    found = []
    for function in (weighted_sum, plain):
        ys, weights = maps((2, 3, 4, 5), 4), torch.tensor([0.5, 0.0, -3.0]).double().requires_grad_()
        out = function(weights.unbind(), ys[:3], ys[3:]) + function((), (), ys[2:])
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
