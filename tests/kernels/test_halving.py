"""Every other pixel of a map, and gradients that lie as they are read."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_zoo.ops import FactorizedReduce
from dots_zoo.search.supernet.factorized_reduce import every_other, halves
from dots_zoo.search.supernet.fast_cell import fast_candidate, preprocess

LAST = torch.channels_last


def indexed(x):
    """The pixels of `halves`, as an index takes them."""
    even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
    return even, F.pad(odd, [0, even.shape[3] - odd.shape[3], 0, even.shape[2] - odd.shape[2]])


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_the_pixels_and_their_gradients_are_those_of_an_index(batch, channels, height, width, both):
    ours, plain = (halves, indexed) if both else (every_other, lambda x: x[:, :, ::2, ::2])
    found, gradients = [], []
    for function in (ours, plain):
        x = torch.arange(batch * channels * height * width).double().view(batch, channels, height, width)
        x = (x.contiguous(memory_format=LAST).requires_grad_() + 1).contiguous(memory_format=LAST)
        x.register_hook(gradients.append)  # that of a leaf is laid as the leaf is
        out = torch.cat(function(x), dim=1) if both else function(x)
        out.square().sum().backward()
        found.append(out)
    assert torch.equal(*found) and torch.equal(*gradients)
    assert gradients[0].is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("function", [every_other, lambda x: torch.cat(halves(x), dim=1)])
def test_pixels_can_be_differentiated_twice(function):
    x = torch.randn(2, 3, 5, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: function(x) ** 2, (x,))


@pytest.mark.parametrize("size", [(2, 4, 6, 8), (1, 4, 7, 5)])
def test_halves_are_what_a_factorized_reduce_reads(size):
    """As a candidate, and in front of the nodes of a cell."""
    torch.manual_seed(0)
    reduce = FactorizedReduce(4, 4, affine=False).double().eval()
    x = torch.randn(size).double()
    candidate = fast_candidate(reduce)
    assert candidate.reads == "even_odd"
    even_odd = F.relu(torch.cat(halves(x), dim=1))
    for found in (candidate.norm(candidate.body(even_odd)), preprocess(reduce, F.relu(x))):
        torch.testing.assert_close(found, reduce(x), rtol=1e-12, atol=1e-12)
