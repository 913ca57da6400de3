"""The compiled loops over maps against the same in operators of PyTorch, which any other device runs."""

import pytest
import torch

from dots_zoo.kernels import norm_ops as passes
from dots_zoo.kernels import per_channel as channel_numbers
from dots_zoo.kernels.norm_ops import Norm
from dots_zoo.kernels.per_channel import numbers_of, ones

SIZES = [(2, 16, 3, 5), (1, 32, 4, 4), (3, 5, 2, 7), (2, 48, 1, 1)]


def every_pass(size: tuple[int, int, int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    """What all of them give for the same maps; where channels are many, tiles have a remainder."""
    draws = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64).to(dtype)

    grad, y, x = (passes.dense(numbers(*size)) for _ in range(3))
    scales, norms = (numbers_of(numbers(*shape, size[1]), y) for shape in ((3,), (4, 2)))
    matrices, onto = [numbers(size[1], size[1], 1, 1) for _ in range(2)], grad.clone()
    found = [passes.scaled_sum([grad, y, x], scales), passes.scaled_sum([y, x], scales[:2], onto), onto]
    found += [*passes.scaled_relus([y, x], scales[:2]), *passes.multiples(x, [*scales[0, :2]])]
    found += [passes.channel_sums([x, y]), passes.channel_pulls(grad, [x, y])]
    found.append(passes.masked_pulls([grad, y], [y, x]))
    ys, *statistics = passes.products([x, y], matrices, passes.channel_sums([x, y]))
    found += [*ys, *statistics]
    for masked in (False, True):
        found.append(passes.norm_gradient(grad, y, Norm(*(each[1] for each in norms)), masked))
    return [torch.as_tensor(each) for each in found]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("size", SIZES)
def test_loops_and_operators_give_the_same(size, dtype, tolerance, monkeypatch):
    loops = every_pass(size, dtype)
    for module in (channel_numbers, passes):
        monkeypatch.setattr(module, "has_loops", lambda x: False)
    for ours, operators in zip(loops, every_pass(size, dtype), strict=True):
        assert ours.dtype == operators.dtype and ours.shape == operators.shape
        torch.testing.assert_close(ours, operators, rtol=tolerance, atol=tolerance * 10)


def test_tiles_are_used_where_lanes_divide_the_channels_and_only_there(monkeypatch):
    calls, loop = [], passes.write_all_products
    monkeypatch.setattr(passes, "write_all_products", lambda *a: calls.append(0) or loop(*a))
    every_pass((1, 16, 2, 2), torch.float32)
    every_pass((1, 12, 2, 2), torch.float32)
    assert len(calls) == 1


def test_the_number_of_threads_changes_rounding_alone():
    one = every_pass((5, 16, 3, 5), torch.float64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = every_pass((5, 16, 3, 5), torch.float64)
    finally:
        torch.set_num_threads(threads)
    for ours, theirs in zip(one, three, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_what_is_no_number_is_not_hidden_by_a_relu():
    y = passes.dense(torch.full((1, 16, 2, 2), float("nan")))
    [relu] = passes.scaled_relus([y], ones(y)[None])
    assert relu.isnan().all()


def test_sums_of_many_pixels_keep_their_last_digits():
    x = passes.dense(torch.full((64, 1, 64, 64), 0.1))
    exact = 64**3 * torch.tensor(0.1).double()
    assert abs(passes.channel_sums([x]).item() / exact - 1) < 1e-6
