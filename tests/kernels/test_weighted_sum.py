"""Weighted sums of maps and their gradients against products."""

import pytest
import torch

from dots_zoo.kernels import weighted_sum
from dots_zoo.kernels.weighted_sum import scaled_sum, scaled_sum_backward, weighted_sum_reference
from helpers.operators import assert_as_precise, assert_same, draw, opcheck, results, threads

SHAPES = [(2, 3, 4, 5), (1, 16, 7, 3), (3, 1, 1, 1)]


def inputs(shape, dtype=torch.double):
    return torch.tensor([0.5, 0.0, -3.0], dtype=dtype).requires_grad_(), *(
        draw(*shape, dtype=dtype, seed=k) for k in range(4)
    )


def ours(weights, *maps):
    """Three maps with weights, and one that is added as it is; then none of these."""
    return weighted_sum(weights, maps[:3], maps[3:]) + weighted_sum(weights, maps[1:])


def reference(weights, *maps):
    products = [w * y for w, y in zip(weights, maps[:3], strict=True)]
    others = [w * y for w, y in zip(weights, maps[1:], strict=True)]
    return sum(products) + maps[3] + sum(others)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_sum_of_products(shape, count):
    with threads(count):
        assert_same(results(ours, inputs(shape)), results(reference, inputs(shape)))


def test_in_float32_the_error_is_that_of_the_reference():
    shape = (4, 16, 32, 32)
    exact = results(reference, inputs(shape))
    assert_as_precise(*(results(f, inputs(shape, torch.float)) for f in (ours, reference)), exact)


def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(ours, inputs((2, 3, 2, 2)))


def test_gradients_share_no_memory():
    """Or the engine could neither add to one in place nor free it before the others."""
    weights, *maps = inputs((2, 16, 4, 4))
    gradients = torch.autograd.grad(weighted_sum(weights, maps[:3]).sum(), maps[:3])
    assert len({g.untyped_storage().data_ptr() for g in gradients}) == 3


def test_a_map_is_kept_only_for_the_gradient_of_its_weight():
    weights, *maps = inputs((2, 3, 4, 4))
    for wanted, count in ((True, 3), (False, 0)):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            weighted_sum(weights.detach().requires_grad_(wanted), maps[:3])
        assert sum(t.dim() == 4 for t in kept) == count


def test_the_operators_keep_their_contract():
    weights, *maps = inputs((2, 3, 4, 5))
    opcheck(scaled_sum, (weights, maps[:3], maps[3:]))
    detached = maps[0].detach(), weights.detach(), [y.detach() for y in maps[:3]], [True, False, True]
    opcheck(scaled_sum_backward, detached)


def test_where_there_are_no_loops_torch_computes_it():
    weights, *maps = (x.detach().bfloat16() for x in inputs((2, 3, 4, 5)))
    rest = maps[:3], maps[3:]
    assert torch.equal(weighted_sum(weights, *rest), weighted_sum_reference(weights, *rest))
