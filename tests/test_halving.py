"""Every other pixel of a map, and gradients that lie as they are read."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_zoo.ops import FactorizedReduce
from dots_zoo.search.candidates import candidate
from dots_zoo.search.halving import every_other, halves
from dots_zoo.search.supernet import _Concatenation

LAST = torch.channels_last


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(2, 9), st.integers(2, 9), st.integers(0, 1))
def test_every_other_pixel_and_its_gradient_are_those_of_an_index(batch, channels, height, width, first):
    found, gradients = [], []
    for function in (every_other, lambda x, first: x[:, :, first::2, first::2]):
        x = torch.arange(batch * channels * height * width).double().view(batch, channels, height, width)
        x = (x.contiguous(memory_format=LAST).requires_grad_() + 1).contiguous(memory_format=LAST)
        x.register_hook(gradients.append)  # that of a leaf is laid as the leaf is
        out = function(x, first)
        out.square().sum().backward()
        found.append(out)
    assert torch.equal(*found) and torch.equal(*gradients)
    assert gradients[0].is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("first", [0, 1])
def test_every_other_pixel_can_be_differentiated_twice(first):
    x = torch.randn(2, 3, 5, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: every_other(x, first) ** 2, (x,))


@pytest.mark.parametrize("size", [(2, 4, 6, 8), (1, 4, 7, 5)])
def test_halves_are_what_a_factorized_reduce_reads(size):
    torch.manual_seed(0)
    read, ours = candidate("skip_connect", 4, 2)
    assert read == "halves"
    ours = ours.double().eval()
    plain = FactorizedReduce(4, 4, affine=False).double().eval()
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(size).double()
    found = ours.norm(ours(F.relu(halves(every_other(x, 0), x))))
    torch.testing.assert_close(found, plain(x), rtol=1e-12, atol=1e-12)


def test_the_gradients_of_a_concatenation_lie_apart():
    maps = [torch.randn(2, 3, 4, 4).contiguous(memory_format=LAST).requires_grad_() for _ in range(2)]
    seen = []
    for x in maps:
        x.register_hook(seen.append)
    out = _Concatenation.apply(*maps)
    assert torch.equal(out, torch.cat(maps, dim=1))
    pull = torch.randn(out.shape)
    out.backward(pull.contiguous(memory_format=LAST))
    assert all(g.is_contiguous(memory_format=LAST) for g in seen)
    assert torch.equal(torch.cat([x.grad for x in maps], dim=1), pull)
