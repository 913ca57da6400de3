"""The compiled max pooling against PyTorch's."""

import pytest
import torch
from torch import nn

from dots_zoo.ops import OPS
from dots_zoo.search.supernet.max_pool import MaxPool


def library(stride):
    return OPS["max_pool_3x3"](16, stride, False)


@pytest.mark.parametrize(
    "size", [(2, 3, 5, 7), (3, 16, 8, 8), (1, 2, 1, 4), (1, 2, 4, 1), (1, 1, 1, 1), (2, 4, 2, 2)]
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_output_and_gradient_are_those_of_the_library_ties_included(size, layout):
    plain = library(1)
    draws = torch.Generator().manual_seed(0)
    values = torch.randint(-2, 3, size, generator=draws).double()  # few values: many ties
    pull = torch.randn(size, generator=draws).double()
    found = []
    for module in (MaxPool(plain), plain):
        x = values.contiguous(memory_format=layout).requires_grad_()
        out = module(x)
        found.append((out, *torch.autograd.grad((out * pull).sum(), x)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_no_indices_are_kept():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        MaxPool(library(1))(torch.randn(2, 16, 4, 4, requires_grad=True))
    assert [t.dtype for t in kept] == [torch.float32] * 2


def test_what_is_no_number_spreads():
    x = torch.zeros(1, 16, 5, 5)
    x[0, 0, 2, 2] = float("nan")
    ours, theirs = MaxPool(library(1))(x), library(1)(x)
    assert torch.equal(ours.isnan(), theirs.isnan())


def test_a_stride_and_other_types_are_the_library_s():
    pool = library(2)
    x = torch.randn(1, 2, 6, 6)
    assert torch.equal(MaxPool(pool)(x), pool(x))
    low = x.bfloat16()
    assert torch.equal(MaxPool(library(1))(low), library(1)(low))


def test_other_modules_are_refused():
    with pytest.raises(AssertionError):
        MaxPool(nn.MaxPool2d(2))
