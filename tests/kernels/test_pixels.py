"""The pixels that layers of stride 2 read, against those of an index."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_zoo.kernels import even_odd_pixels
from dots_zoo.kernels.pixels import spread_pixels, take_pixels
from helpers.operators import LAST, draw, opcheck


def test_gradients_are_those_of_finite_differences():
    x = (torch.randperm(2 * 2 * 4 * 3).double() / 7).view(2, 2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(joined, (x,))
    assert torch.autograd.gradgradcheck(lambda x: joined(x) ** 2, (x,))


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_the_operators_keep_their_contract(dtype):
    x = draw(2, 16, 5, 4, dtype=dtype)
    opcheck(take_pixels, (x, 1))
    opcheck(spread_pixels, (x, 1, 10, 9))


def joined(x):
    return torch.cat(even_odd_pixels(x), dim=1)


def indexed(x):
    """The same, as an index takes them."""
    even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
    return torch.cat(
        [even, F.pad(odd, [0, even.shape[3] - odd.shape[3], 0, even.shape[2] - odd.shape[2]])], dim=1
    )


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
def test_the_pixels_and_their_gradients_are_those_of_an_index(batch, channels, height, width):
    outs, gradients = [], []
    for function in (joined, indexed):
        x = torch.arange(batch * channels * height * width).double().view(batch, channels, height, width)
        x = (x.contiguous(memory_format=LAST).requires_grad_() + 1).contiguous(memory_format=LAST)
        x.register_hook(gradients.append)  # that of a leaf is laid as the leaf is
        out = function(x)
        out.square().sum().backward()
        outs.append(out)
    assert torch.equal(*outs) and torch.equal(*gradients)
    assert gradients[0].is_contiguous(memory_format=LAST)
