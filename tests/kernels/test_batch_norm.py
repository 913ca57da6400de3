"""The faster batch norm against torch's own, in double precision."""

import pytest
import torch
from torch import Tensor, nn

from dots_zoo.kernels import FastBatchNorm, batch_norm
from helpers.operators import assert_as_precise


def norms(channels: int) -> tuple[nn.BatchNorm2d, FastBatchNorm]:
    generator = torch.Generator().manual_seed(1)
    plain, other = (nn.BatchNorm2d(channels, momentum=0.3).double() for _ in range(2))
    for norm in (plain, other):
        generator.manual_seed(1)
        with torch.no_grad():
            norm.weight.copy_(torch.randn(channels, generator=generator))
            norm.bias.copy_(torch.randn(channels, generator=generator))
    return plain, FastBatchNorm(other)


@pytest.mark.parametrize("format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 1, 1, 3), (4, 16, 8, 8)])
def test_output_gradients_and_statistics_are_torch_s(
    shape: tuple[int, int, int, int], format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    values, pull = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    results: list[list[Tensor]] = []
    for norm in norms(shape[1]):
        x = (values * 3 + 10).contiguous(memory_format=format).requires_grad_()
        for _ in range(2):
            out = norm(x)
        (out * pull).sum().backward()
        assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
        buffers = [buffer.double() for buffer in norm.buffers()]
        results.append([out, x.grad, norm.weight.grad, norm.bias.grad, *buffers, norm.eval()(x)])
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("train", [False, True])
def test_the_scale_of_a_norm_without_affine_is_a_weight(train: bool) -> None:
    results: list[list[Tensor]] = []
    for fast in (True, False):
        norm, weight = nn.BatchNorm2d(3, affine=False).double().train(train), torch.tensor(0.7).double()
        x = torch.linspace(1, 5, 120).double().view(2, 3, 4, 5).square().requires_grad_()
        weight.requires_grad_()
        out = batch_norm(x, norm, weight.expand(3)) if fast else weight * norm(x)
        out.square().sum().backward()
        assert x.grad is not None and weight.grad is not None
        results.append([out, x.grad, weight.grad, *(b.double() for b in norm.buffers())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_in_float32_the_error_is_that_of_the_reference() -> None:
    pull = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(2)).double()
    results: list[list[Tensor]] = []
    for dtype, kind in ((torch.float, 1), (torch.float, 0), (torch.double, 0)):
        norm = norms(16)[kind].to(dtype)
        x = (torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 10).to(dtype)
        (norm(x.requires_grad_()) * pull.to(dtype)).sum().backward()
        assert x.grad is not None and norm.weight.grad is not None and norm.running_var is not None
        results.append([x.grad, norm.weight.grad, norm.running_mean, norm.running_var])
    assert_as_precise(*results)


def test_a_gradient_that_is_part_of_another_map_arrives_in_the_layout_of_the_map() -> None:
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    layouts: list[bool] = []
    inner = x * 1.0
    inner.register_hook(lambda grad: layouts.append(grad.is_contiguous(memory_format=torch.channels_last)))
    torch.cat([FastBatchNorm(nn.BatchNorm2d(8))(inner), x], dim=1).square().sum().backward()
    assert layouts == [True]


def test_first_and_second_derivatives_are_those_of_finite_differences() -> None:
    norm = FastBatchNorm(nn.BatchNorm2d(2).double())
    x = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    assert torch.autograd.gradcheck(norm, (x,)) and torch.autograd.gradgradcheck(norm, (x,))


def test_in_bfloat16_statistics_are_of_single_precision() -> None:
    norm = nn.BatchNorm2d(4, affine=False, momentum=1.0)
    x = (torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 1).bfloat16()
    batch_norm(x, norm, None)
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, x.float().mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4)
