"""Max pooling without indices against PyTorch's."""

import pytest
import torch

from dots_zoo.kernels import elementwise, max_pool_3x3
from dots_zoo.kernels.pooling import (
    max_pool,
    max_pool_backward,
    max_pool_reference,
)
from helpers.operators import LAST, assert_same, counted, draw, opcheck, results, threads

SIZES = [(2, 3, 5, 7), (3, 16, 8, 8), (1, 2, 1, 4), (1, 2, 4, 1), (1, 1, 1, 1), (2, 4, 2, 2)]


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_max_pooling_is_that_of_the_library_ties_included(size, count, dtype):
    """Bit by bit, in either layout; there are few values, so many ties."""
    values = draw(*size, dtype=dtype, grad=False).round()
    for layout in (LAST, torch.contiguous_format):
        both = []
        for function in (max_pool_3x3, max_pool_reference):
            x = values.contiguous(memory_format=layout).requires_grad_()
            with threads(count), counted(elementwise, "write_max_pool", "write_max_pool_gradient") as calls:
                both.append(results(function, [x]))
            assert (len(calls) >= 2) == (function is max_pool_3x3)
        assert_same(*both, 1e-6 if dtype == torch.float else 1e-12)


def test_no_indices_are_kept():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        max_pool_3x3(torch.randn(2, 16, 4, 4, requires_grad=True))
    assert [t.dtype for t in kept] == [torch.float32] * 2


def test_nan_spreads():
    x = torch.zeros(1, 16, 5, 5)
    x[0, 0, 2, 2] = float("nan")
    assert torch.equal(max_pool_3x3(x).isnan(), max_pool_reference(x).isnan())


def test_where_there_are_no_loops_the_library_computes_it():
    for x in (torch.randn(1, 2, 6, 6).bfloat16(), torch.empty(1, 2, 6, 6, device="meta")):
        assert max_pool_3x3(x).shape == x.shape and max_pool_3x3(x).dtype == x.dtype
    assert torch.equal(max_pool_3x3(x := torch.randn(1, 2, 6, 6).bfloat16()), max_pool_reference(x))


def test_gradients_are_those_of_finite_differences():
    x = (torch.randperm(2 * 2 * 4 * 3).double() / 7).view(2, 2, 4, 3).requires_grad_()  # no ties
    assert torch.autograd.gradcheck(max_pool_3x3, (x,))


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_the_operators_keep_their_contract(dtype):
    x = draw(2, 16, 5, 4, dtype=dtype)
    opcheck(max_pool, (x,))
    maps = tuple(draw(2, 16, 5, 4, dtype=dtype, seed=k, grad=False) for k in range(3))
    opcheck(max_pool_backward, maps)
